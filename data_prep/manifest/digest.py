"""A digest of the content of files, which two machines can compare before they work together."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_WHOLE = 2**20  # bytes of a file that are all read
_BLOCKS, _BLOCK = 16, 2**16  # of a larger one: so many blocks from its beginning to its end


def files_digest(files: Sequence[str | os.PathLike[str]]) -> str:
    """SHA-256 over the content of files, in their order, whatever they are called.

    Of a file above 1 MiB only its size and 16 blocks of 64 KiB count, spread from the first to the
    last byte.

    Args:
        files: Their paths; the same path counts once.
    """
    unique = list(dict.fromkeys(map(str, files)))
    with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as threads:
        parts = threads.map(_digest, unique)
        return hashlib.sha256(b"".join(parts)).hexdigest()


def _digest(file: str) -> bytes:
    size = Path(file).stat().st_size
    digest = hashlib.sha256(size.to_bytes(8, "big"))
    with open(file, "rb") as stream:
        if size <= _WHOLE:
            digest.update(stream.read())
        else:
            for block in range(_BLOCKS):
                stream.seek(block * (size - _BLOCK) // (_BLOCKS - 1))
                digest.update(stream.read(_BLOCK))
    return digest.digest()
