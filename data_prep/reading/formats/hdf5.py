"""HDF5 files: one data set of them, whose values lie in the same file.

A data set can also name other files for its values: by external storage, as a virtual data set
that is put together from others, or by a link to another file. The sender of such a file could see
what is in any file of the machine that reads it, so these are refused unless the reading says
`links=follow`.
"""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from data_prep.errors import UserError, damage_refused
from data_prep.reading.formats.hdf5_stream import START, CheckedStream
from data_prep.reading.formats.npy import choose
from data_prep.reading.formats.source import FileSource, file_size, opened
from data_prep.reading.limits import ReadLimits
from data_prep.reading.spec import FOLLOW, Reading

_MOST_LINKS = 64  # on the way to one data set; more go round in circles
_ELSEWHERE = (
    "lie in another file, which is not opened; if all of its files are your own, say"
    " --hdf5_links=follow, or copy them into one file with h5repack"
)


def after_user_block(source: FileSource) -> bool:
    """Returns True if HDF5 begins behind a block of 512, 1024, ... bytes, as in files of MATLAB."""
    with opened(source) as stream:
        size, place = file_size(stream), 512
        while place < size:
            stream.seek(place)
            if stream.read(len(START)) == START:
                return True
            place *= 2
    return False


class _Stored:
    """A data set; slices of it are read from the disk.

    Attributes:
        shape: Of the array.
        dtype: Of its values.
    """

    def __init__(self, dataset: Any):
        self._dataset = dataset
        self.shape: tuple[int, ...] = dataset.shape
        self.dtype: np.dtype = dataset.dtype

    def __getitem__(self, index: tuple[int | slice, ...]) -> np.ndarray:
        if not self._dataset.is_virtual and self._dataset.chunks:
            _check_written(self._dataset, index)
        return np.asarray(self._dataset[index])


@contextmanager
def open_array(source: FileSource, reading: Reading, limits: ReadLimits) -> Iterator[_Stored]:
    """The named data set, or the only one of numbers with two axes or more."""
    try:
        import h5py
    except ImportError:
        raise UserError("HDF5 needs h5py: pip install 'simclr-tf[science]'") from None
    path = source if isinstance(source, str) and reading.links == FOLLOW else ""
    with (
        damage_refused("HDF5 cannot be read"),
        opened(source) as stream,
        # Files that others belong to are found beside their name alone.
        h5py.File(path or CheckedStream(stream), "r") as file,
    ):
        dataset = _named(file, reading.array, follow=bool(path)) if reading.array else None
        if dataset is None:
            names = _arrays(file) or _arrays_elsewhere(file, follow=bool(path))
            dataset = file[choose(reading.array.strip("/"), names, "HDF5")]
        if dataset.shape is None:
            raise UserError("HDF5 data set without values")
        if path:
            _check_sources(dataset, path)
        elif dataset.is_virtual or dataset.external:
            raise UserError(f"HDF5 data set whose values {_ELSEWHERE}")
        _check_type(dataset, reading)
        _check_filters(dataset)
        if dataset.chunks and dataset.id.get_create_plist().get_nfilters():
            limits.check_bytes(math.prod(dataset.chunks) * dataset.dtype.itemsize)
        if dataset.size and not (
            dataset.is_virtual or dataset.id.get_storage_size() or _has_own_filling(dataset)
        ):
            raise UserError("HDF5 data set that has been created, but never written")
        yield _Stored(dataset)


def _arrays(file: Any) -> list[str]:
    """Names of the data sets of numbers with two axes or more, links left out."""
    import h5py

    names: list[str] = []
    seen: set[int] = set()
    for name, group, key in _links(file):
        link = group.links.get_info(key)
        if link.type != h5py.h5l.TYPE_HARD or link.u in seen:
            continue
        seen.add(link.u)
        found = h5py.h5o.open(group, key)
        if isinstance(found, h5py.h5d.DatasetID) and _is_array(h5py.Dataset(found)):
            names.append(name)
    return names


def _arrays_elsewhere(file: Any, *, follow: bool) -> list[str]:
    """Names of links to arrays in other files.

    Raises:
        UserError: There are some, and they are not to be followed.
    """
    import h5py

    links = ((name, group.links.get_info(key).type) for name, group, key in _links(file))
    names = [name for name, kind in links if kind == h5py.h5l.TYPE_EXTERNAL]
    if names and not follow:
        raise UserError(f"HDF5 link {names[0]!r} to values that {_ELSEWHERE}")
    found = [(name, file.get(name)) for name in names]
    return [name for name, item in found if isinstance(item, h5py.Dataset) and _is_array(item)]


def _links(file: Any) -> Iterator[tuple[str, Any, bytes]]:
    """All links of a file: path, group and key.

    Unlike `visititems` of h5py it ends on any file: a group is looked into once, whatever number
    of links the file says that it has.
    """
    import h5py

    seen: set[int] = set()
    waiting = _children("", file["/"].id)
    while waiting:
        name, group, key = waiting.pop()
        yield name, group, key
        link = group.links.get_info(key)
        if link.type != h5py.h5l.TYPE_HARD or link.u in seen:
            continue
        seen.add(link.u)
        found = h5py.h5o.open(group, key)
        if isinstance(found, h5py.h5g.GroupID):
            waiting += _children(f"{name}/", found)


def _children(path: str, group: Any) -> list[tuple[str, Any, bytes]]:
    """Path, group and key of all links of a group, the last first."""
    return [(path + key.decode("utf-8", "surrogateescape"), group, key) for key in group][::-1]


def _is_array(dataset: Any) -> bool:
    try:
        return dataset.ndim >= 2 and dataset.dtype.kind in "uifb"
    except (TypeError, ValueError):  # a type that NumPy does not have
        return False


def _named(file: Any, path: str, *, follow: bool) -> Any:
    """The data set at a path, by way of groups and of soft links; None if there is none.

    The calls of h5py for the same, even `name in group`, open other files on the way.
    """
    import h5py

    place, parts, hops = file["/"], path.split("/"), 0
    while parts:
        name = parts.pop(0)
        if name in ("", "."):
            continue
        links, key = getattr(place.id, "links", None), name.encode("utf-8", "surrogateescape")
        if links is None or not links.exists(key):
            return None
        kind = links.get_info(key).type
        if kind == h5py.h5l.TYPE_SOFT:
            hops += 1
            if hops > _MOST_LINKS:
                raise UserError(f"HDF5 link {name!r} leads in a circle")
            target = links.get_val(key).decode("utf-8", "surrogateescape")
            parts = target.split("/") + parts
            place = file["/"] if target.startswith("/") else place
            continue
        if kind != h5py.h5l.TYPE_HARD and not follow:
            raise UserError(f"HDF5 link {name!r} to values that {_ELSEWHERE}")
        place = place[name]
    return place if isinstance(place, h5py.Dataset) else None


def _check_sources(dataset: Any, path: str) -> None:
    """Refuses a virtual data set some of whose files are not there: HDF5 would give zeros."""
    if not dataset.is_virtual:
        return
    folder = os.path.dirname(path)
    for source in dataset.virtual_sources():
        name = source.file_name
        if name != "." and "%" not in name and not os.path.exists(os.path.join(folder, name)):
            raise UserError(f"HDF5 data set with values in {name!r}, which is not there")


def _check_type(dataset: Any, reading: Reading) -> None:
    """Refuses integers of fewer bits than their bytes have, unless a rule says their range."""
    import h5py

    kind = dataset.id.get_type()
    if isinstance(kind, h5py.h5t.TypeIntegerID) and not reading.active_intensity:
        bits, size = kind.get_precision(), 8 * kind.get_size()
        if bits < size:
            raise UserError(
                f"HDF5 integers of {bits} bits in {size}: give their range,"
                f" --intensity=minmax@0,{2**bits - 1}"
            )


def _check_filters(dataset: Any) -> None:
    """Looks for what unpacks the data set in h5py, then in hdf5plugin."""
    import h5py

    plan = dataset.id.get_create_plist()
    filters = [plan.get_filter(number) for number in range(plan.get_nfilters())]
    missing = [each for each in filters if not h5py.h5z.filter_avail(each[0])]
    if not missing:
        return
    try:
        import hdf5plugin  # noqa: F401  (importing it makes its filters known)
    except ImportError:
        known = False
    else:
        known = True
        missing = [each for each in missing if not h5py.h5z.filter_avail(each[0])]
    for number, _, _, name in missing:
        what = f"HDF5 data set packed by filter {number} ({name.decode('utf-8', 'replace')})"
        if known:
            raise UserError(f"{what}, which is not known; write it with gzip: h5repack -f GZIP=4")
        raise UserError(f"{what} needs hdf5plugin: pip install 'simclr-tf[science]'")


def _has_own_filling(dataset: Any) -> bool:
    """Returns True if the file sets its own fill value, which gives unwritten parts a meaning."""
    import h5py

    plan = dataset.id.get_create_plist()
    return bool(plan.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED)


def _check_written(dataset: Any, index: tuple[int | slice, ...]) -> None:
    """Refuses a part that was never written: HDF5 would give zeros."""
    if _has_own_filling(dataset):
        return
    ranges = []
    for part, length, side in zip(index, dataset.shape, dataset.chunks, strict=True):
        first, last = (part, part + 1) if isinstance(part, int) else part.indices(length)[:2]
        ranges.append(range(first - first % side, last, side))
    for corner in np.ndindex(*map(len, ranges)):
        offset = tuple(steps[step] for steps, step in zip(ranges, corner, strict=True))
        if dataset.id.get_chunk_info_by_coord(offset).size == 0:
            raise UserError(
                "HDF5 data set of which a part was never written, as when recording was stopped"
            )
