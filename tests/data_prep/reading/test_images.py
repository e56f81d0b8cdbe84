import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_prep.errors import UserError
from data_prep.reading.headers import count_pages, read_header
from data_prep.reading.images import read_image
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
    np.testing.assert_array_equal(read_image(file, bands, "extra=band"), cube)
    np.testing.assert_array_equal(read_image(file, 1, "extra=drop"), cube[..., :1])
    if bands == 2:  # grey and alpha, or two bands
        with pytest.raises(UserError, match=r"grey TIFF with 1 further sample .*--extra_samples="):
            read_image(file)
    else:
        np.testing.assert_array_equal(read_image(file), cube)


def test_near_infrared_is_a_band_if_declared_and_alpha_never(tmp_path: Path) -> None:
    cube = np.random.default_rng(1).integers(0, 256, (9, 11, 4), dtype=np.uint8)
    bands = write_tiff(tmp_path / "a.tif", cube, photometric="rgb", extrasamples=["unspecified"])
    alpha = write_tiff(tmp_path / "b.tif", cube, photometric="rgb", extrasamples=["unassalpha"])
    with pytest.raises(UserError, match=r"a\.tif: RGB TIFF .*--extra_samples=drop .*=band"):
        read_image(bands)
    np.testing.assert_array_equal(read_image(bands, reading="extra=band"), cube)
    np.testing.assert_array_equal(read_image(bands, reading="extra=drop"), cube[..., :3])
    for reading in ("", "extra=band", "extra=drop"):
        np.testing.assert_array_equal(read_image(alpha, reading=reading), cube[..., :3])


def test_channels_of_an_imagej_file_are_bands_and_slices_are_not(tmp_path: Path) -> None:
    stack = np.random.default_rng(1).integers(0, 256, (3, 9, 11), dtype=np.uint8)
    channels = write_tiff(tmp_path / "c.tif", stack, imagej=True, metadata={"axes": "CYX"})
    depth = write_tiff(tmp_path / "z.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    np.testing.assert_array_equal(read_image(channels), np.moveaxis(stack, 0, -1))
    np.testing.assert_array_equal(read_image(depth)[..., 0], stack[0])


@pytest.mark.parametrize("planes", [2, 5, 100])
def test_an_array_saved_plane_by_plane_must_be_declared(tmp_path: Path, planes: int) -> None:
    stack = np.random.default_rng(1).integers(0, 256, (planes, 9, 11), dtype=np.uint8)
    file = write_tiff(tmp_path / "q.tif", stack)
    problem = rf"stack of {planes} planes .*--page=0 .*--page=all .*--page=stack"
    for read in (read_image, read_header):
        with pytest.raises(UserError, match=problem):
            read(str(file))
    np.testing.assert_array_equal(read_image(file, reading="page=stack"), np.moveaxis(stack, 0, -1))
    np.testing.assert_array_equal(read_image(file, reading="page=1")[..., 0], stack[1])
    assert count_pages(str(file)) == planes


@pytest.mark.parametrize(
    ("axes", "options"),
    [("TZCYX", {"imagej": True}), ("ZCYX", {"ome": True}), ("CZYX", {"ome": True}), ("TCYX", {})],
)
def test_a_stack_of_several_axes_is_declared_or_refused(
    tmp_path: Path, axes: str, options: dict[str, bool]
) -> None:
    sizes = {"T": 2, "Z": 3, "C": 2, "Y": 9, "X": 11}
    shape = [sizes[axis] for axis in axes]
    stack = np.random.default_rng(1).integers(0, 65536, shape, dtype=np.uint16)
    file = str(
        write_tiff(
            tmp_path / "h.tif", stack, metadata={"axes": axes}, photometric="minisblack", **options
        )
    )
    with pytest.raises(UserError, match=r"stack of .*--page=0 .*--axes=NCHW"):
        read_image(file)
    expected = (stack / 65535).astype(np.float32)
    planes = expected.reshape(-1, 9, 11)
    assert count_pages(file) == len(planes)
    np.testing.assert_array_equal(read_image(file, reading="page=3")[..., 0], planes[3])
    by_image = np.moveaxis(expected, axes.index("C"), -3).reshape(-1, 2, 9, 11)
    assert count_pages(file, "axes=NCHW") == len(by_image)
    for page, image in enumerate(by_image):
        read = read_image(file, reading=f"page={page};axes=NCHW")
        np.testing.assert_array_equal(read, np.moveaxis(image, 0, -1))
    with pytest.raises(UserError, match=f"no page {len(by_image)}: the file holds"):
        read_header(file, f"page={len(by_image)};axes=NCHW")


@pytest.mark.parametrize("reading", ["", "page=2", "page=stack"])
def test_a_stack_of_one_page_for_all_planes(tmp_path: Path, reading: str) -> None:
    stack = np.random.default_rng(1).integers(0, 65536, (4, 9, 11), dtype=np.uint16)
    whole = write_tiff(tmp_path / "t.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    cut = str(tmp_path / "c.tif")
    Path(cut).write_bytes(cut_pages(whole.read_bytes()))
    assert count_pages(cut) == 4
    expected = {"": stack[:1], "page=2": stack[2:3], "page=stack": stack}[reading]
    read = read_image(cut, reading=reading)
    np.testing.assert_array_equal(read, np.moveaxis((expected / 65535).astype(np.float32), 0, -1))
    tile = read_image(cut, reading=reading, tile="3,2,5,4")
    np.testing.assert_array_equal(tile, read[2:6, 3:8])


def cut_pages(content: bytes) -> bytes:
    """A TIFF of several pages without all but the first, whose data lie before them."""
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        order = file.byteorder
        first = file.pages.first
        place = first.offset + 2 + 12 * len(first.tags)
        end = max(page.dataoffsets[0] + page.databytecounts[0] for page in file.pages)
    return content[:place] + struct.pack(f"{order}I", 0) + content[place + 4 : end]


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


def test_gray_to_color_and_back(tmp_path: Path) -> None:
    gray = write(tmp_path / "g.png", pixels(1, channels=1))
    assert (read_image(gray, 3) == pixels(1, channels=1)[..., np.newaxis]).all()
    color = write(tmp_path / "c.png", pixels(1))
    luma = pixels(1) @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(read_image(color, 1)[..., 0], luma, atol=0.51)
    with pytest.raises(UserError, match="has 3 channels where 5 are wanted"):
        read_image(color, 5)


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    color = Image.fromarray(pixels(1)).convert("RGBA")
    color.putalpha(Image.fromarray(pixels(2, channels=1)))
    color.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), pixels(1))


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
