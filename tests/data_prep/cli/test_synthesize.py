from pathlib import Path

import pytest
from PIL import Image

from data_prep.cli import synthesize
from data_prep.manifest.manifest import Manifest
from data_prep.synthetic.kinds import KINDS


def run(*arguments: str) -> int:
    return synthesize.main(arguments)


@pytest.mark.parametrize(
    ("kind", "flags", "mode", "size"),
    [
        ("lensing", ["--image_size=32", "--shear=0"], "L", (32, 32)),
        ("rheed", ["--image_size=24x40", "--format=png16"], "I;16", (40, 24)),
        ("sem_depth", [], "L", (48, 72)),
        ("core", ["--image_size=20", "--cracks=2"], "RGB", (20, 20)),
    ],
)
def test_every_kind_is_written(
    tmp_path: Path, kind: str, flags: list[str], mode: str, size: tuple[int, int]
) -> None:
    out = tmp_path / "set"
    assert run(f"--kind={kind}", f"--output={out}", "--images_per_class=1", *flags) == 0
    manifest = Manifest.load(out / "manifest.csv")
    assert set(manifest.class_names) == set(KINDS[kind].classes)
    for file in manifest.files():
        with Image.open(file) as image:
            assert (image.mode, image.size) == (mode, size)


def test_a_sheet_is_drawn_beside_the_set_and_never_over_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--images_per_class=2", "--image_size=16", f"--sheet={tmp_path / 'sheet.png'}"]
    assert run(f"--output={tmp_path / 'a'}", *flags) == 0
    drawn = (tmp_path / "sheet.png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    capsys.readouterr()
    assert run(f"--output={tmp_path / 'b'}", *flags) == 1
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "sheet.png").read_bytes() == drawn
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--kind=rheed", "--noise=0.1"], "--noise belongs to --kind=lattice, not to rheed"),
        (["--kind=core", "--format=npy"], "core can be written as png"),
        (["--kind=lensing", "--image_size=32x40"], "lensing images are square"),
        (["--kind=lensing", "--nan_border=0.1"], "add --format=npy"),
        (["--kind=sem_depth", "--classes=case_9"], "no sem_depth class 'case_9'"),
        (["--image_size=big"], "--image_size=big: must be a whole number, or HEIGHTxWIDTH"),
        (["--image_size=1x2x3"], "must be a whole number, or HEIGHTxWIDTH"),
        (["--kind=core", "--dip=10,5"], "dip=10,5: must be two numbers, the smaller first"),
    ],
)
def test_wrong_requests_end_with_one_line_and_no_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], said: str
) -> None:
    assert run(f"--output={tmp_path / 'set'}", "--images_per_class=1", *flags) == 1
    errors = capsys.readouterr().err
    assert said in errors
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_help_lists_the_settings_of_every_kind_under_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--helpfull") == 0
    text = capsys.readouterr().out
    for kind in KINDS.values():
        sections = [part for part in text.split("\n\n") if part.startswith(f"--kind={kind.name}: ")]
        for setting in kind.parameters.meanings():
            assert any(f"--{setting}=" in section for section in sections)
