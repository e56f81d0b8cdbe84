"""Pictures that note an orientation are seen as a viewer shows them, wherever they are read."""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from data_prep.check.check import check
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.near_duplicates import gray_thumbnail, shrink
from data_prep.reading.formats.picture import exif_orientation
from data_prep.reading.headers import Decoder, read_header
from data_prep.reading.images import read_image, read_stored
from data_prep.reading.thumbnails import thumbnail
from data_prep.sources.decoding import decode_file
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.streams import TFRecordSource
from data_prep.sources.tfrecord_writer import write_shards
from tests.data_prep.image_files import pixels, write

ORIENTATIONS = range(1, 9)
ENDINGS = ("jpg", "png", "webp", "tif")


def turned(path: Path, orientation: int, image: np.ndarray | None = None, **options: Any) -> Path:
    """Writes a picture that notes an orientation."""
    picture = Image.fromarray(pixels(1, 21, 34) if image is None else image)
    if path.suffix == ".tif":
        picture.save(path, tiffinfo={274: orientation}, **options)
        return path
    exif = Image.Exif()
    exif[271] = "maker"
    exif[274] = orientation
    extra = {".webp": {"lossless": True}, ".jpg": {"quality": 90}}.get(path.suffix, {})
    picture.save(path, exif=exif, **extra, **options)
    return path


def upright(path: Path) -> np.ndarray:
    """What Pillow makes of it; it turns TIFF by itself."""
    with Image.open(path) as image:
        return np.atleast_3d(np.asarray(ImageOps.exif_transpose(image)))


def in_graph(path: Path, channels: int, reading: str = "", tile: str = "") -> np.ndarray:
    decoder = int(read_header(str(path), reading, tile).decoder)
    image = decode_file(
        tf.constant(str(path)), decoder, [decoder], channels, tf.uint8, reading, tile
    )
    decoded: np.ndarray = image.numpy()
    return decoded


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_reader_turns_every_format(tmp_path: Path, ending: str, orientation: int) -> None:
    file = turned(tmp_path / f"a.{ending}", orientation)
    expected = upright(file)
    header = read_header(str(file))
    assert (header.height, header.width, header.channels) == expected.shape
    assert header.orientation == orientation
    np.testing.assert_array_equal(read_image(file), expected)
    np.testing.assert_array_equal(read_image(file.read_bytes()), expected)
    np.testing.assert_array_equal(read_stored(str(file)), expected)
    np.testing.assert_array_equal(in_graph(file, 3), expected)
    gray = in_graph(file, 1)
    np.testing.assert_array_equal(gray, read_image(file, 1))
    tile = f"2,5,{expected.shape[1] - 7},{expected.shape[0] - 11}"
    part = expected[5:-6, 2:-5]
    for read in (read_image(file, tile=tile), in_graph(file, 3, tile=tile)):
        np.testing.assert_array_equal(read, part)
    with Image.open(io.BytesIO(thumbnail(file))) as small:
        assert small.size == expected.shape[1::-1]
    looks = shrink(Image.fromarray(gray[..., 0]))
    assert np.abs(gray_thumbnail(str(file)).astype(int) - looks).max() <= 2


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_stored_pixels_if_the_orientation_is_ignored(tmp_path: Path, ending: str) -> None:
    file = turned(tmp_path / f"a.{ending}", 6)
    with Image.open(file) as image:
        stored = pixels(1, 21, 34) if ending == "tif" else np.asarray(image)
    reading = "exif=ignore"
    header = read_header(str(file), reading)
    assert (header.height, header.width) == (21, 34)
    assert header.orientation == 6
    np.testing.assert_array_equal(read_image(file, None, reading), stored)
    np.testing.assert_array_equal(in_graph(file, 3, reading), stored)
    tile = "2,5,20,10"
    np.testing.assert_array_equal(in_graph(file, 3, reading, tile), stored[5:15, 2:22])
    if ending == "jpg":
        assert header.decoder == Decoder.RASTER


def test_jpegs_are_turned_in_the_graph() -> None:
    assert {Decoder[f"TURNED_{o}"] for o in range(2, 9)} == set(range(12, 19))


def test_upright_and_turned_images_in_one_batch_and_in_shards(tmp_path: Path) -> None:
    landscape, portrait = pixels(1, 21, 34), pixels(2, 34, 21)
    turned(tmp_path / "a.jpg", 1, portrait)
    turned(tmp_path / "b.jpg", 6, landscape)
    turned(tmp_path / "c.jpg", 8, landscape)
    turned(tmp_path / "d.png", 5, landscape)
    write(tmp_path / "e.png", portrait)
    names = [f"{name}.jpg" for name in "abc"] + ["d.png", "e.png"]
    manifest = Manifest(tuple(Record(name) for name in names), str(tmp_path))
    write_shards(manifest, tmp_path / "shards", num_shards=1)
    expected = [upright(tmp_path / name) for name in names]
    for source in (ManifestSource(manifest, cache="false"), TFRecordSource(tmp_path / "shards")):
        elements = source.elements(seed=0, shuffle=False, start=0, batch_size=5)
        batch = elements.map(source.decode).batch(5).get_single_element().numpy()
        np.testing.assert_array_equal(batch, expected)


def moved_behind_the_data(content: bytes) -> bytes:
    """A PNG whose eXIf chunk comes after the image data."""
    chunks, position = [], 8
    while position < len(content):
        (length,) = struct.unpack_from(">I", content, position)
        chunks.append(content[position : position + length + 12])
        position += length + 12
    (exif,) = [chunk for chunk in chunks if chunk[4:8] == b"eXIf"]
    chunks.remove(exif)
    return content[:8] + b"".join([*chunks[:-1], exif, chunks[-1]])


@pytest.mark.parametrize("size", [(12, 16), (300, 400)])
def test_exif_of_a_png_may_come_last(tmp_path: Path, size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = turned(tmp_path / "a.png", 8, noise)
    file.write_bytes(moved_behind_the_data(file.read_bytes()))
    np.testing.assert_array_equal(read_image(file), np.rot90(noise))
    assert read_header(str(file)).orientation == 8


@pytest.mark.parametrize("kind", ["<HHIH", "<HHII", ">HHIH"])
def test_orientation_is_found_among_other_tags(kind: str) -> None:
    order, short = kind[0], kind[-1] == "H"
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "I", 8)
    other = struct.pack(order + "HHII", 271, 2, 4, 0x41424344)
    value = struct.pack(order + ("HH" if short else "I"), *((3, 0) if short else (3,)))
    entry = struct.pack(order + "HHI", 274, 3 if short else 4, 1) + value
    block = head + struct.pack(order + "H", 2) + other + entry
    assert exif_orientation(block) == 3
    for cut in range(len(block) - 4):
        assert exif_orientation(block[:cut]) in (1, 3)
    assert exif_orientation(b"text") == 1
    assert exif_orientation(block[:-4] + struct.pack(order + "HH", 0, 0)) == 1


def test_check_counts_turned_images(tmp_path: Path) -> None:
    for number in range(3):
        turned(tmp_path / f"{number}.jpg", 6 if number else 1, pixels(number, 60, 80))
    names = [f"{number}.jpg" for number in range(3)]
    for reading, said in (("", "turned upright"), ("exif=ignore", "2 of them are read as stored")):
        records = tuple(Record(name, reading=reading) for name in names)
        found = {f.kind: f for f in check(Manifest(records, str(tmp_path))).findings}["turned"]
        assert (found.severity, found.count) == ("note", 2)
        assert found.title == "2 images with an orientation noted in the file"
        assert found.examples == ("1.jpg: 6", "2.jpg: 6")
        assert said in found.text
