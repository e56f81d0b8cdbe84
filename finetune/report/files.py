"""The files that results lie in, written whole and read back to the last digit.

report.json           every number (`ClassificationResults.to_json`)
predictions.csv       path, split, (group, tile, page, reading,) true, predicted, score_CLASS ...
history.csv           what training logged
roc.csv               split, class, threshold, false_positive_rate, true_positive_rate
precision_recall.csv  split, class, threshold, recall, precision
calibration.csv       split, low, high, confidence, right, images
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.csv_files import read_rows, write_csv
from data_prep.errors import UserError
from data_prep.storage import AGAIN, Checksums, write_text
from finetune.report.results import ClassificationResults
from finetune.report.scored_split import UNKNOWN, ScoredSplit
from simclr_tf.evaluation.curves import calibration_curve, precision_recall_curve, roc_curve

REPORT = "report.json"
PREDICTIONS = "predictions.csv"
HISTORY = "history.csv"
ROC = "roc.csv"
PRECISION_RECALL = "precision_recall.csv"
CALIBRATION = "calibration.csv"
FLOORS = "floors.json"  # see `finetune.floors`

RESULT_FILES = (PREDICTIONS, HISTORY, ROC, PRECISION_RECALL, CALIBRATION, REPORT)

_SCORE = "score_"
_EXTRA = ("group", "tile", "reading")  # in the order of `ScoredSplit`
_SHOWN = ("group", "tile", "page", "reading")  # the page is what the reading says of it

# Column -> values, the first column being the step or epoch; nan where nothing was logged.
History = Mapping[str, Sequence[float] | np.ndarray]


@dataclass(frozen=True)
class StoredResults:
    """Results read back from a folder of `write_results`.

    Attributes:
        results: The numbers.
        splits: The scores that they come from.
        history: What training logged; empty if nothing.
    """

    results: ClassificationResults
    splits: dict[str, ScoredSplit]
    history: dict[str, np.ndarray]


def write_results(
    folder: str | os.PathLike[str],
    results: ClassificationResults,
    splits: Mapping[str, ScoredSplit],
    history: History | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Writes the result files; `report.json` is the last, so where it is, all are.

    Args:
        folder: Made if need be.
        results: From `evaluate_classifier`.
        splits: The scores they come from, images without a label included.
        history: What training logged.
        overwrite: Replace results that are there.

    Raises:
        UserError: Results are there already.
    """
    folder = Path(folder)
    if (folder / REPORT).exists() and not overwrite:
        raise UserError(f"{folder / REPORT}: is there already; give another folder, or --overwrite")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (REPORT, HISTORY):
        (folder / name).unlink(missing_ok=True)
    measured = {name: splits[name].labeled() for name in results.splits}
    names = results.class_names
    write_csv(folder / PREDICTIONS, _predictions(results, splits))
    if history:
        write_csv(folder / HISTORY, _history(history))
    write_csv(folder / ROC, _roc(measured, names))
    write_csv(folder / PRECISION_RECALL, _precision_recall(measured, names))
    write_csv(folder / CALIBRATION, _calibration(measured))
    text = json.dumps(results.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / REPORT, text + "\n")


def read_results(folder: str | os.PathLike[str]) -> StoredResults:
    """Reads what `write_results` wrote.

    Raises:
        UserError: There are no results in the folder, or they are damaged.
    """
    folder = Path(folder)
    Checksums(folder).check(REPORT, PREDICTIONS, HISTORY, remedy=AGAIN)
    try:
        facts = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        results = ClassificationResults.from_json(facts)
        splits = _read_predictions(folder / PREDICTIONS, results.class_names)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: not found; the folder holds no results") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder}: the result files cannot be read ({error!r}); {AGAIN}") from None
    return StoredResults(results, splits, _read_history(folder / HISTORY))


def _number(value: float) -> str:
    """Shortest text that reads back as the same number; empty for nan."""
    return "" if np.isnan(value) else repr(float(value))


def _predictions(
    results: ClassificationResults, splits: Mapping[str, ScoredSplit]
) -> Iterator[Sequence[Any]]:
    names = results.class_names
    extra = [kind for kind in _SHOWN
             if any(getattr(split, f"{kind}s") for split in splits.values())]  # fmt: skip
    yield ["path", "split", *extra, "true", "predicted", *(_SCORE + name for name in names)]
    for split_name, split in splits.items():
        predicted = results.decision.classes(split.scores)
        more = [getattr(split, f"{kind}s") or ("",) * len(split) for kind in extra]
        for i, path in enumerate(split.paths):
            true = "" if split.labels[i] == UNKNOWN else names[split.labels[i]]
            yield [
                path, split_name, *(values[i] for values in more), true, names[predicted[i]],
                *map(_number, split.scores[i]),
            ]  # fmt: skip


def _read_predictions(path: Path, class_names: tuple[str, ...]) -> dict[str, ScoredSplit]:
    rows: dict[str, list[dict[str, str]]] = {}
    for row in read_rows(path):
        rows.setdefault(row["split"], []).append(row)
    position = {name: k for k, name in enumerate(class_names)} | {"": UNKNOWN}
    columns = [_SCORE + name for name in class_names]
    splits = {}
    for split, own in rows.items():
        more = (tuple(row.get(kind, "") for row in own) for kind in _EXTRA)
        splits[split] = ScoredSplit(
            split,
            tuple(row["path"] for row in own),
            np.array([position[row["true"]] for row in own], dtype=np.int64),
            np.array([[float(row[column]) for column in columns] for row in own]),
            *(names if any(names) else None for names in more),
        )
    return splits


def _history(history: History) -> Iterator[Sequence[Any]]:
    yield list(history)
    for values in zip(*history.values(), strict=True):
        yield [str(v) if isinstance(v, int | np.integer) else _number(v) for v in values]


def _read_history(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    rows = read_rows(path)
    columns = rows[0] if rows else {}
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in columns}


def _roc(splits: Mapping[str, ScoredSplit], names: tuple[str, ...]) -> Iterator[Sequence[Any]]:
    yield ["split", "class", "threshold", "false_positive_rate", "true_positive_rate"]
    for split_name, split in splits.items():
        for k, name in enumerate(names):
            curve = roc_curve(split.labels == k, split.scores[:, k])
            if curve is not None:
                points = (curve.threshold, curve.false_positive_rate, curve.true_positive_rate)
                for numbers in zip(*points, strict=True):
                    yield [split_name, name, *map(_number, numbers)]


def _precision_recall(
    splits: Mapping[str, ScoredSplit], names: tuple[str, ...]
) -> Iterator[Sequence[Any]]:
    yield ["split", "class", "threshold", "recall", "precision"]
    for split_name, split in splits.items():
        for k, name in enumerate(names):
            curve = precision_recall_curve(split.labels == k, split.scores[:, k])
            if curve is not None:
                points = (curve.threshold, curve.recall, curve.precision)
                for numbers in zip(*points, strict=True):
                    yield [split_name, name, *map(_number, numbers)]


def _calibration(splits: Mapping[str, ScoredSplit]) -> Iterator[Sequence[Any]]:
    yield ["split", "low", "high", "confidence", "right", "images"]
    for split_name, split in splits.items():
        curve = calibration_curve(split.labels, split.scores)
        ends = (curve.low, curve.high, curve.confidence)
        counts = (curve.right.tolist(), curve.images.tolist())
        for low, high, confidence, right, images in zip(*ends, *counts, strict=True):
            yield [split_name, *map(_number, (low, high, confidence)), right, images]
