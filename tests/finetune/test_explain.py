"""Which images the pictures of a report show."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from finetune.explain import choose_images


@pytest.fixture
def data() -> Any:
    pages = (Record("a/s.npy", "a", reading=f"page={page};axes=NHW") for page in range(3))
    return SimpleNamespace(manifest=Manifest((*pages, Record("b/alone.png", "b")), "/data"))


@pytest.mark.parametrize(
    ("asked", "chosen"),
    [
        ("a/s.npy", ["a/s.npy, page 0", "a/s.npy, page 1", "a/s.npy, page 2"]),
        ("a/s.npy:1", ["a/s.npy, page 1"]),
        ("/data/a/s.npy:2, b/alone.png", ["a/s.npy, page 2", "b/alone.png"]),
    ],
)
def test_a_file_stands_for_its_images(data: Any, asked: str, chosen: list[str]) -> None:
    assert [r.name for r in choose_images(asked, data, "grad_cam").records] == chosen


def test_other_image_files_are_taken_and_unknown_ones_refused(data: Any, tmp_path: Path) -> None:
    (tmp_path / "new.png").write_bytes(b"")
    (record,) = choose_images(str(tmp_path / "new.png"), data, "grad_cam").records
    assert record == Record(str(tmp_path / "new.png"))
    with pytest.raises(UserError, match=r"--grad_cam: there is no image a/s\.npy:7"):
        choose_images("a/s.npy:7", data, "grad_cam")
