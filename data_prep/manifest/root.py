"""The root of a manifest's paths: where its images lie, also after it has been moved.

A manifest that does not lie with its images records their folder in two columns: `root`, absolute,
and `relative_root`, from the folder of the CSV. When it is read, the images are looked for

1. below `image_dir`, if the user names a folder;
2. below `relative_root`: a run was moved, or copied, together with its images;
3. below `root`: the run was moved alone, the images are where they were.

The first of these that holds the images counts. A folder that the user names may stand for any
of the folders above the images: their paths below it are tried from the deepest one on.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.csv_files import PATH_COLUMNS, CsvTable
from data_prep.errors import UserError
from data_prep.names import DiskNames, clean_name

_LOGGER = logging.getLogger(__name__)

ROOT, RELATIVE_ROOT = "root", "relative_root"

_SAMPLE = 16  # paths looked for in a folder before it is believed to hold the images
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\|//")


@dataclass(frozen=True)
class RecordedRoot:
    """Paths of a manifest as they are written.

    Attributes:
        paths: Of the images, relative to `root`; absolute if there is none.
        targets: The same; empty where there is none.
        root: The folder; empty if the images have no folder in common.
        relative_root: `root` from the folder of the CSV, with forward slashes; empty if there is no
            such path.
    """

    paths: list[str]
    targets: list[str]
    root: str
    relative_root: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells of the root's columns, the same in every row; none without a root."""
        return (self.root, self.relative_root) if self.root else ()


def root_to_record(
    root: str, files: Sequence[str], targets: Sequence[str], folder: str
) -> RecordedRoot:
    """Paths of images and targets as a manifest in another folder records them.

    Args:
        root: The manifest's.
        files: Absolute paths of the images.
        targets: Absolute paths of the targets, empty where there is none.
        folder: Where the CSV will lie, absolute.
    """
    root = os.path.abspath(root)
    inside = root.rstrip(os.sep) + os.sep
    if not all(file.startswith(inside) for file in files):
        root = common_folder(files)
    if not root or root == os.path.dirname(root):
        return RecordedRoot(list(files), list(targets), "", "")

    inside = root.rstrip(os.sep) + os.sep

    def relative(file: str) -> str:
        if file.startswith(inside):
            return file[len(inside) :].replace(os.sep, "/")
        # A target on the other side of the disk has nothing to do with the root.
        if not file or common_folder([file, os.path.join(root, "x")]) in ("", os.sep):
            return file
        return Path(os.path.relpath(file, root)).as_posix()

    try:
        relative_root = Path(os.path.relpath(root, folder)).as_posix()
    except ValueError:  # another drive
        relative_root = ""
    return RecordedRoot(
        [relative(file) for file in files],
        [relative(target) for target in targets],
        root,
        relative_root,
    )


def placed_paths(
    table: CsvTable, image_dir: str | os.PathLike[str] = ""
) -> tuple[list[str], list[str], str]:
    """Paths of images and targets of a manifest as they are on disk, and the root they belong to.

    Args:
        table: The manifest as it was read; its `source` is the file.
        image_dir: Where the user says that the images are; empty = where the manifest says.

    Returns:
        Paths of the images; of the targets, empty where there is none; the root.

    Raises:
        UserError: An empty path, a path of another system, or `image_dir` does not hold the images.
    """
    folder = os.path.dirname(os.path.abspath(table.source))
    paths = _column(table, *PATH_COLUMNS)
    targets = _column(table, "target")
    for row, path in enumerate(paths):
        if not clean_name(path):
            raise UserError(
                f"{table.place(row)}: the path is empty; give the image's path, or remove the line"
            )
    roots = _roots(table, folder)
    if image_dir:
        root = os.path.abspath(os.path.expanduser(image_dir))
        paths, targets = _below(root, paths, targets, roots, table)
        root_of = [root] * len(paths)
    else:
        _refuse_foreign(table, paths)
        found = {choice: _existing(choice, paths, roots, folder) for choice in set(roots)}
        root_of = [found[choice] for choice in roots]
        root = root_of[0] if len(set(root_of)) == 1 else folder
    names = {place: DiskNames(place) for place in set(root_of)}
    several = len(names) > 1

    def placed(path: str, place: str) -> str:
        if not path:
            return ""
        actual = names[place].find(path)
        return os.path.join(place, actual) if several else actual

    return (
        [placed(path, place) for path, place in zip(paths, root_of, strict=True)],
        [placed(path, place) for path, place in zip(targets, root_of, strict=True)],
        root,
    )


def moved_hint(manifest_root: str) -> str:
    """Returns advice for images that are not where a manifest says."""
    return (
        f"the images are not where they are said to be ({manifest_root}): if they were moved,"
        " --image_dir=FOLDER beside --manifest gives their new place"
    )


def _column(table: CsvTable, *names: str) -> list[str]:
    """Cells as they were written: blanks may belong to the name of a file."""
    position = table.position(*names)
    if position is None:
        return [""] * len(table.rows)
    return [row[position] if clean_name(row[position]) else "" for row in table.rows]


def _roots(table: CsvTable, folder: str) -> list[tuple[str, str]]:
    """Places to look for each row's image, in order."""
    absolute = table.texts(ROOT) or [""] * len(table.rows)
    relative = table.texts(RELATIVE_ROOT) or [""] * len(table.rows)
    known: dict[tuple[str, str], tuple[str, str]] = {}
    for pair in set(zip(absolute, relative, strict=True)):
        beside = os.path.normpath(os.path.join(folder, pair[1].replace("\\", "/")))
        own = pair[0] if os.path.isabs(pair[0]) else ""
        known[pair] = (beside if pair[1] or not own else own, own or beside)
    return [known[pair] for pair in zip(absolute, relative, strict=True)]


def _existing(
    choice: tuple[str, str], paths: Sequence[str], roots: Sequence[tuple[str, str]], folder: str
) -> str:
    """The first place that holds the images; the recorded one if none does."""
    if choice[0] == choice[1]:
        return choice[0]
    own = _sample([path for path, root in zip(paths, roots, strict=True) if root == choice])
    for place in choice:
        if _holds(place, own):
            if place != choice[1]:
                _LOGGER.info("the images lie in %s, beside the manifest in %s", place, folder)
            return place
    return choice[1]


def _holds(root: str, paths: Sequence[str]) -> bool:
    names = DiskNames(root)
    return all(os.path.lexists(os.path.join(root, names.find(path))) for path in paths)


def _sample(paths: Sequence[str]) -> list[str]:
    step = max(1, len(paths) // _SAMPLE)
    return list(paths[::step])


def _is_foreign(path: str) -> bool:
    """Returns True if a path is absolute on another system than this one."""
    return os.sep == "/" and bool(_WINDOWS.match(path)) and not os.path.lexists(path)


def _refuse_foreign(table: CsvTable, paths: Sequence[str]) -> None:
    for row, path in enumerate(paths):
        if (path[:1] in ("\\", "/") or path[1:2] == ":") and _is_foreign(path):
            raise UserError(
                f"{table.place(row)}: {path} is a place on a Windows machine; give the folder that"
                " holds the images here as --image_dir=FOLDER beside --manifest, or paths relative"
                " to the CSV"
            )


def _below(
    root: str,
    paths: Sequence[str],
    targets: Sequence[str],
    roots: Sequence[tuple[str, str]],
    table: CsvTable,
) -> tuple[list[str], list[str]]:
    """Paths of images and targets relative to a folder that the user names.

    First the paths are tried as the manifest records them, relative to its root; then relative to
    the deepest folder that holds all images, then to the folder above it, and so on.
    """
    if not os.path.isdir(root):
        raise UserError("no such folder", setting="image_dir", value=root)
    if not any(map(_absolute, paths)) and _holds(root, _sample(paths)):
        return list(paths), list(targets)
    full = [_joined(choice[1], path) for choice, path in zip(roots, paths, strict=True)]
    goals = [_joined(choice[1], path) for choice, path in zip(roots, targets, strict=True)]
    for start in _ancestors(full):
        moved = [_from(start, file) for file in full]
        if _holds(root, _sample(moved)):
            return moved, [_from(start, goal) if goal else "" for goal in goals]
    raise UserError(
        f"does not hold the images of {table.source}, such as {paths[0]}; give"
        " the folder below which they lie as before",
        setting="image_dir",
        value=root,
    )


def _absolute(path: str) -> bool:
    return os.path.isabs(path) or _is_foreign(path)


def _joined(root: str, path: str) -> str:
    if not path:
        return ""
    whole = path if _absolute(path) else f"{root}/{path}"
    if os.sep == "/" and not os.path.lexists(whole):
        whole = whole.replace("\\", "/")
    return os.path.normpath(whole)


def _ancestors(files: Sequence[str]) -> Iterator[str]:
    """The deepest folder that holds all files, and those above it."""
    folder = common_folder(files)
    while folder:
        yield folder
        above = os.path.dirname(folder)
        if above == folder:
            return
        folder = above
    yield ""


def common_folder(files: Sequence[str]) -> str:
    """The deepest folder that holds all files; empty if none does, as on several drives."""
    try:
        return os.path.commonpath([os.path.dirname(file) for file in files]) if files else ""
    except ValueError:  # other drives, or absolute beside relative ones
        return ""


def _from(start: str, file: str) -> str:
    return Path(os.path.relpath(file, start or ".")).as_posix()
