"""The numbers of an evaluation, each with the name of its split."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from data_prep.csv_files import write_csv
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.places import place_columns
from simclr_tf.evaluation.intervals import wilson_interval
from simclr_tf.evaluation.linear_probe import fit_linear_probe
from simclr_tf.evaluation.metrics import softmax
from simclr_tf.evaluation.neighbors import knn_scores
from simclr_tf.training.evaluator import ImageOutputs


def _accuracy_with_interval(name: str, right: np.ndarray) -> dict[str, float]:
    interval = wilson_interval(right)
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def score_logits(outputs: ImageOutputs, split: str) -> dict[str, float]:
    """Top-1 accuracy with its 95 % interval, top-5 accuracy and log loss over labelled images.

    Args:
        outputs: Of a split, with logits.
        split: Its name, the prefix of every key.

    Returns:
        The numbers; empty without logits or labels.
    """
    known = outputs.label >= 0
    if outputs.logits is None or not known.any():
        return {}
    logits, label = outputs.logits[known].astype(np.float64), outputs.label[known]
    right = logits.argmax(axis=1) == label
    # How many classes score higher than the true one; ties count against, as in TensorFlow's top-k.
    true = logits[np.arange(len(label)), label]
    rank = (logits > true[:, np.newaxis]).sum(axis=1)
    log_probability = true - _log_sum_exp(logits)
    return {
        **_accuracy_with_interval(f"{split}/label_top_1_accuracy", right),
        f"{split}/label_top_5_accuracy": float(np.mean(rank < 5)),
        f"{split}/supervised_loss": float(-np.mean(log_probability)),
    }


def _log_sum_exp(logits: np.ndarray) -> np.ndarray:
    top = logits.max(axis=1)
    return top + np.log(np.exp(logits - top[:, np.newaxis]).sum(axis=1))


def score_features(
    train: ImageOutputs, held_out: ImageOutputs, split: str, k: int, linear_probe: bool
) -> dict[str, float]:
    """Accuracy of k-NN (cosine) and, if asked, of a linear probe, from frozen features.

    Args:
        train: Outputs for the training images: the neighbours, and what the probe is fitted on.
        held_out: Outputs for the images to score.
        split: Name of what is scored, the prefix of every key.
        k: Neighbours.
        linear_probe: Whether to fit the probe.

    Returns:
        The numbers; empty without labels on both sides.
    """
    return feature_accuracies(tell_by_features(train, held_out, k, linear_probe), held_out, split)


def feature_accuracies(
    told: Mapping[str, np.ndarray], held_out: ImageOutputs, split: str
) -> dict[str, float]:
    """The accuracies of what `tell_by_features` gives, with Wilson's intervals."""
    label = held_out.label[held_out.label >= 0]
    scores: dict[str, float] = {}
    for method, own in told.items():
        scores |= _accuracy_with_interval(f"{split}/{method}_accuracy", own.argmax(axis=1) == label)
    return scores


def tell_by_features(
    train: ImageOutputs,
    held_out: ImageOutputs,
    k: int,
    linear_probe: bool,
    num_classes: int | None = None,
) -> dict[str, np.ndarray]:
    """Class scores of images by k-NN (cosine) and, if asked, a linear probe on frozen features.

    Args:
        train: Outputs for the images to learn from.
        held_out: Outputs for the images to score.
        k: Neighbours; fewer if fewer images have a label.
        linear_probe: Whether to fit the probe.
        num_classes: Columns of the scores; the largest class + 1 if None.

    Returns:
        `knn` and `linear_probe` -> scores float64 [m, K], in the order of the held-out images with
        a label; nothing without labels on both sides.
    """
    fit, held = train.label >= 0, held_out.label >= 0
    if not held.any() or len(np.unique(train.label[fit])) < 2:
        return {}
    x, y, z = train.features[fit], train.label[fit], held_out.features[held]
    told = {"knn": knn_scores(x, y, z, k=min(k, len(y)), num_classes=num_classes)}
    if linear_probe:
        told["linear_probe"] = fit_linear_probe(x, y, num_classes=num_classes).predict_proba(z)
    return told


def knn_right(train: ImageOutputs, held_out: ImageOutputs, k: int) -> np.ndarray | None:
    """Marks the labelled held-out images that k-NN (cosine) classifies right.

    Args:
        train: Outputs for the images that are the neighbours.
        held_out: Outputs for the images to score.
        k: Neighbours; fewer if fewer images have a label.

    Returns:
        bool [m], in the order of the held-out images with a label; None without labels on both
        sides.
    """
    told = tell_by_features(train, held_out, k, linear_probe=False)
    if not told:
        return None
    right: np.ndarray = told["knn"].argmax(axis=1) == held_out.label[held_out.label >= 0]
    return right


def worth_saying(scores: Mapping[str, float], split: str, classes: int) -> list[str]:
    """The names of the accuracies of a split that are informative.

    Args:
        scores: Of an evaluation or a validation.
        split: The split that they are of.
        classes: Number of classes: the true one is always among the best five of five or fewer.
    """
    return [
        name
        for name in scores
        if name.startswith(f"{split}/")
        and name.endswith("_accuracy")
        and not (name.endswith("top_5_accuracy") and classes < 6)
    ]


def write_predictions(
    path: Path, outputs: ImageOutputs, class_names: tuple[str, ...], manifest: Manifest | None
) -> None:
    """Writes one row an image: where it is, true and predicted class, probability of every class.

    Probabilities have all digits, so that they read back as the same numbers.

    Args:
        path: The CSV file.
        outputs: With logits.
        class_names: Columns of the logits.
        manifest: The images in the order of their index; without it, the index stands for the path.
    """
    if outputs.logits is None:
        return
    probabilities = softmax(outputs.logits)
    places = place_columns(manifest) if manifest else {"path": list(map(str, outputs.index))}
    rows = [[*places, "true", "predicted", *(f"score_{name}" for name in class_names)]]
    for i, index in enumerate(outputs.index):
        row = index if manifest else i
        true = class_names[outputs.label[i]] if outputs.label[i] >= 0 else ""
        best = class_names[int(probabilities[i].argmax())]
        where = (texts[row] for texts in places.values())
        rows.append([*where, true, best, *(repr(float(p)) for p in probabilities[i])])
    write_csv(path, rows)
