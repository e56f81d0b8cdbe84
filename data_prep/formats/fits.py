"""FITS files: the array of one extension, as astropy scales it (BSCALE, BZERO, BLANK).

Row 0 is the first row of the file, which astronomers draw at the bottom.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from data_prep.errors import UserError
from data_prep.formats.source import FileSource
from data_prep.reading import Reading

START = b"SIMPLE  ="
GZIP_START = b"\x1f\x8b"


class _Stored:
    """An extension's data: slices are read from the disk and scaled.

    Attributes:
        shape: Of the array.
        dtype: Of its values as scaled.
    """

    def __init__(self, extension: Any):
        self._extension = extension
        self.shape: tuple[int, ...] = extension.shape
        first = self[(slice(0, 1),) * len(self.shape)]
        # One pixel does not tell whether there are undefined ones elsewhere.
        self.dtype = np.dtype(np.float32) if "BLANK" in extension.header else first.dtype

    def __getitem__(self, index: Any) -> np.ndarray:
        values = np.asarray(self._extension.section[index])
        return values.astype(values.dtype.newbyteorder("="), copy=False)


@contextmanager
def open_array(source: FileSource, reading: Reading) -> Iterator[_Stored]:
    """The array of the named or numbered extension, or of the first that holds an image."""
    try:
        from astropy.io import fits
        from astropy.utils.exceptions import AstropyWarning
    except ImportError:
        raise UserError("FITS needs astropy: pip install 'simclr-tf[science]'") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            with fits.open(source) as extensions:
                extension = _choose(extensions, reading.array)
                _check_whole(source, extension)
                yield _Stored(extension)
    except (OSError, ValueError, TypeError, KeyError, IndexError, AstropyWarning) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"FITS cannot be read ({str(error).partition(chr(10))[0]})") from None


def _choose(extensions: Any, wanted: str) -> Any:
    if wanted:
        try:
            chosen = extensions[int(wanted) if wanted.isdigit() else wanted]
        except (KeyError, IndexError):
            names = ", ".join(f"{n} {e.name!r}" for n, e in enumerate(extensions))
            raise UserError(f"FITS has no extension {wanted!r} (it has {names})") from None
        if not _holds_image(chosen):
            raise UserError(f"FITS extension {wanted!r} holds no image")
        return chosen
    for extension in extensions:
        if _holds_image(extension):
            return extension
    raise UserError("FITS holds no image")


def _holds_image(extension: Any) -> bool:
    return extension.is_image and len(extension.shape) >= 2


def _check_whole(source: FileSource, extension: Any) -> None:
    """Astropy would give what is missing at the end as zeros."""
    place = extension.fileinfo()
    zipped = isinstance(source, str) and source.lower().endswith((".gz", ".bz2", ".xz"))
    if place is None or zipped:
        return
    size = os.stat(source).st_size if isinstance(source, str) else source.seek(0, os.SEEK_END)
    if place["datLoc"] + extension.size > size:
        raise UserError("truncated")
