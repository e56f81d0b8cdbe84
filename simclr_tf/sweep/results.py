"""What the finished runs of a sweep came to: numbers, and features of the same images."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.checksums import AGAIN, read_object
from simclr_tf.checkpoints.load import load_model
from simclr_tf.config.run_config import RunConfig
from simclr_tf.config.sections import DataSettings
from simclr_tf.evaluation.features import Embeddings
from simclr_tf.evaluation.metrics import effective_rank
from simclr_tf.models.copies import copy_in
from simclr_tf.sweep.launch import is_finished, run_folder
from simclr_tf.sweep.plan import MANIFEST, PlannedRun
from simclr_tf.training import distribution
from simclr_tf.training.build import view_config
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.data import RunData, open_data
from simclr_tf.training.evaluator import Evaluator, Outputs
from simclr_tf.training.run_dir import RunDir
from simclr_tf.training.run_warnings import RunWarning, latest, read_warnings
from simclr_tf.training.scoring import knn_right

log = logging.getLogger(__name__)

_LAST_SHARE = 0.1
_SAME = 1e-9
_LOSSES = ("contrast_loss", "pretrain_loss", "total_loss")


@dataclass(frozen=True)
class RunScores:
    """A finished run.

    Attributes:
        run: What it was.
        result: Its `result.json`.
        loss: Mean of the method's loss over the last tenth of the steps.
        seconds: Of all training steps.
        steps: Taken.
        held_out: Features of the images that are scored.
        right: Whether k-NN classifies each of those with a label right, bool [m]; None without
            labels.
        warnings: What the run has warned of, the last of each kind.
    """

    run: PlannedRun
    result: dict[str, Any]
    loss: float
    seconds: float
    steps: int
    held_out: Embeddings
    right: np.ndarray | None
    warnings: tuple[RunWarning, ...] = ()

    @property
    def split(self) -> str:
        """The split that is scored."""
        return str(self.result["eval_split"])

    def score(self, name: str) -> float | None:
        """A number of the scored split, such as `knn_accuracy_low`; None if there is none."""
        value = self.result.get(f"{self.split}/{name}")
        return None if value is None else float(value)

    @property
    def effective_rank(self) -> float:
        """Of the scored images' features."""
        return effective_rank(self.held_out.features)


def collect(runs: Sequence[PlannedRun], output: Path) -> list[RunScores]:
    """The finished runs among some, in their order.

    Features are computed once, and kept in `features/`.

    Args:
        runs: The runs.
        output: The sweep's folder.
    """
    (output / "features").mkdir(exist_ok=True)
    opened: dict[DataSettings, RunData] = {}
    found = []
    for run in runs:
        if is_finished(run, output):
            found.append(_scores(run, output, opened))
    return found


def _scores(run: PlannedRun, output: Path, opened: dict[DataSettings, RunData]) -> RunScores:
    folder = run_folder(run, output)
    result = read_object(folder.path / "result.json", AGAIN)
    metrics = read_metrics(folder.metrics_file)
    loss = metrics[next(name for name in _LOSSES if name in metrics)]
    last = max(1, round(_LAST_SHARE * len(loss)))
    train, held_out = _features(run, output, opened)
    right = knn_right(_outputs(train), _outputs(held_out), run.config.train.knn_neighbors)
    accuracy = result.get(f"{result['eval_split']}/knn_accuracy")
    if right is not None and accuracy is not None and abs(right.mean() - accuracy) > _SAME:
        log.warning(
            "%s: k-NN accuracy is %.4f on the features of this machine, %.4f in the run's result",
            run.name, right.mean(), accuracy,
        )  # fmt: skip
    return RunScores(
        run,
        result,
        float(loss[-last:].mean()),
        float(metrics["seconds"].sum()),
        int(result["global_step"]),
        held_out,
        right,
        latest(read_warnings(folder.warnings_file)),
    )


def _features(
    run: PlannedRun, output: Path, opened: dict[DataSettings, RunData]
) -> tuple[Embeddings, Embeddings]:
    """Features of the training images and of the scored ones."""
    splits = ("train", "held_out")
    files = [output / "features" / f"{run.name}.{name}.npz" for name in splits]
    if not all(map(os.path.isfile, files)):
        log.info("features of %s", run.name)
        for file, embeddings in zip(files, _embed(run, output, opened), strict=True):
            embeddings.save(file)
    train, held_out = map(Embeddings.load, files)
    return train, held_out


def _embed(
    run: PlannedRun, output: Path, opened: dict[DataSettings, RunData]
) -> tuple[Embeddings, Embeddings]:
    folder = run_folder(run, output)
    config = RunConfig.load(folder.config_file)
    data = data_of(config, output, opened)
    evaluator = _evaluator(config, folder, data)
    t = config.train
    train = evaluator.outputs(data.train)
    held_out = evaluator.outputs(data.evaluation(config.data.eval_split), t.eval_steps)
    return _embeddings(train), _embeddings(held_out)


def data_of(config: RunConfig, output: Path, opened: dict[DataSettings, RunData]) -> RunData:
    """The images of a run; those that another run has opened are not opened again.

    Args:
        config: All settings of the run.
        output: The sweep's folder, which may have moved since.
        opened: What is known, and is added to.
    """
    values = {"manifest": str(output / MANIFEST), "model_dir": ""}
    config = RunConfig.from_values({**config.values(), **values})
    if config.data not in opened:
        opened[config.data] = open_data(config)
    return opened[config.data]


def _evaluator(config: RunConfig, folder: RunDir, data: RunData) -> Evaluator:
    """As the run's own evaluation: in its precision too, on which neighbours depend."""
    model = load_model(folder.encoder_file)
    precision = folder.read_environment()["precision"]
    return Evaluator(
        copy_in(model, precision) if precision != "float32" else model,
        view_config(config, data.channels),
        distribution.connect(config.machine),
        config.train.eval_batch_size,
        config.machine.seed,
        config.train.eval_crops,
    )


def _embeddings(outputs: Outputs) -> Embeddings:
    return Embeddings(outputs.features, outputs.label, outputs.index)


def _outputs(embeddings: Embeddings) -> Outputs:
    return Outputs(embeddings.indices, embeddings.labels, embeddings.features, None)
