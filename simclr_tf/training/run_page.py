"""The page of an evaluated run: what it reached, beside floors, and what it warned of."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.errors import UserError
from data_prep.page import (
    Page,
    Picture,
    Section,
    Table,
    repeat_section,
    software,
    warning_paragraphs,
    write_page,
)
from data_prep.phrases import counted, format_seconds, sentence
from simclr_tf.config.run_config import RunConfig
from simclr_tf.evaluation.figures import NARROW, figure_picture, loss_curves
from simclr_tf.evaluation.floors import FloorVerdict, floor_section
from simclr_tf.evaluation.intervals import Interval, interval_cell
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.run_dir import RunDir
from simclr_tf.training.run_warnings import ALARM, latest, read_warnings
from simclr_tf.training.scoring import worth_saying

log = logging.getLogger(__name__)

_TITLES = {"pretrain": "Pretraining", "finetune": "Fine-tuning", "distill": "Distillation"}
_WORDS = {
    "label_top_1_accuracy": "accuracy of the supervised head",
    "label_top_5_accuracy": "its top-5 accuracy",
    "knn_accuracy": "accuracy of k-NN on the features",
    "linear_probe_accuracy": "accuracy of a linear probe on the features",
    "start_knn_accuracy": "accuracy of k-NN before the first step",
}


def write_run_page(
    run_dir: RunDir,
    path: Path,
    config: RunConfig,
    result: Mapping[str, Any],
    classes: int,
    floors: FloorVerdict | None,
) -> None:
    """Writes `report.html` of an evaluation, whole or not at all.

    Args:
        run_dir: Of the run; its logs and warnings are read.
        path: The page.
        config: The run's settings.
        result: What `result.json` holds.
        classes: Number of classes; 0 without labels.
        floors: Whether the network is above simpler methods; None = `result` says why not.
    """
    verdict = floors.verdict.sentence() if floors else ""
    warned = latest(read_warnings(run_dir.warnings_file))
    alarms = [w.message for w in warned if w.kind == ALARM]
    said = {*alarms, verdict}
    metrics = _metrics(run_dir)
    learning = _learning(metrics)
    sections = (
        _scores(result, classes),
        *([floor_section(floors)] if floors else []),
        *([learning] if learning else []),
        *_views(run_dir),
        repeat_section(
            ("simclr-run", f"--flagfile={run_dir.path / 'flags.txt'}", "--model_dir=ELSEWHERE")
        ),
    )
    method = f" by {config.method.method}" if config.train.train_mode == "pretrain" else ""
    page = Page(
        f"{_TITLES[config.train.train_mode]}{method}",
        (
            *map(sentence, alarms),
            verdict or str(result["no_floors"]),
            _headline(result),
            *warning_paragraphs([str(w) for w in warned if w.message not in said]),
        ),
        sections,
        _facts(metrics),
    )
    write_page(page, path)


def _headline(result: Mapping[str, Any]) -> str:
    steps = counted(int(result["global_step"]), "step")
    train = counted(int(result["num_train_examples"]), f"{result['train_split']} image")
    scored = counted(int(result["num_eval_examples"]), f"{result['eval_split']} image")
    return f"{steps} on {train}; {scored} scored."


def _scores(result: Mapping[str, Any], classes: int) -> Section:
    split = str(result["eval_split"])
    rows = []
    for name in worth_saying(result, split, classes):
        value, low, high = (result.get(f"{name}{end}", np.nan) for end in ("", "_low", "_high"))
        key = name.split("/", 1)[1]
        rows.append((_WORDS.get(key, key), interval_cell(Interval(value, low, high))))
    if not rows:
        return Section("Scores", ("Without labels on both sides no accuracy can be given.",))
    note = "In brackets Wilson's 95 % intervals, over images."
    return Section("Scores", tables=(Table(("measure", f"on {split}"), tuple(rows), note=note),))


def _metrics(run_dir: RunDir) -> dict[str, np.ndarray]:
    """Metrics of every step by name; empty if the log is missing or cannot be read now."""
    if not run_dir.metrics_file.exists():
        return {}
    try:
        return read_metrics(run_dir.metrics_file)
    except UserError as error:
        log.info("the report has no learning curve: %s", error)
        return {}


def _learning(metrics: Mapping[str, np.ndarray]) -> Section | None:
    loss = metrics.get("total_loss")
    if loss is None or len(loss) < 2:
        return None
    figure = loss_curves({"train": (metrics["step"], loss)}, width=NARROW)
    caption = "Total loss of every step, weight decay included."
    return Section(
        "Learning curve",
        pictures=(figure_picture(figure, caption, half=True),),
    )


def _views(run_dir: RunDir) -> list[Section]:
    if not run_dir.views_file.exists():
        return []
    picture = Picture(run_dir.views_file.read_bytes(), "Training images as the network sees them.")
    return [Section("Augmented views", pictures=(picture,))]


def _facts(metrics: Mapping[str, np.ndarray]) -> dict[str, str]:
    facts = {"Software": software()}
    if "seconds" in metrics:
        facts = {"Training": format_seconds(float(np.nansum(metrics["seconds"]))), **facts}
    return facts
