"""HDF5 files: one data set of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from data_prep.errors import UserError
from data_prep.formats.npy import choose
from data_prep.formats.source import FileSource
from data_prep.reading import Reading

START = b"\x89HDF\r\n\x1a\n"


@contextmanager
def open_array(source: FileSource, reading: Reading) -> Iterator[Any]:
    """The named data set, or the only one of numbers with two axes or more."""
    try:
        import h5py
    except ImportError:
        raise UserError("HDF5 needs h5py: pip install 'simclr-tf[science]'") from None
    try:
        file = h5py.File(source, "r")
    except OSError as error:
        raise UserError(f"HDF5 cannot be read ({error})") from None
    with file:
        names: list[str] = []

        def note(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.ndim >= 2 and item.dtype.kind in "uifb":
                names.append(name)

        wanted = reading.array.strip("/")
        if wanted and isinstance(file.get(wanted), h5py.Dataset):
            names.append(wanted)
        else:
            file.visititems(note)
        try:
            yield file[choose(wanted, names, "HDF5")]
        except OSError as error:
            raise UserError(f"HDF5 cannot be read ({error})") from None
