"""Damaged HDF5 files on which the HDF5 library itself runs in circles, or crashes.

They are read in a process of their own: nothing could interrupt the library.
"""

import io
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.manifest.scan import scan_folder
from data_prep.reading.headers import count_pages
from data_prep.reading.images import read_image
from tests.data_prep.reading.formats.reader_process import Attempt, ReaderProcess

h5py = pytest.importorskip("h5py")

VALUES = np.random.default_rng(0).integers(0, 256, (24, 20), dtype=np.uint8)
BLOCKS = (0, 512)


def virtual(block: int = 0, libver: str | None = None) -> bytearray:
    """A virtual data set; the names of its sources lie in a global heap."""
    stream = io.BytesIO()
    layout = h5py.VirtualLayout(VALUES.shape, VALUES.dtype)
    layout[:] = h5py.VirtualSource("other.h5", "image", VALUES.shape)
    with h5py.File(stream, "w", userblock_size=block, libver=libver) as file:
        file.create_virtual_dataset("image", layout)
    return bytearray(stream.getvalue())


def plain(block: int = 0) -> bytearray:
    """A data set, and a group that holds the one above it."""
    stream = io.BytesIO()
    with h5py.File(stream, "w", userblock_size=block) as file:
        file["image"] = VALUES
        file["group/back"] = file["/"]
    return bytearray(stream.getvalue())


@pytest.fixture(scope="module")
def reader() -> Iterator[ReaderProcess]:
    process = ReaderProcess()
    yield process
    process.close()


def check_refused(reader: ReaderProcess, content: bytearray) -> None:
    """In little time and memory, for limited and unlimited reading, with and without a name."""
    for reading in ("", "array=image"):
        for limited in (True, False):
            outcome = reader.read(Attempt(bytes(content), reading, limited))
            assert not outcome.fault, outcome.fault
            assert outcome.refused
            assert outcome.seconds < 1


@pytest.mark.parametrize("libver", [None, "latest"])
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(("index", "length"), [(0, 0), (1, 2**64 - 16), (1, 2**64 - 23)])
def test_objects_of_a_global_heap_that_take_no_room(
    reader: ReaderProcess, index: int, length: int, block: int, libver: str | None
) -> None:
    content = virtual(block, libver)
    first = content.index(b"GCOL") + 16
    content[first : first + 16] = struct.pack("<HHIQ", index, 0, 0, length)
    check_refused(reader, content)


@pytest.mark.parametrize("block", BLOCKS)
def test_free_blocks_of_a_local_heap_in_a_circle(reader: ReaderProcess, block: int) -> None:
    content = plain(block)
    heap = content.index(b"HEAP")
    free, segment = struct.unpack_from("<QQ", content, heap + 16)
    struct.pack_into("<Q", content, block + segment + free, free)
    check_refused(reader, content)


def test_a_group_within_itself(reader: ReaderProcess, tmp_path: Path) -> None:
    """The number of links to it, by which the library would know, is wrong."""
    content = plain()
    (root,) = struct.unpack_from("<Q", content, 64)
    assert struct.unpack_from("<I", content, root + 4) == (2,)
    struct.pack_into("<I", content, root + 4, 1)
    for data in (plain(), content):
        outcome = reader.read(Attempt(bytes(data), "", limited=True))
        assert (outcome.fault, outcome.refused) == ("", False)
    np.testing.assert_array_equal(read_image(bytes(content))[..., 0], VALUES)


def crashing() -> bytes:
    """A file with a link that is not in the index of its group; h5py frees memory twice."""
    stream = io.BytesIO()
    with h5py.File(stream, "w", libver="latest") as file:
        for number in range(40):
            file[f"g{number}"] = number
        file["image"] = VALUES
    before, name, after = stream.getvalue().rpartition(b"g31")
    assert name
    return before + b"h31" + after


def test_a_file_on_which_the_library_crashes(reader: ReaderProcess, tmp_path: Path) -> None:
    for limited in (True, False):
        outcome = reader.read(Attempt(crashing(), "", limited))
        assert (outcome.fault, outcome.refused) == ("", True)
    assert not reader.read(Attempt(crashing(), "array=image", limited=False)).fault
    for name, content in {"a": plain(), "b": crashing(), "c": plain()}.items():
        (tmp_path / f"{name}.h5").write_bytes(content)
    with pytest.raises(UserError, match=r"1 of 3 images .*b.h5 \(.*crashes the HDF5 library"):
        scan_folder(tmp_path)
    kept = scan_folder(tmp_path, skip_unreadable=True)
    assert [record.path for record in kept.records] == ["a.h5", "c.h5"]


def test_a_file_that_was_mended_is_tried_anew(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    path.write_bytes(crashing())
    with pytest.raises(UserError, match="crashes the HDF5 library"):
        read_image(path)
    path.write_bytes(plain())
    np.testing.assert_array_equal(read_image(path)[..., 0], VALUES)


def test_threads_share_the_process_and_a_file_written_anew_is_opened_anew(tmp_path: Path) -> None:
    stack = np.random.default_rng(1).integers(0, 256, (12, 16, 16), dtype=np.uint8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = stack

    def is_right(page: int) -> bool:
        image = read_image(tmp_path / "a.h5", None, f"axes=NHW;page={page}")
        return bool((image[..., 0] == stack[page]).all())

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(is_right, [*range(12)] * 3))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["image"] = stack[::-1]
    assert (read_image(tmp_path / "a.h5", None, "axes=NHW;page=0")[..., 0] == stack[-1]).all()


def test_heaps_of_whole_files_are_no_damage(tmp_path: Path) -> None:
    """Of every length, among them those that objects fill to the last byte."""
    for number in range(0, 200, 3):
        with h5py.File(tmp_path / "a.h5", "w", libver=("earliest", "latest")[number % 2]) as file:
            words = ["x" * (number % 50 + 1)] * number + ["y" * 3000] * (number % 5)
            file["words"] = np.array(words, h5py.string_dtype())
            for each in range(number // 10):
                file[f"group {each}/{'n' * each}"] = each
                if each % 3 == 0:
                    del file[f"group {each}"]
            file["image"] = VALUES[np.newaxis]
            file.attrs["text"] = words[:100]
        file = str(tmp_path / "a.h5")
        np.testing.assert_array_equal(read_image(file)[..., 0], VALUES)
        assert count_pages(file, "axes=NHW") == 1
