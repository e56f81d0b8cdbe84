"""The manifest of a folder tree, with every image checked by its header.

What a folder may look like (names of class folders are the labels):

    images/*.png                             no labels
    images/CLASS/**/*.png                    labels
    images/{train,validation,test}/CLASS/**  labels and splits
    images/{train,validation,test}/*.png     splits, no labels

Split folders may be named train, training, train_set, train_data, validation, valid, val, ...,
test, testing, ... in any case, and need not all be there. Files deeper than a class folder belong
to that class. Folders whose names are one name in several Unicode forms are one class. Hidden
files, files that are no images and what systems leave behind are left out; links are followed.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.groups import equal_pairs
from data_prep.manifest.identity import image_name
from data_prep.manifest.manifest import SPLITS, HeaderFacts, Manifest, Record, canonical_split
from data_prep.manifest.root import moved_hint
from data_prep.names import clean_name, composed, name_problems
from data_prep.phrases import counted
from data_prep.reading.formats.arrays import array_suffixes
from data_prep.reading.formats.raw import SUFFIXES as RAW_SUFFIXES
from data_prep.reading.headers import Survey, survey, unusable
from data_prep.reading.spec import parse_reading

_EXAMPLES = 3

# What systems, network drives and archives leave beside images, case-folded.
_RUBBISH = frozenset(
    """
    __macosx .ds_store .appledouble .appledb .appledesktop .temporaryitems .trashes .fseventsd
    .spotlight-v100 .documentrevisions-v100 .localized
    thumbs.db thumbs.db:encryptable ehthumbs.db ehthumbs_vista.db desktop.ini $recycle.bin found.000
    @eadir #recycle #snapshot @recycle @recently-snapshot @sharebin @__thumb .@__thumb
    lost+found
    """.split()
) | {"system volume information", "network trash folder", "temporary items", "icon\r"}
_RUBBISH_STARTS = ("._", "~$", ".trash-", ".nfs", ".fuse_hidden", "synofile_thumb")


def is_rubbish(name: str) -> bool:
    """Returns True if a system makes this file or folder for itself, such as `Thumbs.db`."""
    folded = name.casefold()
    return folded in _RUBBISH or folded.startswith(_RUBBISH_STARTS)


@dataclass(frozen=True)
class LeftOut:
    """Files and folders that a scan left out, as paths below the folder.

    Attributes:
        others: Files that are no images by their ending.
        hidden: Files and folders whose names begin with a dot.
        rubbish: Files and folders that systems make for themselves (`is_rubbish`).
        empty: Class and split folders without an image.
    """

    others: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    rubbish: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()

    def in_empty(self) -> dict[str, list[str]]:
        """Folders without an image, and the files that are in each."""
        return {
            folder: [file for file in self.others if file.startswith(f"{folder}/")]
            for folder in self.empty
        }

    def warnings(self, suffixes: Iterable[str]) -> list[str]:
        """Returns the warnings for the user, a sentence each; rubbish is not worth one.

        Args:
            suffixes: Endings of image files.
        """
        said = []
        for folder, files in self.in_empty().items():
            inside = f"only {endings(files)}" if files else "nothing"
            said.append(f"the folder {folder!r} holds no image ({inside}) and makes no class")
        if self.others:
            said.append(f"{len(self.others)} files are no images ({endings(self.others)})")
        images = [file for file in self.hidden if file.lower().endswith(tuple(suffixes))]
        if images:
            said.append(f"{len(images)} hidden images are left out ({some(images)})")
        return said


def endings(files: Iterable[str]) -> str:
    """The most frequent endings of files, counted: `2 .txt, 1 no ending`."""
    found = Counter(os.path.splitext(file)[1].lower() or "no ending" for file in files)
    most = sorted(found.items(), key=lambda item: (-item[1], item[0]))[:4]
    return ", ".join(f"{number} {ending}" for ending, number in most)


def some(names: Iterable[str], most: int = _EXAMPLES) -> str:
    """The first of some names, side by side."""
    listed = list(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")


_LOGGER = logging.getLogger(__name__)

_SHOWN = 10
_PICTURE_SUFFIXES = tuple(".jpg .jpeg .jpe .jfif .png .bmp .dib .gif .tif .tiff .webp".split())


@dataclass(frozen=True)
class ImageFacts:
    """Facts of all images of a manifest together, from their headers.

    Attributes:
        channels: 1 if all images are grey, 3 if any has colour, n for images of n bands.
        bits: The most of any image, as in `headers.Header.bits`.
        max_height: Pixels.
        max_width: Pixels.
        total_pixels: Height times width, summed over the images.
        extensions: The file endings in use, lower case, sorted.
        survey: The facts image by image.
    """

    channels: int
    bits: int
    max_height: int
    max_width: int
    total_pixels: int
    extensions: tuple[str, ...]
    survey: Survey = field(repr=False, compare=False)


def scan_folder(
    image_dir: str | os.PathLike[str], *, skip_unreadable: bool = False, reading: str = ""
) -> Manifest:
    """Makes the manifest of a folder of images; records are ordered by split, class and name.

    Args:
        image_dir: The folder, laid out as the module's text says.
        skip_unreadable: Leave out images that cannot be read (logged) instead of raising.
        reading: What is declared of all files, as in a manifest.

    Returns:
        A manifest with `root` = the folder's absolute path, labels and splits where there are any.

    Raises:
        UserError: No such folder, no images in it, split folders beside other images, an image in
            two splits, or unreadable images.
    """
    listed = list_folder(image_dir, reading=reading)
    manifest = check_images(listed, skip_unreadable=skip_unreadable)
    log_gaps(manifest)
    return manifest


def image_suffixes() -> tuple[str, ...]:
    """Endings of image files; `.raw`, `.bin` and `.dat` count where their shape is declared."""
    return (*_PICTURE_SUFFIXES, *array_suffixes())


def list_folder(image_dir: str | os.PathLike[str], *, reading: str = "") -> Manifest:
    """Like `scan_folder`, but by the names alone: unreadable files are listed too.

    Raises:
        UserError: No such folder, no images in it, or split folders beside other images.
    """
    manifest, left_out = list_with_left_out(image_dir, reading=reading)
    for text in left_out.warnings(image_suffixes()):
        _LOGGER.warning("%s: %s", manifest.root, text)
    return manifest


def list_with_left_out(
    image_dir: str | os.PathLike[str], *, reading: str = ""
) -> tuple[Manifest, LeftOut]:
    """Like `list_folder`, but returns what is left out instead of logging it.

    Raises:
        UserError: As `list_folder`.
    """
    root = os.path.abspath(os.path.expanduser(image_dir))
    if not os.path.isdir(root):
        what = "is a file, not a folder" if os.path.isfile(root) else "not found"
        raise UserError(f"image folder {what}: {root}")
    raw = bool(reading) and bool(parse_reading(reading).shape)
    tree = _Tree(root, image_suffixes() + tuple(sorted(RAW_SUFFIXES)) * raw)
    records = list(_split_records(tree))
    if reading:
        records = [replace(record, reading=reading) for record in records]
    if not records:
        raise UserError(_nothing_found(tree))
    return Manifest(tuple(records), root), tree.left_out()


def check_images(manifest: Manifest, *, skip_unreadable: bool = False) -> Manifest:
    """Reads the header of every image; finds unusable files and one file in two splits.

    Damage inside the compressed data is not seen here if the file begins and ends as it should.

    Returns:
        The manifest, without unreadable images if those are to be skipped.

    Raises:
        UserError: Unreadable images, or a file that is in two splits by way of a link.
    """
    for text in name_problems(manifest.class_names):
        _LOGGER.warning("%s", text)
    files = manifest.files()
    found = _read_headers(manifest, files)
    _check_links(manifest, files, found)
    if not found.problems:
        return manifest
    error = unusable(_names(manifest), found.problems)
    if not skip_unreadable or len(found.problems) == len(files):
        if not any(os.path.exists(files[index]) for index in found.problems):
            raise UserError(f"{error}. Also, {moved_hint(manifest.root)}")
        raise error
    _LOGGER.warning("left out: %s", error)
    return manifest.subset(
        record for index, record in enumerate(manifest.records) if index not in found.problems
    )


def image_facts(manifest: Manifest) -> ImageFacts:
    """Facts of all images from their headers.

    Raises:
        UserError: Unreadable images, or images whose channels do not go together.
    """
    files = manifest.files()
    found = survey_of(manifest)
    if found.problems:
        raise unusable(_names(manifest), found.problems)
    return ImageFacts(
        channels=_common_channels(found.channels, _names(manifest)),
        bits=int(found.bits.max()),
        max_height=int(found.height.max()),
        max_width=int(found.width.max()),
        total_pixels=int((found.height.astype(np.int64) * found.width).sum()),
        extensions=tuple(sorted({os.path.splitext(file)[1].lower() for file in files})),
        survey=found,
    )


def _names(manifest: Manifest) -> list[str]:
    """The files, with page and tile where there are any, for messages."""
    files = zip(manifest.files(), manifest.records, strict=True)
    return [image_name(file, record.reading, record.tile) for file, record in files]


def survey_of(manifest: Manifest) -> Survey:
    """Facts of all images one by one; headers that have been read before are not read again.

    The identity of files on disk is not among them.
    """
    records = manifest.records
    missing = [i for i, record in enumerate(records) if manifest.headers.get(record) is None]
    problems: dict[int, str] = {}
    if missing:
        unread = manifest.subset(records[i] for i in missing)
        problems = {
            missing[i]: text for i, text in _read_headers(unread, unread.files()).problems.items()
        }
    none = HeaderFacts(0, 0, 0, 0, 0)
    rows = [manifest.headers.get(record) or none for record in records]
    height, width, channels, bits, decoder = np.array(rows, np.int32).reshape(-1, 5).T.copy()
    identity = np.zeros(len(records), np.int64)
    return Survey(height, width, channels, bits, decoder, identity, identity, problems)


def _read_headers(manifest: Manifest, files: list[str]) -> Survey:
    """Reads all headers, and keeps what they say with the manifest."""
    records = manifest.records
    found = survey(files, [r.reading for r in records], [r.tile for r in records])
    facts = (found.height, found.width, found.channels, found.bits, found.decoder)
    rows = zip(records, *(column.tolist() for column in facts), strict=True)
    for index, (record, *header) in enumerate(rows):
        if index not in found.problems:
            manifest.headers.note(record, HeaderFacts(*header))
    return found


def _common_channels(channels: np.ndarray, files: list[str]) -> int:
    present = set(channels.tolist())
    if present <= {1, 3}:
        return max(present)
    if len(present) == 1:
        return int(channels[0])
    examples = ", ".join(
        f"{number} ({files[int(np.argmax(channels == number))]})" for number in sorted(present)
    )
    raise UserError(f"images with different numbers of channels cannot be mixed: {examples}")


class _Tree:
    """Image files below a folder, sorted; notes what it leaves out."""

    def __init__(self, root: str, suffixes: tuple[str, ...]):
        self.root = root
        self.suffixes = suffixes
        self.empty: list[str] = []
        self._left: dict[str, LeftOut] = {}

    def children(self, folder: str) -> tuple[list[str], list[str]]:
        """Names of the sub-folders and of the image files in a folder."""
        folders: list[str] = []
        images: list[str] = []
        others: list[str] = []
        hidden: list[str] = []
        rubbish: list[str] = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_rubbish(entry.name):
                    rubbish.append(entry.name)
                    continue
                if entry.name.startswith("."):
                    hidden.append(entry.name)
                    continue
                _check_name(entry)
                if entry.is_dir():
                    folders.append(entry.name)
                elif entry.name.lower().endswith(self.suffixes):
                    images.append(entry.name)
                else:
                    others.append(entry.name)
        below = [
            tuple(_printable(self.relative(os.path.join(folder, n))) for n in sorted(names))
            for names in (others, hidden, rubbish)
        ]
        self._left[folder] = LeftOut(*below)
        # Folders of one name in two Unicode forms side by side.
        folders.sort(key=lambda name: (clean_name(name), name))
        return folders, sorted(images, key=lambda name: (composed(name), name))

    def images_below(self, folder: str, above: frozenset[str] = frozenset()) -> Iterator[str]:
        """Paths of all images in a folder and its sub-folders."""
        real = os.path.realpath(folder)
        if real in above:
            raise UserError(f"{folder} is a link to a folder that holds it; remove the link")
        folders, images = self.children(folder)
        yield from (os.path.join(folder, name) for name in images)
        for name in folders:
            yield from self.images_below(os.path.join(folder, name), above | {real})

    def left_out(self) -> LeftOut:
        """The files and folders left out so far."""
        parts = self._left.values()
        return LeftOut(
            tuple(name for part in parts for name in part.others),
            tuple(name for part in parts for name in part.hidden),
            tuple(name for part in parts for name in part.rubbish),
            tuple(self.empty),
        )

    def relative(self, path: str) -> str:
        """Path below the root, with forward slashes."""
        return Path(path).relative_to(self.root).as_posix()


def _printable(name: str) -> str:
    """A name that can be written as UTF-8."""
    return name.encode(errors="backslashreplace").decode()


def _check_name(entry: os.DirEntry[str]) -> None:
    try:
        entry.name.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"file name is not valid UTF-8: {os.fsencode(entry.path)!r}; rename it"
        ) from None


def _is_split(name: str) -> bool:
    return canonical_split(name) in SPLITS


def _split_records(tree: _Tree) -> Iterator[Record]:
    folders, images = tree.children(tree.root)
    split_folders = [name for name in folders if _is_split(name)]
    if not split_folders:
        yield from _labeled(tree, tree.root, "")
        return
    for name in folders:
        if name in split_folders:
            continue
        if any(tree.images_below(os.path.join(tree.root, name))):
            raise UserError(
                f"{tree.root} holds the split folder {split_folders[0]!r} beside the folder"
                f" {name!r} with images; name all of them as splits, or none, or list the images"
                " in a manifest"
            )
        tree.empty.append(name)
    if images:
        raise UserError(
            f"{tree.root} holds the split folder {split_folders[0]!r} beside the image"
            f" {images[0]!r}; move the image into a split"
        )
    by_split: dict[str, str] = {}
    for name in split_folders:
        other = by_split.setdefault(canonical_split(name), name)
        if other != name:
            raise UserError(f"{tree.root}: the folders {other!r} and {name!r} name the same split")
    for split in SPLITS:
        if split in by_split:
            records = list(_labeled(tree, os.path.join(tree.root, by_split[split]), split))
            if not records:
                tree.empty.append(by_split[split])
            yield from records


def _labeled(tree: _Tree, folder: str, split: str) -> Iterator[Record]:
    classes, images = tree.children(folder)
    for name in images:
        yield Record(tree.relative(os.path.join(folder, name)), split=split)
    labeled = False
    for label in classes:
        class_folder = os.path.join(folder, label)
        inner = next((name for name in tree.children(class_folder)[0] if _is_split(name)), None)
        if inner:
            raise UserError(
                f"{class_folder} holds the split folder {inner!r}; splits must lie above the"
                " classes: give the folder that holds the split folders"
            )
        empty = True
        for path in tree.images_below(class_folder):
            labeled, empty = True, False
            yield Record(tree.relative(path), label=clean_name(label) or label, split=split)
        if empty:
            tree.empty.append(tree.relative(class_folder))
    if images and labeled:
        verb = "has" if len(images) == 1 else "have"
        _LOGGER.warning(
            "%s: %s beside the class folders %s no label",
            folder, counted(len(images), "image"), verb,
        )  # fmt: skip


def _nothing_found(tree: _Tree) -> str:
    wanted = ", ".join(sorted(tree.suffixes))
    others = tree.left_out().others
    seen = f"; there are other files: {endings(others)}" if others else ""
    return f"no images ({wanted}) in {tree.root}{seen}"


def _check_links(manifest: Manifest, files: list[str], found: Survey) -> None:
    """Refuses one file on disk in two splits, by a symbolic or hard link: that is a leak."""
    order = np.lexsort((found.inode, found.device))
    same = np.flatnonzero(
        (np.diff(found.inode[order]) == 0)
        & (np.diff(found.device[order]) == 0)
        & (found.inode[order][1:] != 0)
    )
    consecutive = zip(order[same].tolist(), order[same + 1].tolist(), strict=True)
    if all(files[one] == files[other] for one, other in consecutive):
        return
    pictures = manifest.pictures()
    on_disk = zip(found.device.tolist(), found.inode.tolist(), pictures, strict=True)
    links = [
        (one, other)
        for one, other in equal_pairs(
            [(device, inode, picture[1:]) if inode else None for device, inode, picture in on_disk]
        ).tolist()
        if files[one] != files[other]
    ]
    for one, other in links:
        splits = manifest.records[one].split, manifest.records[other].split
        if splits[0] != splits[1]:
            raise UserError(
                f"one image is in two splits by a link: {files[one]} and {files[other]}"
            )
    if links:
        _LOGGER.warning(
            "%s to other images of the set, such as %s",
            "1 image is a link" if len(links) == 1 else f"{len(links)} images are links",
            files[links[0][0]],
        )


def log_gaps(manifest: Manifest) -> None:
    """Says which splits have no images of which classes."""
    present = {(record.label, record.split) for record in manifest.records}
    for split in manifest.splits:
        missing = [name for name in manifest.class_names if (name, split) not in present]
        if missing:
            more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
            shown = ", ".join(missing[:_SHOWN]) + more
            _LOGGER.warning("split %s has no images of class %s", split, shown)
