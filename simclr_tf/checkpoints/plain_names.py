r"""Paths under names that TensorFlow reads as they stand.

Its readers of checkpoints and SavedModels take `*`, `?`, `[` and `\\` in a path for a pattern: they
find nothing, or another folder's files. Such a path is read through links with plain names.
"""

import os
import re
import shutil
import tempfile
import weakref
from pathlib import Path

_PATTERN = re.compile(r"[*?\[\\]")


class PlainName:
    """A path that TensorFlow can read, for as long as this object lives.

    Args:
        path: A prefix of checkpoint files, or a folder.

    Attributes:
        path: The same files, under a name without special characters.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        if os.name != "nt" and _PATTERN.search(path):  # on Windows \\ parts folders
            links = tempfile.mkdtemp(prefix="simclr-")
            weakref.finalize(self, shutil.rmtree, links, ignore_errors=True)
            self.path = os.path.join(links, "files")
            self._link(Path(os.path.abspath(path)))

    def _link(self, given: Path) -> None:
        if given.is_dir():
            _link_or_copy(given, Path(self.path))
            return
        for file in given.parent.iterdir() if given.parent.is_dir() else ():
            if file.name.startswith(f"{given.name}."):
                _link_or_copy(file, Path(self.path + file.name[len(given.name) :]))


def _link_or_copy(source: Path, link: Path) -> None:
    try:
        link.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:  # a file system without links
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, link)
