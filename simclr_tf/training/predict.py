"""What a network with a supervised head says of new images."""

import csv
import logging
from pathlib import Path

import numpy as np
import tensorflow as tf

from data_prep.augment.views import ViewConfig
from data_prep.errors import UserError
from data_prep.scan import scan_folder
from data_prep.sources import ManifestSource
from simclr_tf import distribution
from simclr_tf.checkpoints import imagenet
from simclr_tf.checkpoints.load import load_model
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.sections import MachineSettings
from simclr_tf.training.evaluator import Evaluator

log = logging.getLogger(__name__)


def class_labels(model: SimCLRModel) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and identifiers of the classes of a supervised head.

    Returns:
        Names from the preprocessing record, or numbers; and WordNet ids of ImageNet's classes, or
        empty strings.
    """
    number = model.num_classes or 0
    names = tuple(model.encoder.preprocessing.get("class_names", ()))
    if len(names) != number:
        names = tuple(str(i) for i in range(number))
    ids = imagenet.wordnet_ids() if names == imagenet.class_names() else ("",) * number
    return names, ids


def predict_folder(
    checkpoint: str, image_dir: str, output: Path, *, top_k: int = 5, batch_size: int = 64,
    skip_unreadable: bool = False,
) -> int:  # fmt: skip
    """Classifies every image below a folder and writes the best classes of each as CSV.

    Images are prepared as the network's preprocessing record says.

    Args:
        checkpoint: Anything that `load_model` reads, with a supervised head.
        image_dir: Folder of images.
        output: CSV: `path`, then for k = 1 to `top_k` `class_k`, `id_k` (WordNet id, for ImageNet's
            classes) and `score_k` (probability).
        top_k: Classes for each image.
        batch_size: Images of a pass.
        skip_unreadable: Leave damaged images out.

    Returns:
        The number of images.

    Raises:
        UserError: No supervised head, no such folder, or images that cannot be used.
    """
    model = load_model(checkpoint)
    if not model.num_classes:
        raise UserError(f"--checkpoint={checkpoint}: has no supervised head; fine-tune it first")
    manifest = scan_folder(image_dir, skip_unreadable=skip_unreadable)
    source = ManifestSource(manifest, channels=model.image_channels, cache="false")
    facts = model.encoder.preprocessing
    views = ViewConfig(
        facts["image_size"], model.image_channels, central_crop=facts["central_crop"]
    )
    devices = distribution.connect(MachineSettings(distribute="one_device"))
    logits = Evaluator(model, views, devices, batch_size).outputs(source).logits
    probabilities = tf.nn.softmax(tf.cast(logits, tf.float64)).numpy()
    names, ids = class_labels(model)
    top_k = min(top_k, len(names))
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :top_k]
    _write(output, manifest.files(), probabilities, order, names, ids)
    return len(manifest)


def _write(
    output: Path,
    files: list[str],
    probabilities: np.ndarray,
    order: np.ndarray,
    names: tuple[str, ...],
    ids: tuple[str, ...],
) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = [f"{what}_{k + 1}" for k in range(order.shape[1])
                   for what in ("class", "id", "score")]  # fmt: skip
        writer.writerow(["path", *columns])
        for path, row, best in zip(files, probabilities, order, strict=True):
            cells = [cell for c in best for cell in (names[c], ids[c], f"{row[c]:.7g}")]
            writer.writerow([path, *cells])
    temporary.replace(output)
