"""From stored embeddings to the pages that explore and compare them (`simclr_tf.explore`)."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.groups import inner_paths
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.places import PLACE, place_columns, short_names
from data_prep.manifest.root import common_folder
from data_prep.parallel import in_parallel
from data_prep.reading.thumbnails import blank, thumbnail
from simclr_tf.embedding.settings import PageSettings, names_in
from simclr_tf.embedding.stored import Stored
from simclr_tf.evaluation.blockwise import Picked
from simclr_tf.explore.data import ExploreData
from simclr_tf.explore.page import write_explore_page
from simclr_tf.training.run_warnings import sentence

log = logging.getLogger(__name__)

_SIDE = 80  # pixels of a thumbnail


def write_exploration(
    folder: Path, stored: Stored, derived: Mapping[str, Any], page: PageSettings, seed: int
) -> list[str]:
    """Writes `explore.html`, of a seeded sample where the images are many.

    Args:
        folder: Where to write.
        stored: The embedding.
        derived: Columns that were computed: clusters.
        page: Projections, and how many images are shown.
        seed: Of sample and projections.

    Returns:
        What was left out, sentences.
    """
    remarks = []
    rows = shown_rows(_strata(stored, derived), page.explore_limit, seed)
    if len(rows) < len(stored):
        remarks.append(f"explore.html shows {len(rows)} of {len(stored)} images (--explore_limit)")
    texts = {name: list(c) for name, c in derived.items() if not isinstance(c, np.ndarray)}
    data = explore_data(stored, rows, texts)
    write_explore_page(folder, data, names_in(page.projections), seed)
    return remarks


def shown_rows(strata: Sequence[str], most: int, seed: int) -> np.ndarray:
    """A seeded sample of rows in which every stratum has its share: int64 [at most most], sorted.

    Args:
        strata: One an image.
        most: Rows; all of them if there are no more.
        seed: Of the draw.
    """
    n = len(strata)
    if n <= most:
        return np.arange(n)
    order = np.random.default_rng(seed).permutation(n)
    number = np.unique(strata, return_inverse=True)[1][order]
    by_stratum = np.argsort(number, kind="stable")
    sizes = np.bincount(number)
    # The position of each row within its stratum, as a share: the smallest shares are drawn.
    starts = np.repeat(np.cumsum(sizes) - sizes, sizes)
    share = (np.arange(n) - starts + 0.5) / np.repeat(sizes, sizes)
    drawn = by_stratum[np.lexsort((by_stratum, share))[:most]]
    return np.sort(order[drawn])


def _strata(stored: Stored, derived: Mapping[str, Any]) -> list[str]:
    """Labels where there are any, or else clusters."""
    if stored.label_columns:
        return stored.columns[stored.label_columns[0]]
    return list(derived.get("kmeans", [""] * len(stored)))


def explore_data(
    stored: Stored,
    rows: np.ndarray,
    derived: Mapping[str, Sequence[str]],
    names: Sequence[str] | None = None,
    title: str = "",
) -> ExploreData:
    """What the pages are made of.

    Args:
        stored: The embedding.
        rows: int64 [m], the images to show.
        derived: Columns [n] beside those of the embedding.
        names: Of all n images; None = `short_names`.
        title: Of the page; empty = encoder and layer.
    """
    names = short_names(stored.images) if names is None else names
    columns = {n: c for n, c in stored.columns.items() if n not in PLACE} | dict(derived)
    records = [stored.images.records[row] for row in rows]
    return ExploreData(
        title=title or _title(stored),
        names=[names[row] for row in rows],
        thumbnails=thumbnails(stored.images.subset(records)),
        features=np.asarray(Picked(stored.features, rows)[slice(0, len(rows))], np.float32),
        columns={name: [texts[row] for row in rows] for name, texts in columns.items()},
        facts=_facts(stored),
        places=_places(stored, rows),
        root=common_folder(stored.images.files()),
        first=_first(stored.facts),
    )


def _places(stored: Stored, rows: np.ndarray) -> dict[str, list[str]]:
    """Where images lie below the folder that holds all of them, as columns of a manifest."""
    images = stored.images
    columns = {
        **place_columns(images),
        "path": [path.lstrip("/") for path in inner_paths(images)],
        "reading": [record.reading for record in images.records],
    }
    picked = {name: [texts[row] for row in rows] for name, texts in columns.items()}
    return {name: texts for name, texts in picked.items() if any(texts)}


def thumbnails(images: Manifest) -> list[bytes]:
    """A small JPEG of each image, read as declared; a grey one where the file is gone."""
    jobs = list(zip(images.files(), images.records, strict=True))
    made = list(in_parallel(partial(_thumbnails, side=_SIDE), jobs))
    if missing := sum(picture is None for picture in made):
        log.warning("%d of %d images cannot be read any more: shown grey", missing, len(made))
    return [blank(_SIDE) if picture is None else picture for picture in made]


def _thumbnails(jobs: Sequence[tuple[str, Record]], side: int) -> list[bytes | None]:
    made: list[bytes | None] = []
    for file, record in jobs:
        try:
            made.append(thumbnail(file, record.tile, record.reading, side))
        except UserError:
            made.append(None)
    return made


def _first(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """What the page begins with: alarms, and whether the features are above the floors."""
    floors = facts.get("floors", {})
    return (
        *map(sentence, facts.get("alarms", ())),
        *(f"{name}: {verdict['sentence']}" for name, verdict in floors.items()),
    )


def _title(stored: Stored) -> str:
    """The end of the encoder's path, and the layer."""
    source = Path(stored.facts["encoder"]["source"])
    name = source.parent.name if source.name == "encoder.keras" else source.name
    return f"{name or source.name}, {stored.facts['endpoint']}"


def _facts(stored: Stored) -> dict[str, str]:
    """What the page says of the embedding."""
    facts = stored.facts
    said = {
        "encoder": str(facts["encoder"]["source"]),
        "endpoint": str(facts["endpoint"]),
        "dimensions": str(facts["dimensions"]),
        "images": str(facts["images"]),
    }
    for column, numbers in facts.get("measures", {}).items():
        for score in numbers["scores"]:
            where = f", {score['split']}" if "split" in score else ""
            what = f"{score['method'].replace('_', ' ')} accuracy ({column}{where})"
            said[what] = _interval(score["accuracy"])
        for method, agreement in numbers["clusters"].items():
            said[f"{method} NMI ({column})"] = _interval(agreement["nmi"])
    return said


def _interval(number: Mapping[str, float | None]) -> str:
    value, low, high = (number[name] for name in ("value", "low", "high"))
    if value is None:
        return "not defined"
    return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
