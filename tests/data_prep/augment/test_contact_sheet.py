from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.augment.contact_sheet import SheetRow, showable, tiled, write_sheet
from data_prep.errors import UserError
from data_prep.storage import check_new_png
from tests.data_prep.augment.common import noise


def test_tiles_lie_in_their_places_with_a_white_gap() -> None:
    images = noise(1, (3, 2, 5, 5, 3), np.float32)
    picture = tiled(images)
    assert picture.shape == (12, 19, 3)
    for column in range(3):
        for row in range(2):
            part = picture[7 * row : 7 * row + 5, 7 * column : 7 * column + 5]
            np.testing.assert_array_equal(part, np.floor(images[column, row] * 255 + 0.5))
    assert (picture[5:7] == 255).all()
    assert (picture[:, 5:7] == 255).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_channels_can_be_shown(channels: int) -> None:
    image = noise(2, (4, 6, channels))
    shown = showable(image)
    assert shown.shape == (4, 6, 3)
    expected = image[..., :3] if channels >= 3 else np.repeat(image[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(shown, expected)
    np.testing.assert_array_equal(showable(image / np.float32(255)), expected)


RED, BLUE = (200, 30, 60), (10, 60, 220)  # colours that no letter has


def color(value: tuple[int, int, int], width: int) -> np.ndarray:
    return np.full((8, width, 3), value, np.uint8)


ROWS = [
    SheetRow(("a_class", "file_$one$.png"), [color(RED, 8)] * 3),
    SheetRow(("b", "a_very_long_name_of_a_file_000001.png"), [color(BLUE, 16)] * 3),
]


def drawn(path: Path) -> np.ndarray:
    write_sheet(path, "Title", ["image", "one", "two"], ROWS)
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def test_the_same_images_give_the_same_png(tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "a.png")
    drawn(tmp_path / "deep" / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "deep" / "b.png").read_bytes()
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["a.png", "b.png"]
    for value in (RED, BLUE):
        columns = np.flatnonzero((pixels == value).all(axis=2).any(axis=0))
        assert (np.diff(columns) > 1).sum() == 2  # three images side by side


def test_names_do_not_touch_the_images(tmp_path: Path) -> None:
    pixels = drawn(tmp_path / "a.png")
    shown = (pixels == RED).all(axis=2) | (pixels == BLUE).all(axis=2)
    rows, columns = np.nonzero(shown)
    ink = (pixels < 128).all(axis=2)
    beside = np.flatnonzero(ink[rows.min() :, : columns.min()].any(axis=0))
    assert beside.min() > 3
    assert columns.min() - beside.max() > 3
    above = np.flatnonzero(ink[: rows.min(), columns.min() :].any(axis=1))
    assert rows.min() - above.max() > 3
    assert not ink[rows.min() :, columns.min() :].any()


@pytest.mark.parametrize("name", ["a.jpg", "there.png"])
def test_a_sheet_is_never_written_over_anything(tmp_path: Path, name: str) -> None:
    (tmp_path / "there.png").touch()
    with pytest.raises(UserError, match=r"must end in \.png|is there already"):
        check_new_png(tmp_path / name, "preview")
