"""The command as people start it: in processes of their own, killed, spread, and misused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from simclr_tf.cli.embed import main
from tests.finetune.runs import RESNET, write_encoder
from tests.images import make_folder

QUICK = ["--bootstrap=20", "--noexplore", "--eval_batch_size=4", "--shard_images=4"]


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "simclr_tf.cli.embed", *QUICK, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    return output


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An encoder and 120 images, as flags."""
    folder = tmp_path_factory.mktemp("given")
    images = make_folder(folder / "images", per_class=40)
    return [
        f"--encoder={write_encoder(folder / 'encoder.keras', **RESNET)}",
        f"--image_dir={images}",
    ]


@pytest.mark.slow
def test_a_killed_command_goes_on_and_comes_to_the_same_bytes(
    given: list[str], tmp_path: Path
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(*given, f"--output={whole}")
    output = finish(process)
    assert process.returncode == 0, output

    process = start(*given, f"--output={killed}")
    shards = tmp_path / ".killed.partial" / "shards"
    while len(list(shards.glob("*.json"))) < 3:
        assert process.poll() is None, finish(process)
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    finish(process)
    done = {file: file.stat().st_mtime_ns for file in shards.glob("*.json")}
    assert not killed.exists(), "killed before the end"
    assert len(done) < 30

    # Two workers, the second of which has nothing to do but to wait for the first.
    process = start(*given, f"--output={killed}", "--worker=1", "--num_workers=2")
    output = finish(process)
    assert process.returncode == 0, output
    assert "going on where an earlier call has left off" in output
    assert "still to come from other workers" in output
    assert {file: file.stat().st_mtime_ns for file in done} == done, "computed once"
    process = start(*given, f"--output={killed}", "--worker=0", "--num_workers=2")
    output = finish(process)
    assert process.returncode == 0, output
    assert sorted(os.listdir(killed)) == sorted(os.listdir(whole))
    for file in whole.iterdir():
        assert (killed / file.name).read_bytes() == file.read_bytes(), file.name
    assert [name for name in os.listdir(tmp_path) if name.startswith(".")] == []

    # Given again, as after a kill between the last two steps.
    (tmp_path / ".whole.partial").mkdir()
    process = start(*given, f"--output={whole}")
    output = finish(process)
    assert process.returncode == 0, output
    assert "whole is complete" in output
    assert not (tmp_path / ".whole.partial").exists()
    process = start(*given, f"--output={whole}", "--clusters=3")
    assert "looks at them in another way" in finish(process)
    assert process.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 1, "--output is missing"),
        (["--output=OUT"], 1, "--encoder is missing"),
        (["--output=OUT", "--encoder=x.keras"], 1, "give either --image_dir"),
        (["--output=OUT", "--encoder=x.keras", "--image_dir=y"], 1, "x.keras: no such file"),
        (["--output=OUT", "--worker=2", "--num_workers=2"], 1, "numbered from 0 to 1"),
        (["--formats=csv"], 1, "--formats: 'csv' is none of npz, parquet"),
        (["--projections=pca,lda"], 1, "--projections: 'lda' is none of"),
        (["--embedding=NOWHERE"], 1, "holds no embedding"),
        (["--embedding=NOWHERE", "--encoder=x"], 1, "--encoder: not with --embedding"),
        (
            ["--output=OUT", "--image_dir=x", "--encoder=none/ckpt-1"],
            1,
            "--encoder=none/ckpt-1: no such checkpoint",
        ),
        (["--output=OUT", "--compare=a"], 1, "give two folders or more"),
        (["--output=OUT", "--compare=a,b"], 1, "--compare=a: no such folder"),
        (["--normalise"], 2, "did you mean --normalize?"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    given = [argument.replace("OUT", str(tmp_path / "out")) for argument in arguments]
    assert main(given) == code
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]
    assert not (tmp_path / "out").exists()
