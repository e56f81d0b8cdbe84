import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from data_prep.errors import UserError
from data_prep.reading.thumbnails import blank, thumbnail


def pixels(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "JPEG"
        return np.asarray(image).astype(float)


def test_large_images_shrink_and_keep_their_shape(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((300, 900, 3), np.uint8)).save(tmp_path / "a.png")
    assert pixels(thumbnail(tmp_path / "a.png")).shape == (80, 240, 3)
    Image.fromarray(np.zeros((10, 20), np.uint8)).save(tmp_path / "b.png")
    assert pixels(thumbnail(tmp_path / "b.png")).shape == (10, 20)


def test_sixteen_bit_images_are_stretched_until_they_can_be_seen(tmp_path: Path) -> None:
    ramp = np.linspace(1000, 1400, 64 * 64).reshape(64, 64).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", ramp)
    shown = pixels(thumbnail(tmp_path / "a.tif"))
    assert shown.min() < 10
    assert shown.max() > 245
    assert np.corrcoef(shown.ravel(), ramp.ravel())[0, 1] > 0.99


def test_eight_bit_images_are_shown_as_they_are(tmp_path: Path) -> None:
    Image.fromarray(np.full((32, 32), 60, np.uint8)).save(tmp_path / "a.png")
    assert pixels(thumbnail(tmp_path / "a.png")).mean() == pytest.approx(60, abs=2)


@pytest.mark.parametrize(("bands", "shape"), [(2, (16, 16)), (5, (16, 16, 3))])
def test_images_of_many_bands_have_a_picture(
    tmp_path: Path, bands: int, shape: tuple[int, ...]
) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (16, 16, bands)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, planarconfig="contig", photometric="minisblack")
    assert pixels(thumbnail(tmp_path / "a.tif", reading="extra=band")).shape == shape


def test_constant_images_do_not_break_the_stretch(tmp_path: Path) -> None:
    values = np.zeros((64, 64), np.uint16)
    values[0, 0] = 60000
    tifffile.imwrite(tmp_path / "a.tif", values)
    assert pixels(thumbnail(tmp_path / "a.tif")).mean() < 10


def test_a_tile_is_cut_out(tmp_path: Path) -> None:
    image = np.zeros((40, 60), np.uint8)
    image[10:20, 30:50] = 255
    Image.fromarray(image).save(tmp_path / "a.png")
    shown = pixels(thumbnail(tmp_path / "a.png", "30,10,20,10"))
    assert shown.shape == (10, 20)
    assert shown.min() > 250
    with pytest.raises(UserError, match="does not lie in the picture"):
        thumbnail(tmp_path / "a.png", "100,0,5,5")


def test_unreadable_files_are_refused_and_have_a_stand_in(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"a\.png"):
        thumbnail(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"gone\.png"):
        thumbnail(tmp_path / "gone.png")
    assert pixels(blank(30)).shape == (30, 30)


def test_the_manifest_says_how_a_file_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.stack([np.zeros((8, 9)), np.eye(8, 9)]).astype(np.float32))
    shown = pixels(thumbnail(tmp_path / "a.npy", reading="page=1;axes=NHW"))
    assert shown.shape == (8, 9)
    assert shown[3, 3] > 200
    assert shown[0, 8] < 60
