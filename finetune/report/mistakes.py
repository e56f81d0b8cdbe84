"""The mistakes that a classifier is surest of, with their pictures."""

import os
from collections.abc import Sequence

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.identity import image_name
from data_prep.manifest.manifest import Manifest
from data_prep.page import Picture
from data_prep.reading.thumbnails import blank, thumbnail
from finetune.report.scored_split import UNKNOWN, ScoredSplit
from finetune.report.threshold import Decision


def most_confident_mistakes(split: ScoredSplit, decision: Decision, number: int) -> np.ndarray:
    """Positions of wrongly classified images, the highest score of the predicted class first.

    Args:
        split: The scores.
        decision: How they become classes.
        number: At most so many.

    Returns:
        int64 [m]; images without a label are no mistakes.
    """
    predicted = decision.classes(split.scores)
    wrong = np.flatnonzero((predicted != split.labels) & (split.labels != UNKNOWN))
    score = split.scores[wrong, predicted[wrong]]
    return wrong[np.argsort(-score, kind="stable")][:number]


def mistake_pictures(
    split: ScoredSplit,
    decision: Decision,
    class_names: Sequence[str],
    manifest: Manifest | None,
    number: int = 15,
) -> tuple[Picture, ...]:
    """Thumbnails of the most confident mistakes; a grey field where an image cannot be read.

    Args:
        split: The scores.
        decision: How they become classes.
        class_names: In the order of the scores' columns.
        manifest: Where the images are; None = the paths hold as they are.
        number: At most so many.
    """
    files = {r.path: f for r, f in zip(manifest.records, manifest.files(), strict=True)} if (
        manifest
    ) else {}  # fmt: skip
    predicted = decision.classes(split.scores)
    pictures = []
    for i in most_confident_mistakes(split, decision, number):
        path, tile = split.paths[i], split.tiles[i] if split.tiles else ""
        reading = split.readings[i] if split.readings else ""
        name = image_name(os.path.basename(path), reading, tile)
        true, given = split.labels[i], predicted[i]
        caption = (
            f"{class_names[true]} ({split.scores[i, true]:.3f})\n"
            f"taken for {class_names[given]} ({split.scores[i, given]:.3f})\n"
            f"{name}"
        )
        try:
            data = thumbnail(files.get(path, path), tile, reading)
        except UserError as error:
            data = blank()
            caption += f"\n(cannot be shown: {_reason(error, path)})"
        pictures.append(Picture(data, caption, alt=image_name(path, reading, tile), kind="jpeg"))
    return tuple(pictures)


def _reason(error: UserError, path: str) -> str:
    """The message without the file's name before it, which the caption gives."""
    text = str(error)
    _, found, reason = text.partition(f"{os.path.basename(path)}: ")
    return reason if found else text
