"""Files that declare, or unpack to, far more than they hold: refused from the header."""

import bz2
import gzip
import io
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.reading.headers import parse_header, read_header
from data_prep.reading.images import read_image
from data_prep.reading.limits import ReadLimits

LIMITS = ReadLimits(max_pixels=10_000, max_bytes=100_000)
SIDE = 6_000  # 36 million pixels


@contextmanager
def little_memory(most: int = 2**22) -> Iterator[None]:
    """Fails if Python and NumPy take more than `most` bytes inside."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def zeros_npy(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


def packed_npz() -> bytes:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("image.npy", "w", force_zip64=True) as member,
    ):
        member.write(zeros_npy((SIDE, SIDE)))
        for _ in range(SIDE // 100):
            member.write(bytes(100 * SIDE))
    return stream.getvalue()


def fits_header(bits: int, *sides: int) -> bytes:
    cards = [
        "SIMPLE  =                    T",
        f"BITPIX  = {bits:>20}",
        f"NAXIS   = {len(sides):>20}",
    ]
    cards += [f"{f'NAXIS{n}':<8}= {side:>20}" for n, side in enumerate(sides, 1)]
    return "".join(card.ljust(80) for card in [*cards, "END"]).ljust(2880).encode()


def packed_fits(open_packed: Callable[..., gzip.GzipFile | bz2.BZ2File]) -> bytes:
    stream = io.BytesIO()
    with open_packed(stream, "wb", compresslevel=1) as packed:
        packed.write(fits_header(8, SIDE, SIDE))
        for _ in range(SIDE // 100):
            packed.write(bytes(100 * SIDE))
    return stream.getvalue()


def fits_beside_zeros() -> bytes:
    """A small image before much that is not looked at."""
    stream = io.BytesIO()
    with gzip.open(stream, "wb", compresslevel=1) as packed:
        packed.write(fits_header(8, 10, 10) + bytes(2880) + bytes(50_000_000))
    return stream.getvalue()


def hdf5(chunks: tuple[int, int], shape: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    h5py = pytest.importorskip("h5py")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        image = file.create_dataset(
            "image", shape, "u1", chunks=chunks, compression=1, maxshape=(None, None)
        )
        image[...] = 1
    return stream.getvalue()


def tile_bomb() -> bytes:
    """One small tile that unpacks to 50 MB."""
    fits = pytest.importorskip("astropy.io.fits")
    heap = gzip.compress(bytes(50_000_000), 1)
    row = np.array([len(heap), 0], ">i4")
    column = fits.Column("COMPRESSED_DATA", "1PB(1)", array=[np.zeros(1, np.uint8)])
    table = fits.BinTableHDU.from_columns([column])
    for key, value in {
        "ZIMAGE": True, "ZCMPTYPE": "GZIP_1", "ZBITPIX": 8, "ZNAXIS": 2, "ZNAXIS1": 10,
        "ZNAXIS2": 10, "ZTILE1": 10, "ZTILE2": 10,
    }.items():  # fmt: skip
        table.header[key] = value
    stream = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(stream)
    content = stream.getvalue()
    place = content.index(b"XTENSION")
    start = content.index(b"END".ljust(80), place)
    start += 2880 - start % 2880
    header = content[place:start].replace(
        f"PCOUNT  = {1:>20}".encode(), f"PCOUNT  = {len(heap):>20}".encode()
    )
    assert f"PCOUNT  = {len(heap):>20}".encode() in header
    return content[:place] + header + row.tobytes() + heap + bytes(2880)


def png_bomb() -> bytes:
    stream = io.BytesIO()
    Image.new("1", (9_990, 9_990)).save(stream, "PNG")
    return stream.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "npz": packed_npz,
    "npy": lambda: zeros_npy((SIDE, SIDE)),
    "fits": lambda: fits_header(8, SIDE, SIDE),
    "fits of many axes": lambda: fits_header(-64, *[999] * 40),
    "fits.gz": lambda: packed_fits(gzip.open),
    "fits.bz2": lambda: packed_fits(bz2.open),
    "fits.gz with more behind": fits_beside_zeros,
    "fits, tile": tile_bomb,
    "hdf5": lambda: hdf5((100, 100)),
    "hdf5, chunk": lambda: hdf5((SIDE, SIDE), (10, 10)),
    "png": png_bomb,
}


@pytest.fixture(scope="module", autouse=True)
def _libraries() -> None:
    """Loads what is loaded with the first file of a kind, so that its memory does not count."""
    stream = io.BytesIO()
    fits = pytest.importorskip("astropy.io.fits")
    image = fits.CompImageHDU(np.zeros((10, 10), np.uint8))
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(stream)
    read_image(stream.getvalue())
    read_image(hdf5((5, 5), (10, 10)), reading="intensity=minmax@0,1")


@pytest.mark.parametrize("kind", BOMBS)
def test_too_large_files_are_refused_before_memory_is_taken(tmp_path: Path, kind: str) -> None:
    content = BOMBS[kind]()
    file = tmp_path / "image"
    file.write_bytes(content)
    with little_memory():
        for read in (
            lambda: parse_header(io.BytesIO(content), limits=LIMITS),
            lambda: read_header(str(file), limits=LIMITS),
            lambda: read_image(content, limits=LIMITS),
            lambda: read_image(file, limits=LIMITS),
        ):
            with pytest.raises(UserError) as caught:
                read()
            assert "\n" not in str(caught.value)


def test_owners_have_no_limits(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", image=np.zeros((3_000, 3_000), np.uint8))
    assert read_image(tmp_path / "a.npz").shape == (3_000, 3_000, 1)
    with pytest.raises(UserError, match="3000 x 3000 pixels, more than the 10000"):
        read_image(tmp_path / "a.npz", limits=LIMITS)


def test_what_fits_is_read_within_limits(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    image = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    np.savez_compressed(tmp_path / "a.npz", image=image)
    hdu = fits.CompImageHDU(image, compression_type="GZIP_1")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "b.fits")
    (tmp_path / "c.fits.gz").write_bytes(gzip.compress((tmp_path / "b.fits").read_bytes()))
    for name in ("a.npz", "b.fits", "c.fits.gz"):
        read = read_image(tmp_path / name, limits=LIMITS)
        np.testing.assert_allclose(read[..., 0], image / 65535, rtol=1e-6)


def test_memory_that_is_not_there_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 3), np.uint8))

    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(np, "memmap", no_memory)
    with pytest.raises(UserError, match="needs more memory than there is"):
        read_image(tmp_path / "a.npy")
