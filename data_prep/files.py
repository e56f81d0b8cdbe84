"""Writing files so that a reader, or a killed process, never sees half of one."""

import os
import tempfile
from pathlib import Path


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file in one step: it is there whole, or as it was before.

    Args:
        path: Where to write; the folder must exist.
        text: The whole content, written as UTF-8.
    """
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
