"""The command as people start it: everything checked first, stopped, gone on with, compared."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from data_prep.manifest.manifest import Manifest
from simclr_tf.cli.sweep import main
from simclr_tf.evaluation.features import Embeddings
from simclr_tf.evaluation.neighbors import knn_predict
from simclr_tf.training.callbacks import read_metrics
from tests import tiny
from tests.images import make_folder

TINY = [
    "--image_size=32", f"--backbone={tiny.NAME}", "--train_batch_size=8",
    "--eval_batch_size=16", "--warmup_epochs=0", "--precision=float32", "--nohealth_watch",
    "--train_steps=80", "--checkpoint_steps=20", "--split_ratios=train:0.6,validation:0.4",
]  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("images"), per_class=12)


@pytest.mark.parametrize(
    ("own", "common", "code", "said"),
    [
        ([], [], 1, "nothing is varied"),
        (["--vary=metod=byol"], [], 1, "did you mean --method? (run metod=byol)"),
        (["--vary=method=simclr,boyl"], [], 1, "did you mean byol? (run method=boyl)"),
        (["--vary=method=byol"], ["--train_steps=x"], 1, "--train_steps=x: must be an integer"),
        (["--vary=temperature=0.1,0"], [], 1, "--temperature=0.0: must be at least"),
        (
            ["--vary=method=simclr,moco"],
            ["--queue_size=4"],
            1,
            "--queue_size=4: must hold at least",
        ),
        (["--vary=color_jitter_strength=1,1.3"], [], 1, "must be at most 1.25"),
        (["--vary=model_dir=a,b"], [], 1, "--model_dir cannot be varied"),
        (["--vary=split_seed=0,1"], [], 1, "--split_seed cannot be varied"),
        (["--vary=seed=0,1"], ["--train_mode=finetune"], 1, "a sweep compares runs of pretraining"),
        (["--vary=seed=0,1"], ["--eval_split=tset"], 1, "--eval_split=tset: the data has only"),
        (["--vary=seed=0,1"], ["--num_of_classes=7"], 1, "--num_of_classes=7: the data has 3"),
        (["--vary=seed=0,1"], ["--checkpoint=none/ckpt-1"], 1, "no such checkpoint"),
        (["--vary=seed=0,1", "--pinned=nowhere.png"], [], 1, "--pinned=nowhere.png: fits 0 of"),
        (["--vary=seed=0,1", "--parallel=0"], [], 2, "--parallel=0"),
        (["--vary=seed=0,1", "--image_dir=nowhere"], [], 1, "image folder not found"),
    ],
)
def test_whatever_is_wrong_is_said_in_one_line_before_anything_begins(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], own: list[str],
    common: list[str], code: int, said: str,
) -> None:  # fmt: skip
    output = tmp_path / "sweep"
    given = [f"--image_dir={images}", f"--output={output}", *own, "--", *TINY, *common]
    assert main(given) == code
    errors = capfd.readouterr().err.splitlines()
    assert errors[-1].startswith("simclr-sweep: error: ")
    assert said in errors[-1]
    assert sum("error:" in line for line in errors) == 1
    assert not output.exists()


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "simclr_tf.cli.sweep", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "SIMCLR_TF_EXTENSIONS": tiny.__name__,
        },
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_sweep_that_is_stopped_goes_on_and_ends_in_its_tables(
    images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "sweep"
    # In bfloat16, in which neighbours are others than in float32.
    # The second run fails when it starts, which no check can know: its batch is no multiple.
    table = tmp_path / "grid.csv"
    table.write_text("method,num_cpu_devices,train_batch_size\nbyol,,\nsimclr,3,10\n")
    command = [
        f"--image_dir={images}",
        f"--output={output}",
        f"--grid={table}",
        "--",
        *TINY,
        "--precision=bfloat16",
    ]
    names = ["method=byol", "method=simclr,num_cpu_devices=3,train_batch_size=10"]
    process = start(*command)
    metrics = output / "runs" / names[0] / "metrics.csv"
    while not (metrics.exists() and len(metrics.read_text().splitlines()) > 2):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "method=byol is stopped; the same command goes on with it" in said
    assert not (output / "sweep.csv").exists()
    assert not (output / "runs" / names[1]).exists()
    reached = max(int(p.stem[5:]) for p in metrics.parent.glob("ckpt-*.index"))
    assert 0 < reached < 80

    process = start(*command)
    printed, said = process.communicate(timeout=600)
    assert process.returncode == 1, said
    assert f"going on from ckpt-{reached}" in (output / "logs" / f"{names[0]}.log").read_text()
    assert f"{names[1]} failed with exit code 1: simclr-run: error: --train_batch_size=10" in said
    assert "method=byol" in printed

    rows = rows_of(output / "sweep.csv")
    assert [row["run"] for row in rows] == ["untrained", *names]
    assert [row["finished"] for row in rows] == ["true", "true", "false"]
    manifest = (output / "manifest.csv").read_text()
    for row in rows[:2]:
        run = output / "runs" / row["run"]
        result = json.loads((run / "result.json").read_text())
        for name in ("knn_accuracy", "knn_accuracy_low", "linear_probe_accuracy_high"):
            assert float(row[name]) == result[f"validation/{name}"]
        assert (
            int(row["steps"])
            == result["global_step"]
            == len(read_metrics(run / "metrics.csv")["step"])
        )
        assert (
            Manifest.load(run / "manifest.csv").sha256()
            == Manifest.load(output / "manifest.csv").sha256()
        )
        train, held_out = (
            Embeddings.load(output / "features" / f"{row['run']}.{part}.npz")
            for part in ("train", "held_out")
        )
        predicted = knn_predict(train.features, train.labels, held_out.features, k=10)
        assert np.mean(predicted == held_out.labels) == pytest.approx(float(row["knn_accuracy"]))
    floor = json.loads((output / "runs" / "untrained" / "result.json").read_text())
    moved = {name for name, part in floor["blocks"].items() if part["moved"]}
    page = (output / "index.html").read_text()
    assert "Not finished, and not below" in page
    assert 'href="comparison.html"' in page
    assert "untrained" in (output / "comparison.html").read_text()
    assert "method=byol" in page
    assert manifest == (output / "manifest.csv").read_text()
    assert moved, "statistics move"
    weights = read_metrics(output / "runs" / "untrained" / "metrics.csv")["learning_rate"]
    assert not weights.any()
