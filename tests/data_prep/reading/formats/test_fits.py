import bz2
import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.manifest.scan import list_folder
from data_prep.reading.formats.arrays import array_suffixes
from data_prep.reading.headers import read_header
from data_prep.reading.images import read_image, read_stored
from tests.data_prep.reading.formats.agreement import between_extremes, over_range, read_everywhere

fits = pytest.importorskip("astropy.io.fits")

RNG = np.random.default_rng(0)
COUNTS = RNG.integers(0, 3000, (40, 32), dtype=np.int16)
REAL = RNG.random((40, 32)).astype(np.float32)


def write_tiles(path: Path, values: np.ndarray, **options: Any) -> None:
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(values, **options)]).writeto(path)


@pytest.mark.parametrize("name", ["a.fits.fz", "a.fits", "a.fit.fz"])
@pytest.mark.parametrize("compression", ["RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1"])
def test_tile_compressed_integers(tmp_path: Path, name: str, compression: str) -> None:
    write_tiles(tmp_path / name, COUNTS, compression_type=compression, tile_shape=(20, 16))
    image = read_everywhere(tmp_path / name, "intensity=minmax")
    np.testing.assert_allclose(image[..., 0], between_extremes(COUNTS), atol=1e-6)
    part = read_image(tmp_path / name, 1, "intensity=minmax@0,3000", "15,18,9,7")
    np.testing.assert_allclose(part[..., 0], COUNTS[18:25, 15:24] / 3000, atol=1e-6)


def test_tile_compressed_unsigned_and_quantized(tmp_path: Path) -> None:
    deep = RNG.integers(0, 65536, (40, 32), dtype=np.uint16)
    write_tiles(tmp_path / "u.fits", deep)
    np.testing.assert_array_equal(read_everywhere(tmp_path / "u.fits")[..., 0], over_range(deep))
    write_tiles(tmp_path / "f.fits", REAL, quantize_level=64, quantize_method=1, dither_seed=3)
    image = read_everywhere(tmp_path / "f.fits", "intensity=minmax@0,1")[..., 0]
    np.testing.assert_allclose(image, REAL, atol=0.01)
    np.testing.assert_array_equal(image, np.clip(fits.getdata(tmp_path / "f.fits", 1), 0, 1))


@pytest.mark.parametrize("pack", [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_packed_files(tmp_path: Path, pack: tuple[str, Any]) -> None:
    fits.PrimaryHDU(REAL).writeto(tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes()
    packed = tmp_path / f"a.fits{pack[0]}"
    packed.write_bytes(pack[1](content))
    np.testing.assert_array_equal(read_everywhere(packed)[..., 0], REAL)
    # Cut inside, and a file that was already cut when it was packed.
    whole = packed.read_bytes()
    for cut in (whole[: len(whole) // 2], whole[:-4], pack[1](content[:4000])):
        packed.write_bytes(cut)
        for read in (lambda: read_header(str(packed)), lambda: read_image(packed)):
            with pytest.raises(UserError, match=r"FITS cannot be read|truncated"):
                read()


def test_a_flipped_bit_in_a_packed_file_is_found(tmp_path: Path) -> None:
    fits.PrimaryHDU(REAL).writeto(tmp_path / "a.fits")
    packed = bytearray(gzip.compress((tmp_path / "a.fits").read_bytes(), compresslevel=0))
    packed[5000] ^= 1
    with pytest.raises(UserError, match="CRC check failed"):
        read_image(bytes(packed))


def test_the_endings_are_found_in_folders(tmp_path: Path) -> None:
    names = ["a.fits", "b.fit", "c.fts", "d.fits.gz", "e.fits.bz2", "f.fits.fz", "g.FIT.GZ"]
    for name in names:
        (tmp_path / name).touch()
    assert [record.path for record in list_folder(tmp_path).records] == names
    assert ".fits.fz" in array_suffixes()


def test_an_upload_is_read_like_a_file(tmp_path: Path) -> None:
    fits.PrimaryHDU(REAL).writeto(tmp_path / "a.fits")
    np.testing.assert_array_equal(
        read_image((tmp_path / "a.fits").read_bytes()), read_image(tmp_path / "a.fits")
    )


@pytest.mark.parametrize("blank", [0, 7, -32768])
@pytest.mark.parametrize("tiles", [False, True])
def test_undefined_integers_are_never_numbers(tmp_path: Path, blank: int, tiles: bool) -> None:
    values = np.array([[blank, 20, 10, 40], [30, 50, 60, 60], [1, 2, 3, 4], [1, 2, 3, 4]], np.int16)
    hdu = fits.CompImageHDU(values) if tiles else fits.ImageHDU(values)
    hdu.header["BLANK"] = blank
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(tmp_path / "a.fits", output_verify="silentfix")
    with pytest.raises(UserError, match="1 values of 16 that are not finite"):
        read_everywhere(tmp_path / "a.fits", "intensity=minmax")
    image = read_everywhere(tmp_path / "a.fits", "nan=min;intensity=minmax@0,60")
    assert image[0, 0, 0] == np.float32(1 / 60)
    assert image[0, 1, 0] == np.float32(20 / 60)


def write_blank(path: Path, values: np.ndarray, blank: int) -> None:
    """Astropy leaves BLANK out when it writes unsigned values."""
    fits.PrimaryHDU(values).writeto(path)
    content = path.read_bytes()
    card, end = f"BLANK   = {blank:>20}".ljust(80).encode(), b"END".ljust(80)
    place = content.index(end)
    path.write_bytes(content[:place] + card + end + content[place + 160 :])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
def test_undefined_unsigned_integers(tmp_path: Path, kind: type) -> None:
    values = np.array([[5, 9], [3, 200]], kind)
    offset = 0 if kind == np.uint8 else 2 ** (8 * np.dtype(kind).itemsize - 1)
    write_blank(tmp_path / "a.fits", values, 9 - offset)
    full = np.iinfo(kind).max
    with pytest.raises(UserError, match=r"1 values of 4 that are undefined \(BLANK\); say what"):
        read_everywhere(tmp_path / "a.fits")
    image = read_everywhere(tmp_path / "a.fits", "nan=min")[..., 0]
    np.testing.assert_allclose(image, np.array([[5, 3], [3, 200]]) / full, rtol=1e-6)
    assert np.isnan(read_stored(str(tmp_path / "a.fits"))[0, 1, 0])
    # Declared, but nothing is undefined: as if it were not declared.
    write_blank(tmp_path / "b.fits", values, 77 - offset)
    image = read_everywhere(tmp_path / "b.fits")[..., 0]
    np.testing.assert_allclose(image, over_range(values), rtol=1e-6)


def test_scaled_values_are_those_of_the_standard(tmp_path: Path) -> None:
    hdu = fits.PrimaryHDU(COUNTS)
    hdu.header["BSCALE"], hdu.header["BZERO"] = 0.25, -3.0
    hdu.writeto(tmp_path / "a.fits")
    image = read_everywhere(tmp_path / "a.fits", "intensity=minmax@-3,747")
    np.testing.assert_allclose(image[..., 0], COUNTS * 0.25 / 750, atol=1e-7)


def test_tiles_that_do_not_make_the_image_are_refused(tmp_path: Path) -> None:
    write_tiles(tmp_path / "a.fits", COUNTS, tile_shape=(20, 16))
    content = (tmp_path / "a.fits").read_bytes()
    for before, after in (
        (b"ZNAXIS1 =                   32", b"ZNAXIS1 =                 9999"),
        (b"ZTILE1  =                   16", b"ZTILE1  =                    0"),
        (b"ZCMPTYPE= 'RICE_1  '", b"ZCMPTYPE= 'LZMA_9  '"),
    ):
        assert before in content
        damaged = content.replace(before, after)
        with pytest.raises(UserError, match="FITS c"):
            read_image(damaged, reading="intensity=minmax")
        (tmp_path / "b.fits").write_bytes(damaged)
        with pytest.raises(UserError, match="FITS c"):
            read_header(str(tmp_path / "b.fits"), "intensity=minmax")


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("card", "value", "said"),
    [
        ("NAXIS", "2147483647", "2147483647 axes"),
        ("NAXIS1", "-32", "axis of negative length"),
        ("NAXIS2", "]", "damaged header: NAXIS2"),
        ("SIMPLE", "F", "damaged header: SIMPLE"),
    ],
)
def test_headers_on_which_astropy_would_go_on_for_ever(
    tmp_path: Path, card: str, value: str, said: str, pack: Any
) -> None:
    fits.PrimaryHDU(COUNTS).writeto(tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes()
    place = content.index(f"{card:8}=".encode()) + 10
    (tmp_path / "a.fits").write_bytes(
        pack(content[:place] + value.rjust(20).encode() + content[place + 20 :])
    )
    for reading in ("", "array=0"):
        with pytest.raises(UserError, match=said):
            read_header(str(tmp_path / "a.fits"), reading)
