from pathlib import Path

import numpy as np
import pytest

from data_prep.augment.copies import encode_like, kept_reading
from data_prep.reading.images import read_image, read_stored
from tests.data_prep.augment.common import noise
from tests.data_prep.image_files import write, write_tiff


def round_trip(folder: Path, source: Path, reading: str = "") -> tuple[Path, str, np.ndarray]:
    """The file and reading of an image written again as it is, and what it then holds."""
    pixels = read_stored(str(source), reading)
    ending, content = encode_like(pixels, str(source), reading)
    assert (ending, content) == encode_like(pixels, str(source), reading)
    path = folder / f"again{ending}"
    path.write_bytes(content)
    kept = kept_reading(reading, path.name)
    again = read_stored(str(path), kept)
    assert again.dtype == pixels.dtype
    np.testing.assert_array_equal(again, pixels)
    return path, kept, again


@pytest.mark.parametrize(
    ("name", "kind", "channels", "ending"),
    [
        ("a.png", "uint8", 1, ".png"),
        ("a.bmp", "uint8", 3, ".png"),
        ("a.jpg", "uint8", 3, ".png"),
        ("a.png", "uint16", 1, ".png"),
        ("a.tif", "uint8", 3, ".png"),
        ("a.tif", "uint16", 1, ".png"),
        ("a.tif", "uint16", 3, ".tif"),
        ("a.tif", "uint8", 5, ".tif"),
        ("a.tif", "uint16", 2, ".tif"),
        ("a.tif", "float32", 1, ".tif"),
        ("a.tif", "float64", 4, ".tif"),
    ],
)
def test_pictures_come_back_bit_for_bit(
    tmp_path: Path, name: str, kind: str, channels: int, ending: str
) -> None:
    values = noise(1, (7, 9, channels)).astype(kind)
    values = values * kind_factor(kind)
    if channels == 1:
        values = values[..., 0]
    source = tmp_path / name
    if name.endswith("tif"):
        options = (
            {} if values.ndim == 2 else {"photometric": "minisblack", "planarconfig": "contig"}
        )
        write_tiff(source, values, **options)
    else:
        write(source, values)
    reading = "extra=band" if channels == 2 else ""
    path, kept, again = round_trip(tmp_path, source, reading)
    assert path.suffix == ending
    assert kept == reading
    assert again.shape == (7, 9, channels)
    if kind != "float64":
        again, original = (read_image(file, None, reading) for file in (path, source))
        np.testing.assert_array_equal(again, original)


def kind_factor(kind: str) -> np.generic:
    factor = {"uint8": 1, "uint16": 257}.get(kind, 1 / 255)
    return np.dtype(kind).type(factor)


@pytest.mark.parametrize(
    ("kind", "shape", "reading", "kept", "ending"),
    [
        ("uint8", (7, 9), "", "", ".png"),
        ("float32", (7, 9), "intensity=minmax", "intensity=minmax", ".npy"),
        ("float64", (7, 9, 2), "axes=HWC;nan=min", "axes=HWC;nan=min", ".npy"),
        ("int16", (4, 7, 9), "axes=CHW;intensity=sqrt", "axes=CHW;intensity=sqrt(0,100)", ".npy"),
        ("float32", (3, 7, 9), "page=2;axes=NHW;intensity=minmax", "intensity=minmax", ".npy"),
        ("float32", (3, 7, 9), "page=stack;axes=NHW", "axes=CHW", ".npy"),
        ("uint16", (3, 7, 9, 4), "page=0;axes=NHWC", "axes=HWC", ".npy"),
        ("bool", (7, 9), "", "", ".npy"),
    ],
)
def test_arrays_come_back_with_their_axes(
    tmp_path: Path, kind: str, shape: tuple[int, ...], reading: str, kept: str, ending: str
) -> None:
    values = (noise(2, shape).astype(np.float64) / 255 * (1 if kind[0] == "f" else 200)).astype(
        kind
    )
    np.save(tmp_path / "a.npy", values)
    path, found, _ = round_trip(tmp_path, tmp_path / "a.npy", reading)
    assert (path.suffix, found) == (ending, kept)


def test_black_and_white_pictures_become_eight_bits(tmp_path: Path) -> None:
    source = write_tiff(tmp_path / "a.tif", noise(3, (7, 9)) > 127)
    ending, content = encode_like(read_stored(str(source)), source.name)
    path = tmp_path / f"b{ending}"
    path.write_bytes(content)
    expected = read_image(str(source))
    assert set(np.unique(expected)) == {0, 255}
    np.testing.assert_array_equal(read_image(str(path)), expected)
