"""A trained classifier, whatever command made it: what every later command starts from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.errors import UserError, setting_renamed
from data_prep.manifest.manifest import Manifest
from data_prep.storage import AGAIN, Checksums, read_object
from finetune.classifier import Classifier, load_classifier
from finetune.report.files import REPORT
from finetune.report.results import ClassificationResults, Decision
from simclr_tf.checkpoints import zoo
from simclr_tf.checkpoints.load import load_model
from simclr_tf.checkpoints.preprocessing import Preprocessing
from simclr_tf.evaluation.metrics import softmax
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.models.weights import copy_in
from simclr_tf.training.evaluator import Featurizer, Forward, simclr_outputs

_CONFIG, _ENVIRONMENT, _MODEL = "config.json", "environment.json", "model.keras"


@dataclass(frozen=True)
class Trained:
    """A classifier with what is needed to use it.

    Attributes:
        path: The path that was opened.
        folder: Of the run that made it.
        network: Of images [B, S, S, C] in [0, 1].
        class_names: K names in the order of the logits.
        class_ids: WordNet ids of ImageNet's classes; empty for other classes.
        preprocessing: The way from file to network input.
        crops: Crops of an image along each side; 1 = the central one.
        decision: How the run made classes of scores.
    """

    path: str
    folder: Path
    network: SimCLRModel | Classifier
    class_names: tuple[str, ...]
    class_ids: tuple[str, ...]
    preprocessing: Preprocessing
    crops: int = 1
    decision: Decision = field(default_factory=Decision)

    @property
    def forward(self) -> Forward:
        """Gives `features` [B, D] and `logits` [B, K] of images [B, S, S, C] in [0, 1]."""
        network = self.network
        return (
            simclr_outputs(network)
            if isinstance(network, SimCLRModel)
            else network.features_and_logits
        )


class BatchScorer:
    """Scores images; its graph is traced once and serves every call.

    Args:
        trained: The classifier.
        batch_size: Images of a pass; fewer are padded.
    """

    def __init__(self, trained: Trained, batch_size: int) -> None:
        self.classes = len(trained.class_names)
        self._images = Featurizer(trained.forward, trained.preprocessing, batch_size, trained.crops)

    def scores(self, images: Manifest) -> np.ndarray:
        """Probabilities float64 [n, K] of images; see `outputs`."""
        return self.outputs(images)[0]

    def outputs(self, images: Manifest) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities float64 [n, K] and features float32 [n, D] of images.

        The outputs of an image do not depend on the images beside it.

        Args:
            images: Their labels are not looked at.

        Raises:
            UserError: A header cannot be read.
            tf.errors.OpError: An image cannot be decoded.
        """
        outputs = self._images.outputs(images)
        if outputs.logits is None:
            raise ValueError("the network has no supervised head")
        return softmax(outputs.logits), outputs.features

    def undecodable(self, images: Manifest) -> dict[int, str]:
        """Positions of images that cannot be decoded, and why."""
        return self._images.undecodable(images)


def open_trained(path: str, precision: str = "run") -> Trained:
    """Opens the classifier of a run, or any SimCLR checkpoint that has a supervised head.

    Args:
        path: Folder of a run, its `model.keras`, or anything that `load_model` reads.
        precision: `run` = in which the run was scored, so that scores are the same; `float32` or
            `bfloat16`.

    Raises:
        UserError: There is none, or it has no supervised head.
    """
    file = _classifier_file(path)
    if file:
        return _open_classifier(path, file)
    with setting_renamed(checkpoint="model"):
        model = load_model(path)
    if not model.num_classes:
        raise UserError("has no supervised head; fine-tune it first", setting="model", value=path)
    folder = run_folder(path)
    if precision == "run":
        precision = str(_json(folder / _ENVIRONMENT).get("precision", "float32"))
    if precision != "float32":
        model = copy_in(model, "mixed_bfloat16")
    names, ids = class_labels(model)
    return _trained(path, folder, model, model.encoder.preprocessing, names, ids)


def _trained(
    path: str,
    folder: Path,
    network: SimCLRModel | Classifier,
    facts: Mapping[str, Any],
    names: tuple[str, ...],
    ids: tuple[str, ...] = (),
) -> Trained:
    crops = int(_json(folder / _CONFIG).get("train", {}).get("eval_crops", 1))
    preprocessing = Preprocessing.from_record(facts)
    decision = _decision(folder, names)
    return Trained(path, folder, network, names, ids, preprocessing, crops, decision)


def _classifier_file(path: str) -> Path | None:
    """The `.keras` file of a `Classifier` that a path means, if it means one.

    Raises:
        UserError: It is damaged, or gone from a finished run.
    """
    given = Path(path)
    inside = given / _MODEL
    file = given if given.name == _MODEL else inside
    if file.parent.is_dir():
        # Without it the newest checkpoint would be taken, which is not the best one.
        Checksums(file.parent).check(_MODEL, remedy=AGAIN)
    if inside.is_file():
        return inside
    return given if given.name == _MODEL and given.is_file() else None


def _open_classifier(path: str, file: Path) -> Trained:
    try:
        model = load_classifier(file)
    except ValueError as error:
        raise UserError(f"{error}", setting="model", value=file) from None
    return _trained(path, file.parent, model, model.facts, model.class_names)


def class_labels(model: SimCLRModel) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and identifiers of the classes of a supervised head.

    Returns:
        Names from the preprocessing record, or numbers; and WordNet ids of ImageNet's classes, or
        nothing.
    """
    number = model.num_classes or 0
    names = tuple(model.encoder.preprocessing.get("class_names", ()))
    if len(names) != number:
        names = tuple(str(i) for i in range(number))
    return names, zoo.wordnet_ids() if names == zoo.class_names() else ()


def run_folder(path: str) -> Path:
    """The folder of the run that a path belongs to: itself, or the nearest above with a config."""
    given = Path(path)
    near = [given, *list(given.parents)[:2]]
    return next((p for p in near if (p / _CONFIG).is_file()), given if given.is_dir() else near[1])


def _json(file: Path) -> dict[str, Any]:
    """Reads a JSON file; nothing if there is none.

    Raises:
        UserError: The file is damaged: no default takes its place.
    """
    try:
        return read_object(file, AGAIN)
    except (FileNotFoundError, NotADirectoryError):
        return {}


def _decision(folder: Path, names: tuple[str, ...]) -> Decision:
    """The rule of the run's report; the highest score where there is none."""
    try:
        results = ClassificationResults.from_json(_json(folder / REPORT))
    except KeyError:
        return Decision()
    return results.decision if results.class_names == names else Decision()
