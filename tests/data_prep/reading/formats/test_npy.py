import io
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.reading.headers import read_header
from data_prep.reading.images import read_image
from tests.data_prep.reading.formats.agreement import between_extremes, over_range, read_everywhere


def npy_bytes(array: Any) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # names of fields that need a later version
        np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[1, "a"]], object), r"Python objects.*numpy\.save"),
        (np.zeros((3, 3), complex), "complex128.*save them as numbers"),
        (np.zeros((3, 3), [("x", "u1"), ("y", "f4")]), "no intensities"),
        (np.zeros((3, 3), [("高", "u1")]), "named fields"),
        (np.zeros((3, 3), "M8[s]"), "datetime64.*no intensities"),
        (np.zeros((3, 3), "m8[s]"), "timedelta64.*no intensities"),
        (np.full((3, 3), "abc"), "no intensities"),
        (np.full((3, 3), b"abc"), "no intensities"),
        (np.zeros((3, 3), "V5"), "no intensities"),
        (np.float32(3), "say which axis"),
        (np.zeros((3, 0)), "without values"),
    ],
)
def test_what_holds_no_numbers_is_refused(tmp_path: Path, array: Any, message: str) -> None:
    (tmp_path / "a.npy").write_bytes(npy_bytes(array))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("image.npy", npy_bytes(array))
    for file in ("a.npy", "a.npz"):
        with pytest.raises(UserError, match=message):
            read_everywhere(tmp_path / file)


class Trap:
    """Leaves a file behind if it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return open, (str(self.file), "w")


def test_no_object_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(npy_bytes(np.array([[Trap(tmp_path / "trap")]], object)))
    with pytest.raises(UserError, match="Python objects"):
        read_everywhere(tmp_path / "a.npy")
    assert not (tmp_path / "trap").exists()


def test_several_arrays_in_one_file_are_not_one(tmp_path: Path) -> None:
    with open(tmp_path / "a.npy", "wb") as stream:
        np.save(stream, np.zeros((3, 3), np.uint8))
        np.save(stream, np.ones((3, 3), np.uint8))
    with pytest.raises(UserError, match="several arrays, one behind the other"):
        read_everywhere(tmp_path / "a.npy")
    # Other bytes behind the array do not matter.
    (tmp_path / "b.npy").write_bytes(npy_bytes(np.ones((3, 3), np.uint8)) + b"\n")
    assert read_everywhere(tmp_path / "b.npy").shape == (3, 3, 1)


def test_members_that_are_no_arrays_do_not_count(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
        archive.writestr("image.npy", npy_bytes(np.ones((3, 3), np.uint8)))
    assert read_everywhere(tmp_path / "a.npz").shape == (3, 3, 1)


def test_a_flipped_bit_in_an_archive_is_found() -> None:
    stream = io.BytesIO()
    np.savez(stream, image=np.zeros((40, 40), np.uint8))
    content = bytearray(stream.getvalue())
    content[800] ^= 1
    with pytest.raises(UserError, match="Bad CRC-32"):
        read_image(bytes(content))


@pytest.mark.parametrize(
    "shape", ["(-3, -3)", "(3, -3)", "(2**70,)", "(10**10, 10**10)", "(3,)*40"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_impossible_shapes(tmp_path: Path, shape: str, packed: bool) -> None:
    numbers = repr(eval(shape))
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {numbers}}}".ljust(245) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(72)
    file = tmp_path / ("a.npz" if packed else "a.npy")
    if packed:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("image.npy", content)
    else:
        file.write_bytes(content)
    with pytest.raises(UserError):
        read_everywhere(file)


HUGE = np.array([[0, 3], [2**64 - 1, 2**63]], np.uint64)
FAR = np.array([[2**62, 2**62 + 1], [2**62 + 2, 2**62 + 4]], np.int64)
APART = np.array([[-(2**63), 2**63 - 1], [0, 5]], np.int64)


@pytest.mark.parametrize("order", ["<", ">"])
def test_integers_of_64_bits_keep_their_digits(tmp_path: Path, order: str) -> None:
    np.save(tmp_path / "a.npy", HUGE.astype(HUGE.dtype.newbyteorder(order)))
    np.testing.assert_array_equal(read_everywhere(tmp_path / "a.npy")[..., 0], over_range(HUGE))
    for values in (HUGE, FAR, FAR.astype(np.uint64), APART):
        np.save(tmp_path / "b.npy", values.astype(values.dtype.newbyteorder(order)))
        for rule in ("minmax", "percentile(0,100)"):
            image = read_everywhere(tmp_path / "b.npy", f"intensity={rule}")[..., 0]
            np.testing.assert_allclose(image, between_extremes(values), rtol=1e-6)
        three = read_everywhere(tmp_path / "b.npy", "intensity=zscore(1)")[..., 0]
        deviations = (values.astype(object) - int(values.min())).astype(np.float64)
        expected = np.clip((deviations - deviations.mean()) / deviations.std() / 2 + 0.5, 0, 1)
        np.testing.assert_allclose(three, expected, rtol=1e-5, atol=1e-6)


def test_floating_point_at_its_ends(tmp_path: Path) -> None:
    for kind in (np.float16, np.float32, np.float64, np.longdouble):
        greatest = np.finfo(kind).max
        np.save(tmp_path / "a.npy", np.array([[0, 1, greatest], [greatest, 0, 0]], kind))
        with pytest.raises(UserError, match="holds floating point values from 0 to"):
            read_everywhere(tmp_path / "a.npy")
        if kind != np.longdouble:
            image = read_everywhere(tmp_path / "a.npy", "intensity=minmax")[..., 0]
            assert image.max() == 1
        np.save(tmp_path / "b.npy", np.array([[-greatest, greatest]], kind))
        if kind in (np.float64, np.longdouble):
            with pytest.raises(UserError, match="too far apart for --intensity=minmax"):
                read_everywhere(tmp_path / "b.npy", "intensity=minmax")


@pytest.mark.filterwarnings("ignore:Reading `.npy`")
def test_python_2_files(tmp_path: Path) -> None:
    header = "{'descr': '<u2', 'fortran_order': False, 'shape': (2L, 3L), }".ljust(117) + "\n"
    values = np.arange(6, dtype=np.uint16).reshape(2, 3)
    (tmp_path / "a.npy").write_bytes(
        b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(values)
    )
    np.testing.assert_array_equal(read_everywhere(tmp_path / "a.npy")[..., 0], over_range(values))
    assert read_header(str(tmp_path / "a.npy")).bits == 16
    assert sys.byteorder == "little"
