from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.storage import check_new_png
from data_prep.synthetic.contact_sheet import write_sheet
from data_prep.synthetic.kinds import KINDS
from data_prep.synthetic.write import write_set


def draw(folder: Path, name: str, count: int = 3, **changes: object) -> np.ndarray:
    manifest = write_set(name, folder / "set", images_per_class=count, seed=0, **changes)  # type: ignore[arg-type]
    write_sheet(folder / "deep" / "sheet.png", KINDS[name], manifest)
    assert [file.name for file in (folder / "deep").iterdir()] == ["sheet.png"]
    assert (folder / "deep" / "sheet.png").stat().st_size < 150_000
    with Image.open(folder / "deep" / "sheet.png") as image:
        return np.asarray(image.convert("RGB"), float)


@pytest.mark.parametrize("name", list(KINDS))
def test_every_class_is_a_labeled_row(tmp_path: Path, name: str) -> None:
    sheet = draw(tmp_path, name, 2, image_size=(32, 32))
    white = (sheet > 250).all(axis=2)
    assert white[:, :2].all()  # no label is cut off
    rows = np.nonzero(np.diff((~white[:, -12:]).any(axis=1).astype(int)) == 1)[0]
    assert len(rows) >= len(KINDS[name].classes) - 1


def test_the_pictures_are_those_of_the_set(tmp_path: Path) -> None:
    sheet = draw(tmp_path, "core", 1, classes=["none"], image_size=(80, 80))
    with Image.open(tmp_path / "set" / "none" / "none_00000.png") as image:
        mean = np.asarray(image, float).mean(axis=(0, 1))
    picture = sheet[10:-10, -60:-20]
    np.testing.assert_allclose(picture.mean(axis=(0, 1)), mean, atol=12)


def test_floating_point_images_with_nan_are_shown(tmp_path: Path) -> None:
    lens = KINDS["lensing"].parameters(nan_border=(0.1, 0.1))  # type: ignore[call-arg]
    sheet = draw(tmp_path, "lensing", 2, parameters=lens, file_format="npy", image_size=(40, 40))
    assert np.isfinite(sheet).all()
    assert sheet.std() > 20


def test_an_existing_sheet_and_another_ending_are_refused(tmp_path: Path) -> None:
    there = tmp_path / "sheet.png"
    there.write_text("mine")
    with pytest.raises(UserError, match="is there already"):
        check_new_png(there, "sheet")
    with pytest.raises(UserError, match=r"must end in \.png"):
        check_new_png(tmp_path / "sheet.jpg", "sheet")
