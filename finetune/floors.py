"""The floors of a run: much simpler methods on the same images, beside the network.

    floors.json   what they say of every image, and whether the network is above them

The file is written once a run, before the report: a report that is made again reads what the
methods said, and `simclr-folds` joins the floors of all runs.
"""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data_prep.durations import format_seconds
from data_prep.files import write_text
from data_prep.sources import ManifestSource
from finetune.classifier import Classifier
from finetune.image_steps import ImageSteps
from finetune.labelled import LabelledData
from finetune.paired import Judged, image_keys
from finetune.report.result_files import FLOORS
from finetune.scored import ScoredSplit
from simclr_tf import distribution
from simclr_tf.evaluation.floors import (
    PIXELS,
    RAW_PIXELS,
    UNTRAINED,
    Verdict,
    judge,
    majority,
    probe_scores,
)
from simclr_tf.evaluation.metrics import softmax
from simclr_tf.sections import MachineSettings
from simclr_tf.training.evaluator import Evaluator, Outputs

log = logging.getLogger(__name__)

_MOST_IMAGES = 2000  # of training, and of those scored: more change little
_LARGE = 160  # pixels along a side from which on the untrained network sees fewer
_MOST_LARGE = 500
_MOST_FEATURES = 1024
_GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Floors:
    """What the floors of a run say.

    Attributes:
        split: The images that are scored.
        scores: Floor -> probabilities float64 [n, K] of those of its images that were scored.
        keys: Path, tile and reading of these n images.
        train_images: Training images that they were fitted on.
        note: What a reader must know of them; empty if nothing.
    """

    split: str
    scores: dict[str, np.ndarray]
    keys: tuple[tuple[str, str, str], ...]
    train_images: int
    note: str = ""

    def verdict(
        self, judged: Judged, metric: str, resamples: int, seed: int
    ) -> Verdict | None:  # fmt: skip
        """Whether a network is above them.

        Args:
            judged: What it says of the split's labelled images, these among them.
            metric: `accuracy`, `balanced_accuracy` or `roc_auc`.
            resamples: Bootstrap samples.
            seed: Of the resampling.

        Returns:
            The verdict; None where the images are others.
        """
        rows = {key: i for i, key in enumerate(image_keys(judged.split))}
        if not self.keys or any(key not in rows for key in self.keys):
            return None
        order = np.array([rows[key] for key in self.keys])
        own = judged.split.take(order)
        return judge(
            self.split, own.labels, own.scores, judged.predicted[order], self.scores,
            metric=metric, groups=own.units, resamples=resamples, seed=seed,
        )  # fmt: skip


def compute_floors(
    data: LabelledData,
    split: str,
    scored: ScoredSplit,
    untrained: Classifier,
    steps: ImageSteps,
    batch_size: int,
    seed: int,
) -> Floors:
    """Fits the floors on the training images and scores a split.

    Of large sets a part is taken: the floors are to cost seconds.

    Args:
        data: The images.
        split: What is scored.
        scored: The same images in the same order; those with a label count.
        untrained: The network with fresh weights.
        steps: What becomes of images before the network sees them.
        batch_size: Images of a pass.
        seed: Of the parts taken and of the fits.
    """
    began = time.perf_counter()
    most = _MOST_LARGE if steps.shape[0] > _LARGE else _MOST_IMAGES
    rows = _some(np.flatnonzero(scored.labels >= 0), 2 * most, seed)
    train_rows = _some(np.flatnonzero(data.train.labels() >= 0), _MOST_IMAGES, seed)
    few_rows = _some(train_rows, most, seed)

    def pixels(images: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"features": tf.reshape(_grey(images), [-1, PIXELS * PIXELS])}

    def features(images: tf.Tensor) -> dict[str, tf.Tensor]:
        found = tf.cast(untrained.features(images), tf.float32)
        if found.shape[1] <= _MOST_FEATURES:
            return {"features": found}
        drawn = np.random.default_rng(seed).choice(found.shape[1], _MOST_FEATURES, replace=False)
        return {"features": tf.gather(found, tf.constant(drawn), axis=1)}

    devices = distribution.connect(MachineSettings(distribute="one_device"))
    scores = majority(data.train.labels(), len(rows), len(data.class_names))
    for name, forward, fitted_on in (
        (RAW_PIXELS, pixels, train_rows),
        (UNTRAINED, features, few_rows),
    ):
        run = steps.evaluator(forward, devices, batch_size)
        train = _outputs(run, data, data.train_split, fitted_on)
        held_out = _outputs(run, data, split, rows)
        own = probe_scores(
            train.features, train.label, held_out.features, len(data.class_names), seed
        )
        scores |= {} if own is None else {name: own}
    keys = image_keys(scored)
    notes = [
        _note(len(rows), int((scored.labels >= 0).sum()), f"{split} images are compared"),
        _note(len(few_rows), data.train.num_examples, "training images fit the untrained features"),
    ]
    log.info("floors computed in %s", format_seconds(time.perf_counter() - began))
    return Floors(
        split,
        scores,
        tuple(keys[row] for row in rows),
        len(train_rows),
        " ".join(filter(None, notes)),
    )


def _note(used: int, there: int, what: str) -> str:
    return f"A sample: {used} of {there} {what}." if used < there else ""


def _some(rows: np.ndarray, most: int, seed: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _outputs(run: Evaluator, data: LabelledData, split: str, rows: np.ndarray) -> Outputs:
    source = data.sources[split]
    if len(rows) < source.num_examples:
        images = data.manifest.split(split)
        kept = images.subset(images.records[row] for row in rows)
        source = ManifestSource(kept, data.class_names, data.channels)
    return run.outputs(source)


def _grey(images: tf.Tensor) -> tf.Tensor:
    """Grey pictures [b, PIXELS, PIXELS, 1] of images [b, H, W, C] in [0, 1]."""
    images = tf.cast(images, tf.float32)
    if images.shape[-1] == len(_GREY):
        grey = tf.reduce_sum(images * tf.constant(_GREY), axis=-1, keepdims=True)
    else:
        grey = tf.reduce_mean(images, axis=-1, keepdims=True)
    return tf.image.resize(grey, (PIXELS, PIXELS), method="area")


def write_floors(folder: Path, floors: Floors, verdict: Verdict | None) -> None:
    """Writes `floors.json`."""
    facts: dict[str, Any] = {
        "verdict": verdict.to_json() if verdict else None,
        "split": floors.split,
        "train_images": floors.train_images,
        "note": floors.note,
        "images": [list(key) for key in floors.keys],
        "log_scores": {
            name: np.log(np.maximum(own, 1e-300)).tolist() for name, own in floors.scores.items()
        },
    }
    write_text(folder / FLOORS, json.dumps(facts, ensure_ascii=False) + "\n")


def read_floors(folder: Path) -> Floors | None:
    """The floors of the run in a folder; None where there are none to be read."""
    facts = _facts(folder)
    try:
        return Floors(
            facts["split"],
            {name: softmax(np.array(own)) for name, own in facts["log_scores"].items()},
            tuple((path, tile, reading) for path, tile, reading in facts["images"]),
            facts["train_images"],
            facts["note"],
        )
    except (KeyError, TypeError, ValueError):
        return None


def read_verdict(folder: Path) -> Mapping[str, Any] | None:
    """The verdict of the run in a folder as `Verdict.to_json` gave it; None where there is none."""
    verdict = _facts(folder).get("verdict")
    return verdict if isinstance(verdict, dict) else None


def _facts(folder: Path) -> dict[str, Any]:
    try:
        facts = json.loads((folder / FLOORS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
