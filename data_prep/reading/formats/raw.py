"""RAW files: pixels and nothing else, so shape and type must be declared."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from data_prep.errors import UserError
from data_prep.reading.formats.source import FileSource, file_size, opened
from data_prep.reading.limits import ReadLimits
from data_prep.reading.spec import Reading

SUFFIXES = frozenset({".raw", ".bin", ".dat"})


@contextmanager
def open_array(source: FileSource, reading: Reading, limits: ReadLimits) -> Iterator[np.ndarray]:
    """The array, mapped into memory if it is on disk."""
    if not reading.shape:
        raise UserError("raw file: say what it holds, --raw_shape=H,W --raw_dtype=uint16")
    name = reading.dtype.lstrip("<>")
    # NumPy knows >u2 and uint16, but not >uint16.
    dtype = np.dtype((reading.dtype[: -len(name)] or "<") + np.dtype(name).str[1:])
    needed = math.prod(reading.shape) * dtype.itemsize
    with opened(source) as stream:
        size = file_size(stream)
        if size - reading.offset != needed:
            shape = "x".join(map(str, reading.shape))
            raise UserError(
                f"raw file of {size} bytes: {shape} values of {reading.dtype} after"
                f" {reading.offset} bytes of header take {reading.offset + needed}"
            )
        if not isinstance(source, str):
            stream.seek(reading.offset)
            yield np.frombuffer(stream.read(), dtype).reshape(reading.shape)
            return
    yield np.memmap(source, dtype, "r", reading.offset, reading.shape)
