"""The command as people start it: in processes of their own, killed, spread, and misused."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from simclr_tf.cli.run import main
from simclr_tf.training.callbacks import read_metrics
from tests import tiny
from tests.images import make_folder, make_split_folder

TINY = [
    "--image_size=32", f"--backbone={tiny.NAME}", "--train_batch_size=8",
    "--eval_batch_size=8", "--warmup_epochs=0", "--precision=float32", "--nohealth_watch",
]  # fmt: skip


def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "simclr_tf.cli.run", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "SIMCLR_TF_EXTENSIONS": tiny.__name__,
            **environment,
        },
    )


def finish(process: subprocess.Popen[str], timeout: float = 300) -> str:
    output, _ = process.communicate(timeout=timeout)
    return output


def losses(run: Path) -> np.ndarray:
    return read_metrics(run / "metrics.csv")["total_loss"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"))


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_losses_of_an_uninterrupted_one(
    images: Path, tmp_path: Path
) -> None:
    steps = ["--train_steps=40", "--checkpoint_steps=4", f"--image_dir={images}"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(*TINY, *steps, f"--model_dir={whole}")
    output = finish(process)
    assert process.returncode == 0, output

    process = start(*TINY, *steps, f"--model_dir={killed}")
    metrics = killed / "metrics.csv"
    while len(list(killed.glob("ckpt-*.index"))) < 2:  # the first of two is whole
        assert process.poll() is None, finish(process)
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert not (killed / "ckpt-40.index").exists(), "killed before the end"

    process = start(*TINY, *steps, f"--model_dir={killed}")
    output = finish(process)
    assert process.returncode == 0, output
    assert "going on from ckpt-" in output
    assert list(read_metrics(metrics)["step"]) == list(range(1, 41))
    np.testing.assert_allclose(losses(killed), losses(whole), rtol=1e-6)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@pytest.mark.slow
def test_two_workers_get_the_losses_of_one_process(images: Path, tmp_path: Path) -> None:
    steps = ["--train_steps=4", "--checkpoint_steps=2", f"--image_dir={images}"]
    evaluate = ["--mode=train_then_eval"]
    alone, together = tmp_path / "alone", tmp_path / "together"
    process = start(*TINY, *steps, *evaluate, f"--model_dir={alone}")
    output = finish(process)
    assert process.returncode == 0, output

    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    workers = [
        start(
            *TINY,
            *steps,
            *evaluate,
            f"--model_dir={together}",
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}}),
        )
        for i in range(2)
    ]
    outputs = [finish(worker) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(outputs)[-3000:]
    assert "2 worker(s)" in outputs[0]
    # Same images in the same global batches: equal but for the order of float32 sums.
    np.testing.assert_allclose(losses(together)[:2], losses(alone)[:2], rtol=1e-4)
    np.testing.assert_allclose(losses(together), losses(alone), rtol=2e-2)
    results = [json.loads((run / "result.json").read_text()) for run in (alone, together)]
    assert results[1]["num_eval_examples"] == results[0]["num_eval_examples"] == 12
    assert (together / "encoder.keras").exists()


@pytest.mark.slow
def test_a_killed_worker_ends_the_other_in_one_line_and_both_go_on(
    images: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    flags = ["--train_steps=4000", "--checkpoint_steps=4", f"--image_dir={images}"]

    def both() -> list[subprocess.Popen[str]]:
        cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
        return [
            start(
                *TINY,
                *flags,
                f"--model_dir={run}",
                TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}}),
            )
            for i in range(2)
        ]

    def wait_for(more: int) -> int:
        """Waits for a checkpoint after so many steps more; the step of the newest."""
        until = time.monotonic() + 200
        while time.monotonic() < until:
            steps = [int(file.stem.rpartition("-")[2]) for file in run.glob("ckpt-*.index")]
            if steps and max(steps) > more:
                return max(steps)
            time.sleep(0.2)
        raise AssertionError("no checkpoint came")

    workers = both()
    reached = wait_for(0)
    workers[1].kill()
    output = finish(workers[0], timeout=120)
    finish(workers[1])
    assert workers[0].returncode == 1, output
    assert output.splitlines()[-1].startswith("simclr-run: error: another of the 2 workers is gone")
    assert "start all of them again" in output
    assert "Traceback" not in output
    assert "significant overhead" not in output

    workers = both()
    wait_for(reached + 4)
    for worker in workers:
        worker.terminate()
    outputs = [finish(worker) for worker in workers]
    assert [worker.returncode for worker in workers] == [143, 143], "\n".join(outputs)[-3000:]
    assert "going on from ckpt-" in outputs[0]


@pytest.mark.slow
def test_workers_that_were_started_with_other_flags_are_refused(
    images: Path, tmp_path: Path
) -> None:
    steps = ["--train_steps=4", f"--image_dir={images}", f"--model_dir={tmp_path / 'run'}"]
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    workers = [
        start(
            *TINY,
            *steps,
            f"--learning_rate={1 + i}",
            TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": i}}),
        )
        for i in range(2)
    ]
    outputs = [finish(worker) for worker in workers]
    assert [worker.returncode for worker in workers] == [1, 1], "\n".join(outputs)[-3000:]
    for output in outputs:
        assert "error: worker 1 and worker 0 differ in --learning_rate: start all" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_the_two_command_lines_of_the_derived_repository_run(tmp_path: Path) -> None:
    """As its README gives them, but for paths, sizes and numbers of epochs."""
    images = make_folder(tmp_path / "images", per_class=12, suffix=".jpg", size=40)
    common = (
        "--mode=train_then_eval --train_batch_size=8 --train_epochs=1 --sk_ratio=0 "
        "--weight_decay=1e-4 --temperature=0.5 --dataset=imagenet2012 --image_size=32 "
        "--eval_split=validation --resnet_depth=50 --use_blur=False --color_jitter_strength=0.5 "
        "--width_multiplier=0.0625 --use_tpu=False --num_of_classes=3"
    ).split()
    first = ["--train_mode=pretrain", "--learning_rate=1.0"]
    process = start(*common, *first, f"--model_dir={tmp_path / 'a'}", f"--image_dir={images}")
    output = finish(process)
    assert process.returncode == 0, output
    checkpoint = max(tmp_path.glob("a/ckpt-*.index"), key=lambda p: int(p.stem[5:])).with_suffix("")
    second = [
        "--train_mode=finetune", "--learning_rate=0.01", f"--checkpoint={checkpoint}",
        "--fine_tune_after_block=-1", "--labels=yep",
    ]  # fmt: skip
    process = start(*common, *second, f"--model_dir={tmp_path / 'b'}", f"--image_dir={images}")
    output = finish(process)
    assert process.returncode == 0, output
    assert f"starting from the weights of {checkpoint}" in output
    result = json.loads((tmp_path / "b" / "result.json").read_text())
    assert 0 <= result["eval/label_top_1_accuracy"] <= 1
    assert {"eval/regularization_loss", "eval/label_top_5_accuracy", "global_step"} <= set(result)


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (["--image_dir=nowhere"], 1, "image folder not found"),
        (["--image_dir=IMAGES", "--train_batch_size=0"], 2, "--train_batch_size=0: must be at"),
        (["--image_dir=IMAGES", "--trian_batch_size=8"], 2, "did you mean --train_batch_size?"),
        (
            ["--image_dir=IMAGES", "--microbatch=3"],
            1,
            "--microbatch=3: does not divide the 8 images",
        ),
        (["--image_dir=IMAGES", "--num_of_classes=7"], 1, "--num_of_classes=7: the data has 3"),
        (["--image_dir=IMAGES", "--checkpoint=none/ckpt-1"], 1, "no such checkpoint"),
        (
            ["--image_dir=IMAGES", "--train_mode=distill", "--teacher=none/ckpt-1"],
            1,
            "--teacher=none/ckpt-1: no such checkpoint",
        ),
        (["--image_dir=IMAGES", "--eval_split=dev", "--mode=train_then_eval"], 1, "--eval_split"),
        (["--image_dir=ONE", "--train_mode=finetune"], 1, "only the class"),
        (["--image_dir=BROKEN"], 1, "dots_000.png"),
        (["--image_dir=ONE", "--split_ratios=train"], 1, "is not NAME:SHARE"),
        (["--image_dir=ONE", "--distribute=multi_worker"], 1, "set TF_CONFIG"),
        (["--image_dir=IMAGES", "--dataset=x", "--train_split=tran"], 1, "has only train"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], flags: list[str], code: int,
    message: str,
) -> None:  # fmt: skip
    make_folder(tmp_path / "one", classes=("dots",), per_class=10)
    (make_folder(tmp_path / "broken") / "dots" / "dots_000.png").write_bytes(b"")
    places = {"IMAGES": images, "ONE": tmp_path / "one", "BROKEN": tmp_path / "broken"}
    given = [
        flag if flag.partition("=")[2] not in places
        else f"--image_dir={places[flag.partition('=')[2]]}"
        for flag in flags
    ]  # fmt: skip
    arguments = [*TINY, f"--model_dir={tmp_path / 'run'}", *given]
    assert main(arguments) == code
    errors = capfd.readouterr().err.splitlines()
    assert errors[-1].startswith("simclr-run: error: ")
    assert message in errors[-1]
    assert sum("error:" in line for line in errors) == 1
    assert not (tmp_path / "run").exists(), "nothing is left behind"
