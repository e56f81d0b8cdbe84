"""What a scan of a folder leaves out: files that are no images, hidden ones, empty folders."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_SHOWN = 3

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
    """Whether a file or folder is one that a system makes for itself, such as `Thumbs.db`."""
    folded = name.casefold()
    return folded in _RUBBISH or folded.startswith(_RUBBISH_STARTS)


@dataclass(frozen=True)
class LeftOut:
    """What a scan did not take, as paths below the folder.

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
        """What a user should hear, a sentence each; rubbish is not worth one.

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


def some(names: Iterable[str], most: int = _SHOWN) -> str:
    """The first of some names, side by side."""
    listed = list(names)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
