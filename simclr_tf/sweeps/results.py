"""The results of a sweep: numbers and features of its runs, means over seeds, intervals."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.csv_files import csv_text
from data_prep.storage import AGAIN, read_object, write_text
from simclr_tf.checkpoints.load import load_model
from simclr_tf.config.run_config import RunConfig
from simclr_tf.config.sections import DataSettings
from simclr_tf.evaluation.features import Embeddings
from simclr_tf.evaluation.intervals import (
    Difference,
    Interval,
    crossed_difference,
    crossed_interval,
)
from simclr_tf.evaluation.metrics import effective_rank
from simclr_tf.models.weights import copy_in
from simclr_tf.sweeps.grid import SCORES, SORT_BY, differing, setting_name
from simclr_tf.sweeps.launch import is_finished, run_folder
from simclr_tf.sweeps.plan import MANIFEST, UNTRAINED, PlannedRun
from simclr_tf.training import distribution
from simclr_tf.training.build import view_config
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.data import RunData, open_data
from simclr_tf.training.evaluator import Evaluator, ImageOutputs
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
        """Effective rank of the scored images' features."""
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
    """The images of a run; runs with the same images share them.

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
    """The evaluator of a run, in the run's precision, because neighbours depend on it."""
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


def _embeddings(outputs: ImageOutputs) -> Embeddings:
    return Embeddings(outputs.features, outputs.label, outputs.index)


def _outputs(embeddings: Embeddings) -> ImageOutputs:
    return ImageOutputs(embeddings.indices, embeddings.labels, embeddings.features, None)


TABLE = "sweep.csv"
SETTINGS_TABLE = "settings.csv"


@dataclass(frozen=True)
class SettingScores:
    """The runs of one setting, which differ only in the seed.

    Attributes:
        name: Of the setting.
        row: The flags that are its own.
        runs: Finished, one a seed.
        untrained: Whether it is a floor.
        knn: Mean accuracy of k-NN over the runs; the interval of one run is Wilson's, over images,
            of several over images and seeds. None without labels.
        gain: Over the same network without training, on the same images, seed by seed where there
            are floors of the same seeds; None without floor or labels.
    """

    name: str
    row: Mapping[str, str]
    runs: tuple[RunScores, ...]
    untrained: bool
    knn: Interval | None
    gain: Difference | None = None

    def values(self, name: str) -> np.ndarray:
        """A score, or another number, of every run; nan where there is none."""
        if name in SCORES:
            return np.array([_number(run.score(name)) for run in self.runs])
        return np.array([float(getattr(run, name)) for run in self.runs])

    def mean(self, name: str) -> float:
        """Mean of a score over the seeds."""
        return float(self.values(name).mean())

    def spread(self, name: str) -> float:
        """Standard deviation of a score over the seeds (of n - 1); nan for one seed."""
        values = self.values(name)
        return float(values.std(ddof=1)) if len(values) > 1 else math.nan

    @property
    def right(self) -> np.ndarray | None:
        """True where k-NN classifies a labelled image right, bool [seeds, m]; None if not known."""
        rows = [run.right for run in self.runs if run.right is not None]
        return np.stack(rows) if len(rows) == len(self.runs) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def by_setting(
    scores: Sequence[RunScores], planned: Sequence[PlannedRun] | None = None
) -> list[SettingScores]:
    """The finished runs by setting, in order of their appearance, each compared with its floor.

    Args:
        scores: The finished runs.
        planned: All runs, by whose flags the settings are named; None = the finished ones.
    """
    groups: dict[tuple[Any, ...], list[RunScores]] = {}
    for one in scores:
        setting = (one.run.untrained, *sorted(one.run.setting().items()))
        groups.setdefault(setting, []).append(one)
    every = [one.run for one in scores] if planned is None else planned
    found = []
    for group in groups.values():
        run = group[0].run
        name = _name(run, every)
        found.append(
            SettingScores(
                name, run.setting(), tuple(group), run.untrained, _interval(group),
                None if run.untrained else _gain(group, scores),
            )
        )  # fmt: skip
    return found


def _name(run: PlannedRun, every: Sequence[PlannedRun]) -> str:
    """The first flags that tell the settings of the trained, or of the untrained, runs apart."""
    settings = [one.setting() for one in every if one.untrained == run.untrained]
    flags = differing(settings) or ([] if run.untrained else list(run.setting()))
    apart = len({setting_name(row, flags) for row in settings})
    names = next(
        flags[:n]
        for n in range(len(flags) + 1)
        if len({setting_name(row, flags[:n]) for row in settings}) == apart
    )
    text = setting_name(run.row, names or flags)
    if run.untrained:
        return f"{UNTRAINED}, {text}" if text else UNTRAINED
    return text or "common"


def _interval(runs: Sequence[RunScores]) -> Interval | None:
    if any(run.right is None for run in runs):
        return None
    if len(runs) == 1:
        low, high = (runs[0].score(f"knn_accuracy_{end}") for end in ("low", "high"))
        return Interval(*map(_number, (runs[0].score("knn_accuracy"), low, high)))
    return crossed_interval(np.stack([run.right for run in runs if run.right is not None]))


def floor_of(run: PlannedRun, scores: Sequence[RunScores]) -> RunScores | None:
    """The floor of a run: the same network and seed, without training."""
    values = run.config.values()
    for one in scores:
        if one.run.untrained and all(values[k] == v for k, v in one.run.key().items()):
            return one
    return None


def _gain(runs: Sequence[RunScores], scores: Sequence[RunScores]) -> Difference | None:
    bare = [floor_of(run.run, scores) for run in runs]
    mine = [run.right for run in runs]
    theirs = [None if floor is None else floor.right for floor in bare]
    known = [(a, b) for a, b in zip(mine, theirs, strict=True) if a is not None and b is not None]
    if len(known) < len(runs) or any(len(a) != len(b) for a, b in known):
        return None
    return crossed_difference(np.stack([a for a, _ in known]), np.stack([b for _, b in known]))


def difference(a: SettingScores, b: SettingScores) -> Difference | None:
    """Difference in k-NN accuracy between two settings, a - b, on the same images.

    Seeds are paired if both have the same; else the means over the seeds are compared, and the
    interval is over images alone.
    """
    first, second = a.right, b.right
    if first is None or second is None or first.shape[1] != second.shape[1]:
        return None
    if [r.run.config.machine.seed for r in a.runs] != [r.run.config.machine.seed for r in b.runs]:
        first, second = (x.mean(axis=0, keepdims=True) for x in (first, second))
    return crossed_difference(first, second)


def is_clear(found: Difference | None) -> bool:
    """True if the 95 % interval of a difference leaves 0 out."""
    return found is not None and (found.low > 0 or found.high < 0)


def sorted_settings(settings: Sequence[SettingScores], column: str) -> list[SettingScores]:
    """The settings by a column of `SORT_BY`, the best first; those without a number last."""
    sign = -1 if SORT_BY[column] else 1
    return sorted(settings, key=lambda s: _last_if_nan(sign * s.mean(column)))


def _last_if_nan(value: float) -> tuple[bool, float]:
    return math.isnan(value), 0.0 if math.isnan(value) else value


def write_tables(
    runs: Sequence[PlannedRun],
    scores: Sequence[RunScores],
    settings: Sequence[SettingScores],
    output: Path,
) -> None:
    """Writes `sweep.csv`, a row a run, and `settings.csv`, a row a setting, with all digits.

    Args:
        runs: All runs, also those that are not finished.
        scores: The finished ones.
        settings: The same by setting.
        output: The sweep's folder.
    """
    flags = list(dict.fromkeys(name for run in runs for name in run.row))
    by_name = {one.run.name: one for one in scores}
    write_text(output / TABLE, _csv([_run_row(run, by_name.get(run.name), flags) for run in runs]))
    own = [name for name in flags if name != "seed"]
    write_text(output / SETTINGS_TABLE, _csv([_setting_row(one, own) for one in settings]))


def _run_row(run: PlannedRun, one: RunScores | None, flags: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"run": run.name, "untrained": run.untrained}
    row |= {name: run.row.get(name, "") for name in flags}
    row["finished"] = one is not None
    ends = ("", "_low", "_high")
    numbers = [f"{score}{end}" for score in SCORES for end in ends]
    row["split"] = one.split if one else ""
    row["images"] = one.result["num_eval_examples"] if one else ""
    row |= {name: one.score(name) if one else None for name in numbers}
    others = ("loss", "effective_rank", "steps", "seconds")
    return row | {name: getattr(one, name) if one else None for name in others}


def _setting_row(one: SettingScores, flags: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {"setting": one.name, "untrained": one.untrained}
    row |= {name: one.row.get(name, "") for name in flags}
    row["seeds"] = len(one.runs)
    for name in (*SCORES, "loss", "effective_rank", "seconds"):
        row |= {f"{name}_mean": one.mean(name), f"{name}_sd": one.spread(name)}
    for name, interval in (("knn_accuracy", one.knn), ("knn_gain", one.gain)):
        if name == "knn_gain":
            row[name] = interval.value if interval else None
        row |= {f"{name}_low": interval.low if interval else None,
                f"{name}_high": interval.high if interval else None}  # fmt: skip
    return row


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    return csv_text([rows[0] if rows else [], *(map(_cell, row.values()) for row in rows)])


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, float) else str(value)
