"""The floors of a run: much simpler methods on the same images, beside the network.

    floors.json   what they say of every image, and whether the network is above them

The file is written once a run, before the report: a report that is made again reads what the
methods said, and `simclr-folds` joins the floors of all runs.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.identity import Image
from data_prep.storage import AGAIN, read_object, write_text
from finetune.classifier import Classifier
from finetune.data import LabeledData
from finetune.inputs import ImageSteps
from finetune.report.files import FLOORS
from finetune.report.scored_split import ScoredSplit
from finetune.significance import ScoredPredictions
from simclr_tf.config.sections import MachineSettings
from simclr_tf.evaluation.floors import Verdict, judge
from simclr_tf.evaluation.metrics import softmax
from simclr_tf.training import distribution
from simclr_tf.training.floors import Images, measure_floors

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Floors:
    """Scores of the floors of a run.

    Attributes:
        split: The images that are scored.
        scores: Floor -> probabilities float64 [n, K] of those of its images that were scored.
        images: Which these n images are.
        train_images: Training images that they were fitted on.
        note: Caveat for readers; empty if there is none.
    """

    split: str
    scores: dict[str, np.ndarray]
    images: tuple[Image, ...]
    train_images: int
    note: str = ""

    def verdict(
        self, judged: ScoredPredictions, metric: str, resamples: int, seed: int
    ) -> Verdict | None:  # fmt: skip
        """Compares a network with the floors.

        Args:
            judged: Its scores of the split's labelled images, these among them.
            metric: `accuracy`, `balanced_accuracy` or `roc_auc`.
            resamples: Bootstrap samples.
            seed: Of the resampling.

        Returns:
            The verdict; None where the images are others.
        """
        rows = {image: row for row, image in enumerate(judged.split.images)}
        if not self.images or any(image not in rows for image in self.images):
            return None
        order = np.array([rows[image] for image in self.images])
        own = judged.split.take(order)
        return judge(
            self.split, own.labels, own.scores, judged.predicted[order], self.scores,
            metric=metric, groups=own.units, resamples=resamples, seed=seed,
        )  # fmt: skip


def compute_floors(
    data: LabeledData,
    scored: ScoredSplit,
    untrained: Classifier,
    steps: ImageSteps,
    batch_size: int,
    seed: int,
) -> Floors:
    """Fits the floors on the training images and scores a split; see `measure_floors`.

    Args:
        data: The images.
        scored: Those that are scored, in the order of their split.
        untrained: The network with fresh weights.
        steps: Steps from decoded image to network input.
        batch_size: Images of a pass.
        seed: Of the parts taken and of the fits.
    """
    devices = distribution.connect(MachineSettings(distribute="one_device"))
    train, held_out = (
        Images(name, data.sources[name], data.manifest.split(name))
        for name in (data.train_split, scored.split)
    )
    found = measure_floors(
        train,
        held_out,
        untrained.features,
        lambda forward: steps.evaluator(forward, devices, batch_size),
        steps.shape[0],
        seed,
    )
    images = scored.take(found.rows).images
    return Floors(scored.split, found.scores, images, found.train_images, found.note)


def write_floors(folder: Path, floors: Floors, verdict: Verdict | None) -> None:
    """Writes `floors.json`."""
    facts: dict[str, Any] = {
        "verdict": verdict.to_json() if verdict else None,
        "split": floors.split,
        "train_images": floors.train_images,
        "note": floors.note,
        "images": [list(image) for image in floors.images],
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
            tuple(Image(*image) for image in facts["images"]),
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
        return read_object(folder / FLOORS, AGAIN)
    except OSError:
        return {}
    except UserError as error:
        log.warning("%s; nothing tells whether the network is above simpler methods", error)
        return {}
