import subprocess
import sys
import time

import pytest

from finetune.cli import transfer
from tests.images import make_folder


def command(*arguments: str) -> int:
    return transfer.main(arguments)


def test_help_lists_the_flags_without_tensorflow() -> None:
    code = (
        "import sys; from finetune.cli import transfer; sys.argv = ['x', '--helpfull'];"
        "assert transfer.main() == 0; assert 'tensorflow' not in sys.modules"
    )
    began = time.monotonic()
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert time.monotonic() - began < 20  # a second on an idle machine
    for flag in ("--backbone", "--weights", "--cut_layer", "--pooling", "--[no]horizontal_flip",
                 "--rotation_range", "--unfreeze_after", "--grad_cam", "--preset"):  # fmt: skip
        assert flag in shown


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--preset=vgg",), "--preset=vgg: there are vgg16_generator"),
        (("--rescale=0.004",), "rescale and a preprocess_input would scale the images twice"),
        ((), "--output is missing"),
        (("--output=run", "--weights=none"), "give --image_dir=FOLDER or --manifest=FILE"),
        (("--output=run", "--weights=none", "--image_dir=images", "--backbone=resnet5"),
         "--backbone=resnet5: is no network of keras.applications; did you mean resnet50"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_writes_nothing(
    tmp_path, monkeypatch, capsys, flags: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "images", 8, 16)
    assert command(*flags) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("simclr-transfer: error: ")
    assert message in last
    assert not (tmp_path / "run").exists()
