"""The same images in several embeddings, each with its nearest neighbours: what `explore` shows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.places import short_names
from data_prep.reading.thumbnails import thumbnail
from simclr_tf.explore.compare import write_comparison
from simclr_tf.explore.data import ExploreData
from simclr_tf.sweep.results import RunScores
from simclr_tf.sweep.summary import SettingScores

_MOST_IMAGES = 600
_SIDE = 96


def pinned_rows(images: Manifest, asked: Sequence[str]) -> list[int]:
    """Which images are to be shown with their neighbours.

    Args:
        images: Those that are scored.
        asked: Ends of their paths.

    Returns:
        Positions, in the order they are asked for.

    Raises:
        UserError: An end fits no image, or several.
    """
    rows = []
    names = short_names(images)
    for end in asked:
        fitting = [i for i, name in enumerate(names) if name.endswith(end)]
        if len(fitting) != 1:
            raise UserError(
                f"--pinned={end}: fits {len(fitting)} of the {len(images)} images that are scored; "
                "give the end of one path"
            )
        rows += fitting
    return rows


def shown_rows(number: int, pinned: Sequence[int]) -> list[int]:
    """The images among which neighbours are looked for: all, or of many a seeded part."""
    if number <= _MOST_IMAGES:
        return list(range(number))
    order = np.random.default_rng(0).permutation(number).tolist()
    return sorted({*pinned, *order[:_MOST_IMAGES]})


def write_neighbours(
    settings: Sequence[SettingScores],
    images: Manifest,
    class_names: Sequence[str],
    asked: Sequence[str],
    output: Path,
) -> str:
    """Writes the page of neighbours: for each setting its first seed.

    Args:
        settings: In the order of the page.
        images: Those that are scored, in the order of their indices.
        class_names: In the order of the labels.
        asked: See `pinned_rows`; none = some that differ are chosen.
        output: The sweep's folder.

    Returns:
        Name of the page in the folder; empty if there is none.
    """
    if len(settings) < 2:
        return ""
    first = settings[0].runs[0].held_out
    scored = images.subset(images.records[i] for i in first.indices)
    pinned = pinned_rows(scored, asked)
    rows = shown_rows(len(scored), pinned)
    every_name, files = short_names(scored), scored.files()
    pictures = [
        thumbnail(files[i], scored.records[i].tile, scored.records[i].reading, _SIDE) for i in rows
    ]
    labels = ["" if first.labels[i] < 0 else class_names[first.labels[i]] for i in rows]
    shown = [
        ExploreData(
            title=one.name,
            names=[every_name[i] for i in rows],
            thumbnails=pictures,
            features=one.runs[0].held_out.features[rows],
            columns={"label": labels},
            facts=_facts(one.runs[0]),
        )
        for one in settings
    ]
    return write_comparison(output, shown, [every_name[i] for i in pinned]).name


def _facts(run: RunScores) -> dict[str, str]:
    accuracy = run.score("knn_accuracy")
    known = {"run": run.run.name, "split": run.split, "steps": str(run.steps)}
    return known if accuracy is None else known | {"k-NN accuracy": f"{accuracy:.3f}"}
