"""What single picture formats hold beyond the common: deep JPEG, WebP, GIF frames, limits."""

import io
import struct
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tensorflow as tf
import tifffile
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.scan import scan_folder
from data_prep.reading.headers import Decoder, parse_header, read_header
from data_prep.reading.images import read_image
from data_prep.reading.limits import ReadLimits
from data_prep.sources.decoding import decode_bytes
from tests.data_prep.image_files import pixels, write

DECODE = Path(__file__).parent / "decode"


def in_graph(content: bytes, channels: int) -> np.ndarray:
    header = parse_header(io.BytesIO(content))
    dtype = tf.uint8 if header.bits == 8 else tf.float32
    kind = int(header.decoder)
    image: np.ndarray = decode_bytes(tf.constant(content), kind, [kind], channels, dtype).numpy()
    return image


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_lossless_jpeg_is_exact(bits: int, channels: int) -> None:
    values = pixels(1, channels=channels).astype(np.uint16) * (1 << bits - 8)
    stored = values.astype(np.uint8) if bits == 8 else values
    content = imagecodecs.jpeg8_encode(stored, lossless=True, bitspersample=bits)
    header = parse_header(io.BytesIO(content))
    assert (header.bits, header.decoder) == (bits, Decoder.PYTHON)
    image = read_image(content)
    unit = image / np.float32(255) if bits == 8 else image
    expected = values.reshape(12, 16, channels) / ((1 << bits) - 1)
    np.testing.assert_allclose(unit, expected, rtol=0, atol=2e-7)
    np.testing.assert_array_equal(in_graph(content, channels), image)


def test_twelve_bit_jpeg_is_divided_by_4095() -> None:
    values = pixels(1, 40, 56, channels=1).astype(np.uint16) * 16
    content = imagecodecs.jpeg8_encode(values, level=98, bitspersample=12)
    assert parse_header(io.BytesIO(content)).bits == 12
    np.testing.assert_allclose(read_image(content)[..., 0], values / 4095, atol=0.01)
    np.testing.assert_array_equal(in_graph(content, 1), read_image(content))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (1, 0xC5, "JPEG of 8 bits and 3 components .marker C5. is not supported: save it as PNG"),
        (4, 16, "JPEG of 16 bits"),
        (9, 2, "2 components"),
    ],
)
def test_kinds_of_jpeg_that_nobody_reads_are_refused(
    tmp_path: Path, place: int, value: int, message: str
) -> None:
    content = bytearray(write(tmp_path / "a.jpg", pixels(1)).read_bytes())
    content[content.index(b"\xff\xc0") + place] = value
    for read in (lambda: parse_header(io.BytesIO(content)), lambda: read_image(bytes(content))):
        with pytest.raises(UserError, match=message):
            read()


def test_a_jpeg_that_decoders_take_for_different_things_is_refused() -> None:
    """Behind stray bytes Pillow finds no image, and another decoder plain values of CMYK."""
    content = (DECODE / "jpg_cmyk_adobe.jpg").read_bytes()
    assert read_image(content).shape[2] == 3
    with pytest.raises(UserError, match="not what its header says"):
        read_image(b"\xff" + 3 * b"\xd8" + content[2:])


def test_a_jpeg_header_is_read_beyond_its_window_and_fill_bytes(tmp_path: Path) -> None:
    content = write(tmp_path / "a.jpg", pixels(1)).read_bytes()
    comment = b"\xff\xfe" + struct.pack(">H", 5002) + b"\xff\xc0" * 2500
    exif = Image.Exif()
    exif[274] = 6
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    longer = b"Exif\0\0" + block + b"\0" * 9000
    segment = b"\xff\xe1" + struct.pack(">H", len(longer) + 2) + longer
    held = content[:2] + comment + b"\xff\xff\xff" + segment[1:] + content[2:]
    header = parse_header(io.BytesIO(held))
    assert (header.height, header.width, header.orientation) == (16, 12, 6)
    np.testing.assert_array_equal(read_image(held), np.rot90(read_image(content), -1))
    with pytest.raises(UserError, match="damaged or truncated header"):
        parse_header(io.BytesIO(b"\xff\xd8" + b"\0" * 2**20))


def test_webp_of_every_kind(tmp_path: Path) -> None:
    image, other = (Image.fromarray(pixels(seed, 31, 45)) for seed in (1, 2))
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(pixels(3, 31, 45, channels=1)))
    files = {
        "lossless": image,
        "alpha": alpha,
        "animated": image,
    }
    for name, picture in files.items():
        more = {"save_all": True, "append_images": [other]} if name == "animated" else {}
        picture.save(tmp_path / f"{name}.webp", lossless=True, exact=True, **more)
    found = scan_folder(tmp_path)
    assert [record.path for record in found.records] == sorted(f"{n}.webp" for n in files)
    for file in found.files():
        header = read_header(file)
        assert (header.height, header.width, header.channels, header.bits) == (31, 45, 3, 8)
        np.testing.assert_array_equal(read_image(file), np.asarray(image))
        np.testing.assert_array_equal(in_graph(Path(file).read_bytes(), 3), np.asarray(image))
    content = (tmp_path / "lossless.webp").read_bytes()
    with pytest.raises(UserError, match="truncated"):
        read_image(content[:-20])
    image.save(tmp_path / "lossy.webp", quality=90)
    lossy = read_image(tmp_path / "lossy.webp")
    assert np.abs(lossy.astype(int) - np.asarray(image)).mean() < 4


def test_a_small_first_frame_of_a_gif_lies_on_its_canvas(tmp_path: Path) -> None:
    frame = Image.fromarray(pixels(1, 10, 20)).quantize(8)
    stream = io.BytesIO()
    frame.save(stream, "GIF")
    content = bytearray(stream.getvalue())
    content[6:10] = struct.pack("<HH", 40, 30)
    place = content.index(b"\x2c\0\0\0\0\x14\0\x0a\0")
    content[place + 1 : place + 5] = struct.pack("<HH", 5, 4)
    image = read_image(bytes(content))
    assert image.shape == (30, 40, 3)
    np.testing.assert_array_equal(image[4:14, 5:25], np.asarray(frame.convert("RGB")))
    background = frame.getpalette()[3 * content[11] : 3 * content[11] + 3]
    assert (image[14:] == background).all()
    assert (image[:, 25:] == background).all()
    np.testing.assert_array_equal(in_graph(bytes(content), 3), image)


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_luma_and_color_of_a_tiff_become_rgb(tmp_path: Path, compression: str | None) -> None:
    image = Image.fromarray(pixels(1, 40, 56)).convert("YCbCr")
    image.save(tmp_path / "a.tif", compression=compression)
    read, expected = read_image(tmp_path / "a.tif"), np.asarray(image.convert("RGB"))
    assert np.abs(read.astype(int) - expected).max() <= 2
    tile = read_image(tmp_path / "a.tif", tile="3,2,20,10")
    np.testing.assert_array_equal(tile, read[2:12, 3:23])


def test_colors_without_one_meaning_are_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "lab.tif", pixels(1), photometric="cielab")
    tifffile.imwrite(tmp_path / "cfa.tif", pixels(1, channels=1), photometric="cfa")
    for name, kind in (("lab", "CIELAB"), ("cfa", "CFA")):
        with pytest.raises(UserError, match=f"TIFF colours of kind {kind}: .* save it as RGB"):
            read_image(tmp_path / f"{name}.tif")


def test_a_reduced_first_page_and_sparse_tiles(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "thumb.tif") as writer:
        writer.write(pixels(1, 4, 5), subfiletype=1)
        writer.write(pixels(2), subfiletype=0)
    with pytest.raises(UserError, match=r"the first of 2 pages is a reduced picture .*--page=1"):
        read_image(tmp_path / "thumb.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "thumb.tif", reading="page=1"), pixels(2))
    image = np.zeros((64, 64), np.uint8)
    image[:16, :16] = 7
    file = tmp_path / "sparse.tif"
    tifffile.imwrite(file, image, tile=(16, 16), compression="zlib", metadata=None)
    with tifffile.TiffFile(file, mode="r+") as written:
        tags = written.pages[0].tags
        offsets, counts = tags["TileOffsets"].value, tags["TileByteCounts"].value
        tags["TileOffsets"].overwrite((*offsets[:2], 0, *offsets[3:]))
        tags["TileByteCounts"].overwrite((*counts[:2], 0, *counts[3:]))
    np.testing.assert_array_equal(read_image(file)[..., 0], image)
    np.testing.assert_array_equal(read_image(file, tile="10,10,40,20")[..., 0], image[10:30, 10:50])


def test_other_files_of_an_ome_set_are_not_opened(tmp_path: Path) -> None:
    parts = "".join(
        f'<TiffData FirstC="{c}" IFD="0" PlaneCount="1"><UUID FileName="{c}.ome.tif">urn:uuid:'
        f"00000000-0000-0000-0000-00000000000{c}</UUID></TiffData>"
        for c in range(2)
    )
    for c in range(2):
        text = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/'
            f'Schemas/OME/2016-06" UUID="urn:uuid:00000000-0000-0000-0000-00000000000{c}">'
            '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8"'
            ' SizeX="11" SizeY="9" SizeZ="1"'
            f' SizeC="2" SizeT="1"><Channel ID="Channel:0:0" SamplesPerPixel="1"/>{parts}</Pixels>'
            "</Image></OME>"
        )
        tifffile.imwrite(
            tmp_path / f"{c}.ome.tif",
            np.full((9, 11), c, np.uint8),
            description=text,
            metadata=None,
        )
    assert tifffile.imread(tmp_path / "0.ome.tif").shape == (2, 9, 11)
    with pytest.raises(UserError, match=r"OME TIFF of a set of several files: say --page=0"):
        read_image(tmp_path / "0.ome.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "0.ome.tif", reading="page=0"), 0)


def large(ending: str, side: int) -> bytes:
    """A picture of one colour, small as a file."""
    plain = np.zeros((side, side), np.uint8)
    stream = io.BytesIO()
    if ending == "tif":
        tifffile.imwrite(stream, plain, compression="lzw", rowsperstrip=256)
    else:
        Image.fromarray(plain).save(stream, {"jpg": "JPEG"}.get(ending, ending))
    return stream.getvalue()


@pytest.mark.parametrize("ending", ["png", "tif", "jpg", "bmp", "gif", "webp"])
def test_a_limit_of_pixels_counts_before_decoding(
    monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    content = large(ending, 300)

    def decode(*_: Any, **__: Any) -> None:
        raise AssertionError

    assert read_image(content, limits=ReadLimits(max_pixels=90_000)).shape[:2] == (300, 300)
    monkeypatch.setattr("data_prep.reading.images._stored", decode)
    with pytest.raises(UserError, match="300 x 300 pixels, more than the 89999 that are read here"):
        read_image(content, limits=ReadLimits(max_pixels=89_999))
    with pytest.raises(UserError, match="more than the 89999"):
        parse_header(io.BytesIO(content), limits=ReadLimits(max_pixels=89_999))


@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
def test_tiles_of_pictures_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    # As if a picture of 40,000 pixels were as suspicious as one of a hundred millions.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    file = tmp_path / f"a.{ending}"
    file.write_bytes(large(ending, 300))
    assert read_image(file, tile="100,200,50,60").shape == (60, 50, 1)
    assert read_image(file).shape == (300, 300, 1)


@pytest.mark.parametrize("bits", [4, 5, 12])
def test_copies_of_few_bits_keep_their_brightness(tmp_path: Path, bits: int) -> None:
    from data_prep.augment.copies import encode_like
    from data_prep.reading.images import read_stored

    kind = np.uint8 if bits < 8 else np.uint16
    values = np.random.default_rng(0).integers(0, 1 << bits, (9, 16)).astype(kind)
    file = tmp_path / "a.tif"
    tifffile.imwrite(file, values, bitspersample=bits, metadata=None)
    np.testing.assert_array_equal(read_stored(str(file))[..., 0], values)
    _, content = encode_like(read_stored(str(file), spread=True), str(file))
    copy, original = read_image(content), read_image(file)
    unit = [image / 255 if image.dtype == np.uint8 else image for image in (copy, original)]
    np.testing.assert_allclose(unit[0], unit[1], rtol=0, atol=1e-5)
    ruled = read_stored(str(file), "intensity=minmax", spread=True)
    np.testing.assert_array_equal(ruled[..., 0], values)
