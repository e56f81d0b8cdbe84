"""Every format, bit for bit, from the file through the manifest to the batch."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.reading.formats import hdf5_process
from data_prep.reading.headers import Decoder, read_header
from data_prep.reading.images import read_image
from data_prep.reading.intensity import apply_intensity, parse_intensity
from data_prep.sources.manifest_source import ManifestSource
from tests.data_prep.image_files import pixels, write, write_tiff

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 65536, (4, 9, 11), dtype=np.uint16)
REAL = RNG.random((4, 9, 11)).astype(np.float32)
HOLES = np.where(REAL > 0.9, np.float32(np.nan), REAL * 1000 - 50)


def in_batch(records: list[Record], root: Path, **options: Any) -> np.ndarray:
    """The images as a batch of the pipeline."""
    options.setdefault("cache", "false")
    source = ManifestSource(Manifest(tuple(records), str(root)), **options)
    elements = source.elements(seed=0, shuffle=False, start=0, batch_size=len(records))
    images = elements.map(source.decode, num_parallel_calls=2).batch(len(records))
    return images.get_single_element().numpy()


def read(record: Record, root: Path) -> np.ndarray:
    """The image as the reader of a manifest reads it, outside the pipeline."""
    return read_image(root / record.path, None, record.reading, record.tile)


def write_npy(path: Path, array: np.ndarray) -> None:
    np.save(path, array)


def write_fortran_npy(path: Path, array: np.ndarray) -> None:
    np.save(path, np.asfortranarray(array))


def write_npz(path: Path, array: np.ndarray) -> None:
    np.savez_compressed(path, other=np.zeros(3), image=array)


def write_hdf5(path: Path, array: np.ndarray) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file.create_dataset("group/image", data=array, chunks=True, compression="gzip")
        file["names"] = np.zeros(3)


def write_fits(path: Path, array: np.ndarray) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    image = fits.ImageHDU(array, name="SCI")
    fits.HDUList([fits.PrimaryHDU(), image]).writeto(path)


def write_raw(path: Path, array: np.ndarray) -> None:
    path.write_bytes(b"header!" + array.astype(array.dtype.newbyteorder(">")).tobytes())


def raw_reading(array: np.ndarray) -> str:
    shape = ",".join(map(str, array.shape))
    return f"shape={shape};dtype=>{array.dtype.name};offset=7"


FORMATS: dict[str, tuple[Callable[[Path, np.ndarray], None], str, Any]] = {
    "npy": (write_npy, "a.npy", ""),
    "npy, column-major": (write_fortran_npy, "a.npy", ""),
    "npz": (write_npz, "a.npz", "array=image"),
    "hdf5": (write_hdf5, "a.h5", ""),
    "hdf5, named": (write_hdf5, "a.hdf5", "array=/group/image"),
    "fits": (write_fits, "a.fits", ""),
    "fits, named": (write_fits, "a.fit", "array=sci"),
    "fits, numbered": (write_fits, "a.fits", "array=1"),
    "fits, zipped": (write_fits, "a.fits.gz", ""),
    "raw": (write_raw, "a.raw", raw_reading),
}


@pytest.fixture(params=FORMATS)
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[np.ndarray], Record]:
    """Writes an array in a format; gives its record, without axes."""
    writer, name, reading = FORMATS[request.param]

    def store(array: np.ndarray) -> Record:
        writer(tmp_path / name, array)
        return Record(name, reading=reading(array) if callable(reading) else reading)

    return store


def declared(record: Record, text: str) -> Record:
    return Record(record.path, reading=f"{record.reading};{text}".strip(";"))


@pytest.mark.parametrize("image", [DEEP[0], REAL[0], pixels(1, channels=1)], ids=["16", "f", "8"])
def test_one_channel(stored: Callable[[np.ndarray], Record], tmp_path: Path, image: Any) -> None:
    batch = in_batch([stored(image)], tmp_path)
    full = {"uint8": 1, "uint16": 65535, "float32": 1}[image.dtype.name]
    expected = image if image.dtype == np.uint8 else (image / np.float64(full)).astype(np.float32)
    np.testing.assert_array_equal(batch, expected[np.newaxis, :, :, np.newaxis])
    assert batch.dtype == (np.uint8 if image.dtype == np.uint8 else np.float32)


def test_channels_and_tiles_are_where_they_are_declared(
    stored: Callable[[np.ndarray], Record], tmp_path: Path
) -> None:
    cube = np.tile(REAL, (1, 1, 4))[:, :, :9]  # [4, 9, 9]
    record = stored(cube[:, :4])  # [4, 4, 9]
    first, last = declared(record, "axes=CHW"), declared(record, "axes=CWH")
    tile = Record(first.path, reading=first.reading, tile="2,1,3,2")
    batch = in_batch([first], tmp_path)
    np.testing.assert_array_equal(batch[0], np.moveaxis(cube[:, :4], 0, -1))
    turned = in_batch([last], tmp_path)
    np.testing.assert_array_equal(turned[0], batch[0].transpose(1, 0, 2))
    part = in_batch([tile], tmp_path)
    np.testing.assert_array_equal(part[0], batch[0, 1:3, 2:5])


def test_channels_last(stored: Callable[[np.ndarray], Record], tmp_path: Path) -> None:
    record = stored(REAL)
    np.testing.assert_array_equal(read(declared(record, "axes=HWC"), tmp_path), REAL)
    with pytest.raises(UserError, match="shape 4x9x11: say which axis is which"):
        read(record, tmp_path)


def test_images_of_a_stack(stored: Callable[[np.ndarray], Record], tmp_path: Path) -> None:
    record = stored(REAL)
    pages = [declared(record, f"axes=NHW;page={page}") for page in (2, 0)]
    np.testing.assert_array_equal(in_batch(pages, tmp_path)[..., 0], REAL[[2, 0]])
    bands = read(declared(record, "axes=NHW;page=stack"), tmp_path)
    np.testing.assert_array_equal(bands, np.moveaxis(REAL, 0, -1))
    with pytest.raises(UserError, match="no page 4: the file holds 4"):
        read(declared(record, "axes=NHW;page=4"), tmp_path)
    with pytest.raises(UserError, match="stack of 4 images: say which"):
        read(declared(record, "axes=NHW"), tmp_path)


def test_nan_and_an_intensity_rule(stored: Callable[[np.ndarray], Record], tmp_path: Path) -> None:
    record = stored(HOLES[1])
    batch = in_batch([declared(record, "nan=min;intensity=percentile(2,98)")], tmp_path)
    finite = HOLES[1][np.isfinite(HOLES[1])]
    filled = np.where(np.isfinite(HOLES[1]), HOLES[1], finite.min())
    expected = apply_intensity(filled, parse_intensity("percentile(2,98)"))
    np.testing.assert_array_equal(batch[0, ..., 0], expected)
    with pytest.raises(UserError, match=r"not finite .*say what they become with --nan"):
        read(declared(record, "intensity=minmax"), tmp_path)


@pytest.mark.parametrize(
    "rule", ["nan=zero", "nan=min;intensity=sqrt", "intensity=sqrt@0,1;nan=zero"]
)
def test_a_tile_is_a_part_of_its_picture_after_the_rule(
    stored: Callable[[np.ndarray], Record], tmp_path: Path, rule: str
) -> None:
    record = declared(stored(np.where(REAL > 0.9, np.float32(np.nan), REAL)), f"axes=CHW;{rule}")
    tile = Record(record.path, reading=record.reading, tile="3,2,5,4")
    np.testing.assert_array_equal(read(tile, tmp_path), read(record, tmp_path)[2:6, 3:8])
    with pytest.raises(UserError, match=r"tile 8,0,5,4 does not lie in the picture of 11x9"):
        read(Record(record.path, reading=record.reading, tile="8,0,5,4"), tmp_path)


@pytest.mark.parametrize("dtype", [np.int16, np.int64])
def test_signed_integers_need_a_rule(
    stored: Callable[[np.ndarray], Record], tmp_path: Path, dtype: type
) -> None:
    values = RNG.integers(-500, 500, (9, 11)).astype(dtype)
    record = stored(values)
    with pytest.raises(UserError, match="no natural range: give --intensity"):
        read_header(str(tmp_path / record.path), record.reading)
    image = read(declared(record, "intensity=minmax"), tmp_path)
    low, high = values.min(), values.max()
    np.testing.assert_allclose(image[..., 0], (values - low) / (high - low), rtol=1e-6)


def test_pages_of_a_tiff(tmp_path: Path) -> None:
    with Image.fromarray(DEEP[0]) as first:
        first.save(tmp_path / "a.tif", save_all=True,
                   append_images=[Image.fromarray(page) for page in DEEP[1:]])  # fmt: skip
    expected = (DEEP / 65535).astype(np.float32)
    pages = [Record("a.tif", reading=f"page={page}") for page in (3, 1)]
    np.testing.assert_array_equal(in_batch(pages, tmp_path)[..., 0], expected[[3, 1]])
    stack = in_batch([Record("a.tif", reading="page=stack")], tmp_path)
    np.testing.assert_array_equal(stack[0], np.moveaxis(expected, 0, -1))
    with pytest.raises(UserError, match="no page 4: the file holds 4"):
        in_batch([Record("a.tif", reading="page=4")], tmp_path)


def test_pages_of_a_compressed_tiff_and_of_several_sizes(tmp_path: Path) -> None:
    pages = [Image.fromarray(pixels(seed, channels=1)) for seed in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:],
                  compression="tiff_lzw")  # fmt: skip
    stack = in_batch([Record("a.tif", reading="page=stack")], tmp_path)
    np.testing.assert_array_equal(stack[0], np.stack(pages, axis=-1))
    one = in_batch([Record("a.tif", reading="page=2")], tmp_path)
    np.testing.assert_array_equal(one[0, ..., 0], np.asarray(pages[2]))
    other = Image.fromarray(pixels(4, 5, 5, channels=1))
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=[other])
    with pytest.raises(UserError, match="sizes or types cannot be stacked"):
        in_batch([Record("b.tif", reading="page=stack")], tmp_path)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 16])
def test_png_with_and_without_a_rule(tmp_path: Path, channels: int, bits: int) -> None:
    kind = np.uint8 if bits == 8 else np.uint16
    image = np.cumsum(RNG.integers(0, 50, (9, 11, channels)), axis=1).astype(kind)
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(image).numpy())
    plain = in_batch([Record("a.png")], tmp_path)[0]
    expected = image if bits == 8 else (image / np.float64(65535)).astype(np.float32)
    np.testing.assert_allclose(plain, expected, rtol=1e-7)
    ruled = read(Record("a.png", reading="intensity=sqrt"), tmp_path)
    np.testing.assert_array_equal(ruled, apply_intensity(image, parse_intensity("sqrt")))
    tile = in_batch([Record("a.png", tile="2,1,4,7")], tmp_path)[0]
    np.testing.assert_array_equal(tile, read_image(tmp_path / "a.png")[1:8, 2:6])


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiles_of_a_jpeg_have_the_pixels_of_the_picture(
    tmp_path: Path, subsampling: int, channels: int
) -> None:
    write(tmp_path / "a.jpg", pixels(1, 101, 83), subsampling=subsampling, quality=80)
    whole = in_batch([Record("a.jpg")], tmp_path, channels=channels)[0]
    assert read_header(str(tmp_path / "a.jpg"), tile="0,0,5,5").decoder == Decoder.JPEG_TILE
    corners = ((0, 0), (17, 33), (52, 71), (3, 50))
    records = [Record("a.jpg", tile=f"{x},{y},31,30") for x, y in corners]
    tiles = in_batch(records, tmp_path, channels=channels)
    for (x, y), tile in zip(corners, tiles, strict=True):
        np.testing.assert_array_equal(tile, whole[y : y + 30, x : x + 31])


@pytest.mark.parametrize("cache", ["true", "false"])
def test_all_sorts_of_files_in_one_batch(tmp_path: Path, cache: str) -> None:
    write(tmp_path / "a.jpg", pixels(1, 30, 40))
    write(tmp_path / "b.png", pixels(2))
    write_npy(tmp_path / "c.npy", np.moveaxis(pixels(3), -1, 0))
    write_tiff(tmp_path / "d.tif", pixels(4))
    records = [
        Record("a.jpg", tile="5,6,16,12"),
        Record("b.png"),
        Record("c.npy", reading="axes=CHW"),
        Record("d.tif", reading="page=0"),
    ]
    batch = in_batch(records, tmp_path, cache=cache)
    assert batch.dtype == np.uint8
    np.testing.assert_array_equal(batch[0], read_image(tmp_path / "a.jpg")[6:18, 5:21])
    np.testing.assert_array_equal(batch[1:], [pixels(2), pixels(3), pixels(4)])


def test_scaled_and_undefined_values_of_a_fits(tmp_path: Path) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    image = fits.PrimaryHDU(np.array([[1, 2], [3, -9]], np.int16))
    image.header["BLANK"] = -9
    image.header["BSCALE"], image.header["BZERO"] = 0.5, 10.0
    image.writeto(tmp_path / "a.fits")
    batch = in_batch([Record("a.fits", reading="nan=min;intensity=minmax@10,12")], tmp_path)
    np.testing.assert_array_equal(batch[0, ..., 0], [[0.25, 0.5], [0.75, 0.25]])


def test_leading_axes_of_length_one_need_no_name(tmp_path: Path) -> None:
    write_npy(tmp_path / "a.npy", REAL[:1, np.newaxis])
    np.testing.assert_array_equal(in_batch([Record("a.npy")], tmp_path)[0, ..., 0], REAL[0])


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("prepare", "name", "reading", "message"),
    [
        (lambda p: write_npy(p, np.zeros(5)), "a.npy", "", "shape 5: say which axis"),
        (lambda p: write_npy(p, np.zeros((3, 3), complex)), "a.npy", "", "complex128.* no intens"),
        (lambda p: write_npy(p, np.zeros((3, 0))), "a.npy", "", "array without values"),
        (lambda p: write_npy(p, REAL), "a.npy", "axes=HW", "4x9x11 does not have the axes HW"),
        (lambda p: write_npz(p, REAL), "a.npz", "", r"2 arrays \(other, image\); name one"),
        (lambda p: write_npz(p, REAL), "a.npz", "array=x", "no array 'x'"),
        (lambda p: write_hdf5(p, REAL), "a.h5", "array=x", "no array 'x'"),
        (lambda p: write_fits(p, REAL), "a.fits", "array=x", "no extension 'x'"),
        (lambda p: write_fits(p, REAL), "a.fits", "array=0", "'0' holds no image"),
        (lambda p: p.write_bytes(b"1234"), "a.raw", "", "raw files need --raw_shape"),
        (
            lambda p: p.write_bytes(b"1234"),
            "a.raw",
            "shape=2,3;dtype=uint8",
            "raw file of 4 bytes: 2x3 values of uint8 after 0 bytes of header take 6",
        ),
        (lambda p: (write_npy(p, DEEP[0]), cut_in_half(p)), "a.npy", "", "NPY cannot be read"),
        (lambda p: (write_npz(p, DEEP), cut_in_half(p)), "a.npz", "", "NPZ cannot be read"),
        (lambda p: (write_hdf5(p, DEEP), cut_in_half(p)), "a.h5", "", "HDF5 cannot be read"),
        (
            lambda p: (write_fits(p, np.zeros((99, 99))), cut_in_half(p)),
            "a.fits",
            "",
            "truncated",
        ),
        (lambda p: p.write_bytes(gzip.compress(b"text")), "a.fits.gz", "", "FITS cannot be read"),
        (lambda p: write(p, pixels(1)), "a.png", "page=1", "no page 1: the file holds 1"),
        (lambda p: p.write_bytes(b"PK\x03\x04 no archive"), "a.npz", "", "NPZ cannot be read"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_few_words(
    tmp_path: Path, prepare: Callable[[Path], None], name: str, reading: str, message: str
) -> None:
    prepare(tmp_path / name)
    with pytest.raises(UserError, match=message) as caught:
        read_header(str(tmp_path / name), reading)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=message):
        read_image(tmp_path / name, reading=reading)


@pytest.mark.parametrize(
    ("package", "writer", "name"), [("h5py", write_hdf5, "a.h5"), ("astropy", write_fits, "a.fits")]
)
def test_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, writer: Any, name: str
) -> None:
    writer(tmp_path / name, REAL[0])
    for module in (package, "astropy.io", "astropy.utils.exceptions"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    # The process that reads HDF5 has the packages of this one, but not what a test takes from it.
    monkeypatch.setattr(hdf5_process.LIBRARY, "apart", False)
    with pytest.raises(UserError, match=rf"needs {package}: pip install 'simclr-tf\[science\]'"):
        read_image(tmp_path / name)


def test_nan_in_a_pipeline_is_diagnosed_with_the_flag_that_mends_it(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", HOLES[0])
    source = ManifestSource(Manifest((Record("a.npy"),), str(tmp_path)), cache="false")
    problem = str(source.diagnose())
    assert problem.count("a.npy") == 1
    assert "not finite (NaN or infinity); say what they become with --nan=min" in problem
