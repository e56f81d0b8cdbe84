from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_prep.errors import UserError
from data_prep.readers import read_image
from tests.data_prep.image_files import pixels, write, write_tiff


@pytest.mark.parametrize("ending", ["png", "bmp", "tif", "gif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_come_back_exactly(tmp_path: Path, ending: str, channels: int) -> None:
    image = pixels(1, channels=channels)
    if ending == "gif":  # A palette of 256 colours.
        image = image // 64 * 64
    read = read_image(write(tmp_path / f"a.{ending}", image))
    np.testing.assert_array_equal(read, image.reshape(12, 16, channels))
    assert read.dtype == np.uint8


def test_bytes_are_read_like_files(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jpg", pixels(1))
    np.testing.assert_array_equal(read_image(file), read_image(file.read_bytes()))
    np.testing.assert_array_equal(read_image(file), np.asarray(Image.open(file)))


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_become_unit_floats(tmp_path: Path, ending: str) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    read = read_image(write(tmp_path / f"a.{ending}", values))
    np.testing.assert_allclose(read[..., 0], values / 65535, rtol=1e-6)
    assert read.dtype == np.float32


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_tiff_is_taken_as_it_is(tmp_path: Path, dtype: type) -> None:
    values = np.random.default_rng(0).random((5, 7)).astype(dtype)
    read = read_image(write_tiff(tmp_path / "a.tif", values))
    np.testing.assert_array_equal(read[..., 0], values.astype(np.float32))


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "not finite"), (np.inf, "not finite"), (1.5, "scale them to"), (-0.1, "from -0.1")],
)
def test_float_tiff_out_of_range_is_refused(tmp_path: Path, value: float, message: str) -> None:
    values = np.full((5, 7), 0.5, np.float32)
    values[2, 3] = value
    file = write_tiff(tmp_path / "a.tif", values)
    with pytest.raises(UserError, match=rf"a\.tif: holds .*{message}"):
        read_image(file)


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("bands", [2, 4, 6])
def test_many_bands_in_both_layouts(tmp_path: Path, planar: str, bands: int) -> None:
    cube = np.random.default_rng(1).integers(0, 256, (9, 11, bands), dtype=np.uint8)
    stored = cube if planar == "contig" else np.moveaxis(cube, -1, 0)
    options = {"planarconfig": planar, "photometric": "minisblack"}
    file = write_tiff(tmp_path / "a.tif", stored, extrasamples=[0] * (bands - 1), **options)
    np.testing.assert_array_equal(read_image(file, bands), cube)


def test_near_infrared_is_a_band_and_alpha_is_not(tmp_path: Path) -> None:
    cube = np.random.default_rng(1).integers(0, 256, (9, 11, 4), dtype=np.uint8)
    bands = write_tiff(tmp_path / "a.tif", cube, photometric="rgb", extrasamples=["unspecified"])
    alpha = write_tiff(tmp_path / "b.tif", cube, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_array_equal(read_image(bands), cube)
    np.testing.assert_array_equal(read_image(alpha), cube[..., :3])


def test_channels_of_an_imagej_file_are_bands_and_slices_are_not(tmp_path: Path) -> None:
    stack = np.random.default_rng(1).integers(0, 256, (3, 9, 11), dtype=np.uint8)
    channels = write_tiff(tmp_path / "c.tif", stack, imagej=True, metadata={"axes": "CYX"})
    depth = write_tiff(tmp_path / "z.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    plain = write_tiff(tmp_path / "q.tif", stack, photometric="minisblack")
    np.testing.assert_array_equal(read_image(channels), np.moveaxis(stack, 0, -1))
    np.testing.assert_array_equal(read_image(plain), np.moveaxis(stack, 0, -1))
    np.testing.assert_array_equal(read_image(depth)[..., 0], stack[0])


def test_first_page_and_first_frame_count(tmp_path: Path) -> None:
    first, second = Image.fromarray(pixels(1)), Image.fromarray(pixels(2))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), pixels(1))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_compressed_tiff(tmp_path: Path, compression: str) -> None:
    file = write(tmp_path / "a.tif", pixels(1), compression=compression)
    expected = np.asarray(Image.open(file))
    np.testing.assert_array_equal(read_image(file), expected)


def test_white_is_zero_and_palettes(tmp_path: Path) -> None:
    image = pixels(1, channels=1)
    inverted = write_tiff(tmp_path / "w.tif", 255 - image, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(inverted)[..., 0], image)
    palette = Image.fromarray(pixels(2)).quantize(16)
    palette.save(tmp_path / "p.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "p.tif"), palette.convert("RGB"))


def test_grey_to_colour_and_back(tmp_path: Path) -> None:
    grey = write(tmp_path / "g.png", pixels(1, channels=1))
    assert (read_image(grey, 3) == pixels(1, channels=1)[..., np.newaxis]).all()
    colour = write(tmp_path / "c.png", pixels(1))
    luma = pixels(1) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(read_image(colour, 1)[..., 0], luma, atol=0.51)
    with pytest.raises(UserError, match="has 3 channels where 5 are wanted"):
        read_image(colour, 5)


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    colour = Image.fromarray(pixels(1)).convert("RGBA")
    colour.putalpha(Image.fromarray(pixels(2, channels=1)))
    colour.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels(1))


def test_orientation_tag_is_not_applied(tmp_path: Path) -> None:
    image = Image.fromarray(pixels(1))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (12, 16, 3)


def test_errors_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no image")
    with pytest.raises(UserError, match=r"a\.png: not a JPEG"):
        read_image(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"b\.png: No such file"):
        read_image(tmp_path / "b.png")
    with tifffile.TiffWriter(tmp_path / "c.tif") as writer:
        writer.write(np.zeros((4, 4), np.complex64))
    with pytest.raises(UserError, match=r"c\.tif: TIFF pixels of type complex64"):
        read_image(tmp_path / "c.tif")
