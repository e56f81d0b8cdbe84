"""Findings about names and about what a scan left out: classes that vanish, split or mislead."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator

from data_prep.check.findings import Finding
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import LeftOut, endings, some
from data_prep.names import clean_name, composed, look_alikes, missing_names, shown
from data_prep.phrases import counted

_SHOWN = 10
# Endings of images that are not read: users who have such files would miss them.
_OTHER_IMAGES = tuple(
    """
    .avif .heic .heif .jp2 .j2k .jxl .jxr .webp .svg .psd .xcf .eps .pdf .exr .hdr .tga .pcx .ppm
    .pgm .pbm .pnm .dng .cr2 .cr3 .nef .arw .raf .orf .rw2 .raw .bin .dat .dcm .nii .mha .mhd .nrrd
    .mrc .dm3 .dm4 .ser .emd .czi .lif .nd2 .oib .oif .lsm .ims .vsi .svs .zvi .spe .sif .asc .mat
    .zip .tar .gz .7z .rar
    """.split()
)


def name_findings(manifest: Manifest, left_out: LeftOut | None = None) -> Iterator[Finding]:
    """Yields the findings about names, and about what a scan left out.

    Args:
        manifest: The images.
        left_out: Of the scan that found them; None for a manifest that was read.
    """
    yield from _classes(manifest)
    yield from _forms(manifest)
    yield from _same_file_names(manifest)
    if left_out is not None:
        yield from _left_out(left_out)


def _classes(manifest: Manifest) -> Iterator[Finding]:
    counts = dict.fromkeys(manifest.class_names, 0)
    for record in manifest.records:
        if record.label:
            counts[record.label] += 1
    kinds = {
        "class": manifest.class_names,
        "split": manifest.splits,
        "group": tuple({r.group for r in manifest.records} - {""}),
        "case": tuple({r.case for r in manifest.records} - {""}),
    }
    for what, names in kinds.items():
        alike = look_alikes(names)
        if alike:
            concerned = sum(counts.get(name, 0) for group in alike for name in group)
            mend = "rename them, or merge them with simclr-split --merge=NEW:OLD,OLD"
            yield Finding(
                "look_alike_names", "warning",
                f"{counted(len(alike), 'set')} of {what} names that look alike",
                "They differ in case, in the spelling of a number or in letters that cannot be told"
                f" apart, and count as different: {mend if what == 'class' else 'rename them'}.",
                concerned or len(alike), tuple(shown(group) for group in alike[:_SHOWN]),
            )  # fmt: skip
    missing = missing_names(manifest.class_names)
    if missing:
        yield Finding(
            "missing_values", "warning",
            f"{counted(len(missing), 'class')} named like a missing value",
            "Programs write such texts where nothing is known. Leave the cell empty if there is no"
            " label, or rename the class.",
            sum(counts[name] for name in missing), tuple(map(repr, missing)),
        )  # fmt: skip


def _forms(manifest: Manifest) -> Iterator[Finding]:
    """Folders whose names are not in their one form, and classes that come from several."""
    spelled: dict[str, set[str]] = defaultdict(set)
    images: dict[str, int] = defaultdict(int)
    for record in manifest.records:
        for part in os.path.dirname(record.path).split("/"):
            spelled[clean_name(part)].add(part)
            images[part] += 1
    several = {name: parts for name, parts in spelled.items() if len(parts) > 1}
    if several:
        yield Finding(
            "name_forms", "warning",
            f"{counted(len(several), 'name')} of folders written in several forms",
            "The forms look the same (composed as Windows writes them, decomposed as a Mac does, or"
            " with blanks at an end) and are read as one name. Rename the folders, for other"
            " programs keep them apart.",
            sum(images[part] for parts in several.values() for part in parts),
            tuple(f"{name}: {_described(p)}" for name, p in sorted(several.items())[:_SHOWN]),
        )  # fmt: skip
    odd = [part for name, (part, *more) in spelled.items() if part != name and not more]
    if odd:
        yield Finding(
            "odd_names", "note", f"{counted(len(odd), 'name')} of folders not in the usual form",
            "Decomposed letters (a Mac's) or blanks at an end: the names are read without them.",
            sum(images[part] for part in odd), tuple(map(ascii, sorted(odd)[:_SHOWN])),
        )  # fmt: skip


def _described(parts: set[str]) -> str:
    found = []
    for part in sorted(parts, key=lambda part: (part != clean_name(part), part)):
        if part != clean_name(part) and composed(part) == clean_name(part):
            found.append("decomposed" if part == unicodedata.normalize("NFD", part) else "mixed")
        else:
            found.append("composed" if part == clean_name(part) else ascii(part))
    return " and ".join(found)


def _same_file_names(manifest: Manifest) -> Iterator[Finding]:
    """Files of one folder that a Windows machine or a Mac takes for one."""
    alike: dict[str, set[str]] = defaultdict(set)
    for record in manifest.records:
        alike[composed(record.path).casefold()].add(record.path)
    pairs = [sorted(paths) for paths in alike.values() if len(paths) > 1]
    if pairs:
        yield Finding(
            "file_names", "note", f"{counted(len(pairs), 'set')} of file names that differ by case"
            " or Unicode form alone",
            "A copy to a Windows machine or a Mac would keep one of each: rename them.",
            sum(map(len, pairs)), tuple(shown(paths) for paths in pairs[:_SHOWN]),
        )  # fmt: skip


def _left_out(left_out: LeftOut) -> Iterator[Finding]:
    inside = left_out.in_empty()
    lost = {folder: files for folder, files in inside.items() if files}
    if lost:
        yield Finding(
            "class_left_out", "serious",
            f"{counted(len(lost), 'folder')} left out: no file in it is an image by its ending",
            "A class would be missing. Convert the files to PNG or TIFF, or remove the folder.",
            sum(map(len, lost.values())),
            tuple(f"{folder}: {endings(files)}" for folder, files in list(lost.items())[:_SHOWN]),
        )  # fmt: skip
    bare = [folder for folder in inside if folder not in lost]
    if bare:
        yield Finding(
            "empty_folder", "warning", f"{counted(len(bare), 'folder')} without any image",
            "It makes no class. Put its images there, or remove it.",
            len(bare), tuple(bare[:_SHOWN]),
        )  # fmt: skip
    rest = [file for file in left_out.others if not any(file.startswith(f"{f}/") for f in lost)]
    images = [file for file in rest if file.lower().endswith(_OTHER_IMAGES)]
    if images:
        yield Finding(
            "not_read", "warning",
            f"{counted(len(images), 'file')} left out: images or archives that are not read"
            f" ({endings(images)})",
            "Convert or unpack them; .raw, .bin and .dat are read where their shape is declared"
            " (simclr-manifest --help).",
            len(images), tuple(images[:_SHOWN]),
        )  # fmt: skip
    others = [file for file in rest if not file.lower().endswith(_OTHER_IMAGES)]
    if others:
        yield Finding(
            "no_image", "note",
            f"{counted(len(others), 'file')} left out: no images by the ending ({endings(others)})",
            "Nothing is read of them.", len(others), tuple(others[:_SHOWN]),
        )  # fmt: skip
    if left_out.hidden:
        yield Finding(
            "hidden", "note",
            f"{counted(len(left_out.hidden), 'hidden file')} or folders left out",
            "Names that begin with a dot are not looked at.",
            len(left_out.hidden), tuple(left_out.hidden[:_SHOWN]),
        )  # fmt: skip
    if left_out.rubbish:
        yield Finding(
            "rubbish", "note",
            f"{counted(len(left_out.rubbish), 'file')} or folders of systems and network drives"
            " left out",
            f"They hold no images of yours ({some(left_out.rubbish)}).",
            len(left_out.rubbish), tuple(left_out.rubbish[:_SHOWN]),
        )  # fmt: skip
