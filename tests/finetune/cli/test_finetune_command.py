"""The command line: help, one-line errors, a process that is killed and goes on."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from finetune.cli.finetune import main
from simclr_tf.training.callbacks import read_metrics
from tests.finetune.runs import RESNET, write_encoder
from tests.images import make_folder, make_split_folder


def command(*arguments: str) -> int:
    return main(arguments)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("encoder") / "encoder.keras", **RESNET)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"), train=7)


def test_help_comes_without_tensorflow(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from finetune.cli.finetune import main; sys.argv = ['x', '--helpfull'];"
        "main(); assert 'tensorflow' not in sys.modules"
    )
    began = time.perf_counter()
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert time.perf_counter() - began < 10
    for flag in ("--encoder", "--[no]head_only", "--layer_decay", "--preset", "--focal_gamma"):
        assert flag in shown.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--encoder is missing"),
        (["--encoder=nowhere"], "--encoder=nowhere: no such checkpoint"),
        (["--encoder=E"], "--output is missing"),
        (["--encoder=E", "--output=O"], "give --image_dir=FOLDER or --manifest=FILE"),
        (["--encoder=E", "--output=O", "--image_dir=I", "--ft_proj_selector=4"], "3 layers"),
        (["--encoder=E", "--output=O", "--image_dir=ONE"], "two classes or more"),
        (["--encoder=E", "--output=O", "--image_dir=I", "--positive=dots"], "for two classes"),
        (
            ["--encoder=E", "--output=O", "--image_dir=I", "--cache_features=true"],
            "add --head_only",
        ),
        (["--encoder=E", "--output=O", "--image_dir=I", "--preset=him"], "him003"),
    ],
)
def test_wrong_input_ends_in_one_line_and_writes_nothing(
    arguments: list[str],
    message: str,
    encoder: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_folder(tmp_path / "one", per_class=20, size=8, classes=("checks",))
    names = {"E": encoder, "O": tmp_path / "out", "I": images, "ONE": tmp_path / "one"}
    given = []
    for text in arguments:
        flag, _, value = text.partition("=")
        given.append(f"{flag}={names.get(value, value)}")
    assert command(*given) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("simclr-finetune: error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_killed_process_goes_on_and_ends_as_if_it_had_not_been(
    encoder: Path, images: Path, tmp_path: Path
) -> None:
    flags = [
        "--head_only", "--dropout=0.2", "--train_batch_size=4", "--train_epochs=25",
        "--precision=float32", "--bootstrap=100", "--early_stopping_patience=20",
        "--keep_checkpoint_max=1", f"--encoder={encoder}", f"--image_dir={images}",
    ]  # fmt: skip
    output = tmp_path / "killed"
    arguments = [*flags, f"--output={output}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "finetune.cli.finetune", *arguments], stderr=subprocess.DEVNULL
    )
    limit = time.monotonic() + 120
    while len(list(output.glob("best/*.index"))) == 0 and time.monotonic() < limit:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert list(output.glob("ckpt-*.index"))
    assert not (output / "report.html").exists()
    assert command(*arguments) == 0
    assert command(*flags, f"--output={tmp_path / 'straight'}") == 0
    losses = [read_metrics(p / "metrics.csv")["total_loss"] for p in
              (output, tmp_path / "straight")]  # fmt: skip
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    for name in ("validation.csv", "predictions.csv"):
        assert (output / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    # What the run has noted of itself repeats it.
    again = tmp_path / "again"
    replayed = [f"--flagfile={output / 'flags.txt'}", f"--output={again}"]
    assert command(*replayed) == 0
    assert (again / "predictions.csv").read_bytes() == (output / "predictions.csv").read_bytes()
