from pathlib import Path

import numpy as np
import pytest

from simclr_tf.checkpoints.find import locate
from simclr_tf.training.callbacks import (
    BestCheckpoint,
    StepLog,
    ValidationLog,
    read_metrics,
)


def test_rows_after_the_step_a_run_goes_on_from_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    StepLog(path, 0).write(1, {"loss": np.array([3.0, 2.0, 1.0, 0.5])})
    with path.open("a") as file:
        file.write("5,0.")  # a process killed while writing
    again = StepLog(path, 2)
    assert list(read_metrics(path)["step"]) == [1, 2]
    again.write(3, {"loss": np.array([1.5])})
    table = read_metrics(path)
    assert list(table["step"]) == [1, 2, 3]
    assert list(table["loss"]) == [3.0, 2.0, 1.5]


def test_a_file_without_a_whole_row_starts_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss\n")
    StepLog(path, 0).write(1, {"loss": np.array([1.0]), "accuracy": np.array([0.5])})
    assert path.read_text().splitlines() == ["step,loss,accuracy", "1,1,0.5"]


def test_only_validated_intervals_are_logged(tmp_path: Path) -> None:
    path = tmp_path / "validation.csv"
    log = ValidationLog(path, 0)
    log.on_epoch_end(0, {"step": 5, "total_loss": 1.0})
    log.on_epoch_end(1, {"step": 10, "total_loss": 1.0, "validation/knn_accuracy": 0.5})
    assert path.read_text().splitlines() == ["step,validation/knn_accuracy", "10,0.5"]


@pytest.mark.parametrize("scores", [[0.2, 0.6, 0.4], [0.6, 0.6, 0.1]])
def test_the_best_checkpoint_is_the_first_of_the_highest(
    tmp_path: Path, scores: list[float]
) -> None:
    keeper = BestCheckpoint(tmp_path, "validation/knn_accuracy")
    for i, score in enumerate(scores):
        (tmp_path / f"ckpt-{i + 1}.index").write_text(str(i + 1))
        keeper.on_epoch_end(i, {"step": i + 1, "validation/knn_accuracy": score})
    best = scores.index(max(scores)) + 1
    assert [(p.name, p.read_text()) for p in (tmp_path / "best").glob("ckpt-*")] == [
        (f"ckpt-{best}.index", str(best))
    ]


@pytest.mark.parametrize("relative", [True, False])
def test_the_folder_of_the_best_checkpoint_means_that_checkpoint(
    tmp_path: Path, relative: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Path("run") if relative else tmp_path / "run"
    run.mkdir()
    keeper = BestCheckpoint(run, "validation/knn_accuracy")
    for step, score in ((2, 0.3), (4, 0.7), (6, 0.5)):
        (run / f"ckpt-{step}.index").write_text("")
        keeper.on_epoch_end(step, {"step": step, "validation/knn_accuracy": score})
    assert locate(str(run / "best")).path == str(run / "best" / "ckpt-4")
    moved = run.rename(tmp_path / "moved")
    assert locate(str(moved / "best")).path == str(moved / "best" / "ckpt-4")


def validate(
    folder: Path, keeper: BestCheckpoint, log: ValidationLog, step: int, **logs: float
) -> None:
    (folder / f"ckpt-{step}.index").write_text(str(step))
    named = {"step": step, **{f"validation/{name}": value for name, value in logs.items()}}
    keeper.on_epoch_end(step, named)
    log.on_epoch_end(step, named)


def kept(folder: Path) -> list[str]:
    return sorted(p.name for p in (folder / "best").glob("ckpt-*"))


def test_the_smallest_can_be_best_and_a_second_number_decides_between_equals(
    tmp_path: Path,
) -> None:
    for folder, keeper, best in (
        (tmp_path / "a", BestCheckpoint(tmp_path / "a", "validation/loss", "min"), 2),
        (tmp_path / "b", BestCheckpoint(tmp_path / "b", "validation/acc", "max"), 1),
        (
            tmp_path / "c",
            BestCheckpoint(tmp_path / "c", "validation/acc", tie_breaker="validation/loss"),
            3,
        ),
    ):
        folder.mkdir()
        log = ValidationLog(folder / "validation.csv", 0)
        validate(folder, keeper, log, 1, acc=0.7, loss=0.9)
        validate(folder, keeper, log, 2, acc=0.6, loss=0.1)
        validate(folder, keeper, log, 3, acc=0.7, loss=0.5)
        validate(folder, keeper, log, 4, acc=float("nan"), loss=0.5)
        assert kept(folder) == [f"ckpt-{best}.index"]
