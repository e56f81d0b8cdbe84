"""The analysis of a stored embedding and its pages."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.groups import inner_paths
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.places import PLACE, place_columns, short_names, shown_names
from data_prep.manifest.root import common_folder
from data_prep.parallel import in_parallel
from data_prep.phrases import counted, sentence
from data_prep.reading.thumbnails import blank, thumbnail
from data_prep.storage import new_folder
from simclr_tf.embedding.measures import (
    FloorFeatures,
    LabelColumn,
    LabelScores,
    Structure,
    find_structure,
    floor_verdict,
    measure,
)
from simclr_tf.embedding.settings import EmbedConfig, PageSettings, names_in
from simclr_tf.embedding.stored import (
    FACTS,
    PARQUET,
    TABLE,
    Columns,
    StoredEmbedding,
    join_labels,
    open_stored,
    publish,
    write_facts,
    write_parquet,
    write_rows,
)
from simclr_tf.evaluation.active_learning import suggest
from simclr_tf.evaluation.clustering import cluster_agreement
from simclr_tf.evaluation.floors import Verdict
from simclr_tf.evaluation.intervals import Interval
from simclr_tf.evaluation.neighbors import FeatureSubset, Progress
from simclr_tf.explore.data import ExploreData
from simclr_tf.explore.page import write_explore_page

log = logging.getLogger(__name__)

_SIDE = 80  # pixels of a thumbnail


def write_exploration(
    folder: Path, stored: StoredEmbedding, derived: Mapping[str, Any], page: PageSettings, seed: int
) -> list[str]:
    """Writes `explore.html`, of a seeded sample where the images are many.

    Args:
        folder: The folder to write to.
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


def _strata(stored: StoredEmbedding, derived: Mapping[str, Any]) -> list[str]:
    """Labels where there are any, or else clusters."""
    if stored.label_columns:
        return stored.columns[stored.label_columns[0]]
    return list(derived.get("kmeans", [""] * len(stored)))


def explore_data(
    stored: StoredEmbedding,
    rows: np.ndarray,
    derived: Mapping[str, Sequence[str]],
    names: Sequence[str] | None = None,
    title: str = "",
) -> ExploreData:
    """Collects what the explorer's pages show.

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
        features=np.asarray(FeatureSubset(stored.features, rows)[slice(0, len(rows))], np.float32),
        columns={name: [texts[row] for row in rows] for name, texts in columns.items()},
        facts=_facts(stored),
        places=_places(stored, rows),
        root=common_folder(stored.images.files()),
        first=_first(stored.facts),
    )


def _places(stored: StoredEmbedding, rows: np.ndarray) -> dict[str, list[str]]:
    """Columns of a manifest that locate images below the folder that holds all of them."""
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
    """The sentences that the page begins with: alarms, and verdicts against the floors."""
    floors = facts.get("floors", {})
    return (
        *map(sentence, facts.get("alarms", ())),
        *(f"{name}: {verdict['sentence']}" for name, verdict in floors.items()),
    )


def _title(stored: StoredEmbedding) -> str:
    """The end of the encoder's path, and the layer."""
    source = Path(stored.facts["encoder"]["source"])
    name = source.parent.name if source.name == "encoder.keras" else source.name
    return f"{name or source.name}, {stored.facts['endpoint']}"


def _facts(stored: StoredEmbedding) -> dict[str, str]:
    """The facts about the embedding that the page lists, by name."""
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


CLUSTERS, NEIGHBORS = "clusters.csv", "neighbours.csv"
PAIRS, SUGGESTIONS = "near_duplicates.csv", "suggestions.csv"
EXPERT = "expert"
ANALYZED = (
    TABLE, PARQUET, CLUSTERS, NEIGHBORS, PAIRS, SUGGESTIONS, "explore.html", "projector", FACTS
)  # fmt: skip
"""What an analysis writes anew, or leaves out and may be out of date."""

# Settings that say how a stored embedding is looked at; they are kept with it.
_KEPT = ("structure", "measures", "labelling", "page")
_OF_ONE_CALL = ("embedding", "join", "compare", "pinned")


def analyze_embedding(
    stored: StoredEmbedding,
    config: EmbedConfig,
    folder: Path,
    joined: dict[str, list[str]] | None = None,
    progress: Progress = lambda done, total: None,
) -> str:
    """Looks at an embedding and writes what it finds.

    Args:
        stored: The embedding.
        config: What to look for.
        folder: The folder to write to; features and images stay where they are.
        joined: Columns of an expert to add or replace.
        progress: Called with (images compared, images in all).

    Returns:
        A table of the measures, for people.
    """
    if joined:
        experts = tuple(dict.fromkeys((*stored.expert_columns, *joined)))
        facts = {**stored.facts, "expert_columns": list(experts)}
        stored = replace(stored, columns={**stored.columns, **joined}, facts=facts)
    seed = config.measures.seed
    found = find_structure(stored, config.structure, seed, progress)
    columns: Columns = {**stored.columns, **found.columns()}
    write_rows(folder / TABLE, columns)
    if "parquet" in names_in(config.storage.formats):
        write_parquet(folder / PARQUET, columns, stored.features, stored.features.dtype)
    _write_structure(folder, stored, found)
    if config.labelling.suggest_labels:
        _write_suggestions(folder, stored, config)
    measures = {name: _measure(stored, found, name, config) for name in stored.label_columns}
    verdicts = _verdicts(stored, measures, config)
    facts = {
        **stored.facts,
        **found.to_json(),
        "measures": {name: _as_json(*numbers) for name, numbers in measures.items()},
        "floors": {name: verdict.to_json() for name, verdict in verdicts.items()},
        "remarks": found.remarks,
        "settings": kept_settings(config),
    }
    if config.page.explore:
        whole = replace(stored, facts=facts)
        remark = write_exploration(folder, whole, found.columns(), config.page, seed)
        facts["remarks"] = [*found.remarks, *remark]
    for remark in (*facts.get("alarms", ()), *facts["remarks"]):
        log.warning("%s", remark)
    write_facts(folder, facts)
    told = [f"{name}: {verdict.sentence()}" for name, verdict in verdicts.items()]
    return "\n".join([measures_table(measures), *told])


def kept_settings(config: EmbedConfig) -> dict[str, Any]:
    """The settings of an analysis by name, for one that is made again."""
    return {
        s.name: getattr(getattr(config, s.topic), s.name)
        for s in config.settings()
        if (s.topic in _KEPT or s.name == "formats") and s.name not in _OF_ONE_CALL
    }


def _write_structure(folder: Path, stored: StoredEmbedding, found: Structure) -> None:
    names = shown_names(stored.columns)
    if found.clusters:
        write_rows(folder / CLUSTERS, _cluster_rows(stored, found, names))
    if found.neighbors:
        n, k = found.neighbors.indices.shape
        rows, near = np.repeat(np.arange(n), k), found.neighbors.indices.ravel()
        write_rows(
            folder / NEIGHBORS,
            {
                "path": [names[row] for row in rows],
                "rank": np.tile(np.arange(1, k + 1), n),
                "neighbour": [names[row] for row in near],
                "similarity": found.neighbors.similarities.ravel(),
            },
        )
    if found.pairs:
        write_rows(
            folder / PAIRS,
            {
                "path": [names[row] for row in found.pairs.pairs[:, 0]],
                "other": [names[row] for row in found.pairs.pairs[:, 1]],
                "similarity": found.pairs.similarities,
            },
        )


def _cluster_rows(stored: StoredEmbedding, found: Structure, names: Sequence[str]) -> Columns:
    """Table of clusters: size, medoid, and the most frequent label with its share."""
    rows: dict[str, list[str]] = {"method": [], "cluster": [], "images": [], "medoid": []}
    for name in stored.label_columns:
        rows |= {f"{name}_most": [], f"{name}_share": []}
    for method, clusters in found.clusters.items():
        for cluster, medoid in enumerate(clusters.medoids):
            members = np.flatnonzero(clusters.labels == cluster)
            cells = [method, str(cluster), str(len(members)), names[medoid]]
            for name in stored.label_columns:
                texts = [stored.columns[name][row] for row in members]
                cells += _most_frequent([text for text in texts if text])
            for column, cell in zip(rows.values(), cells, strict=True):
                column.append(cell)
    return rows


def _most_frequent(texts: list[str]) -> list[str]:
    """The most frequent text and its share; two empty texts if there are none."""
    if not texts:
        return ["", ""]
    names, counts = np.unique(texts, return_counts=True)
    return [str(names[counts.argmax()]), f"{counts.max() / len(texts):.3f}"]


def _write_suggestions(folder: Path, stored: StoredEmbedding, config: EmbedConfig) -> None:
    """A list to fill in: the column `expert` is empty, and `--join` reads it."""
    settings = config.labelling
    labeled = np.array([any(c) for c in zip(*_label_texts(stored), strict=True)], bool)
    rows = suggest(
        stored.features,
        labeled,
        settings.suggest_labels,
        settings.suggest_by,
        config.measures.seed,
    )
    place = [name for name in PLACE if name in stored.columns]
    write_rows(
        folder / SUGGESTIONS,
        {
            "rank": [str(rank) for rank in range(1, len(rows) + 1)],
            **{name: [stored.columns[name][row] for row in rows] for name in place},
            EXPERT: [""] * len(rows),
        },
    )
    log.info("%s to label next: %s", counted(len(rows), "image"), SUGGESTIONS)


def _label_texts(stored: StoredEmbedding) -> list[list[str]]:
    return [stored.columns[name] for name in ("label", *stored.expert_columns)]


@dataclass(frozen=True)
class Agreement:
    """Agreement of a clustering with labels.

    Attributes:
        images: Labelled images that are in a cluster.
        numbers: By `evaluation.clustering.AGREEMENT_NAMES`.
    """

    images: int
    numbers: dict[str, Interval]


Numbers = tuple[list[LabelScores], dict[str, Agreement], LabelColumn]


def _measure(
    stored: StoredEmbedding, found: Structure, column: str, config: EmbedConfig
) -> Numbers:
    """k-NN, probe, and by clustering the agreement with one column of labels."""
    known = LabelColumn.of(stored.columns[column], stored.columns["split"], stored.units)
    agreement = {}
    for method, clusters in found.clusters.items():
        rows = known.rows()
        rows = rows[clusters.labels[rows] >= 0]
        if len(rows):
            numbers = cluster_agreement(
                known.labels[rows],
                clusters.labels[rows],
                groups=known.groups(rows),
                resamples=config.measures.bootstrap,
                seed=config.measures.seed,
            )
            agreement[method] = Agreement(len(rows), numbers)
    return measure(stored.features, known, config.measures), agreement, known


def _verdicts(
    stored: StoredEmbedding, measures: dict[str, Numbers], config: EmbedConfig
) -> dict[str, Verdict]:
    """Verdicts of the features against the floors, by column of labels; empty without floors."""
    floors = FloorFeatures.load(stored.folder) if config.measures.floors else None
    if floors is None:
        return {}
    found = {
        name: floor_verdict(scored, known, floors, config.measures)
        for name, (scored, _, known) in measures.items()
    }
    return {name: verdict for name, verdict in found.items() if verdict}


def _as_json(
    scored: list[LabelScores], agreement: dict[str, Agreement], known: LabelColumn
) -> dict[str, Any]:
    labels = known.labels[known.rows()]
    counts = np.bincount(labels, minlength=len(known.class_names))
    return {
        "images": len(labels),
        "classes": dict(zip(known.class_names, counts.tolist(), strict=True)),
        "scores": [score.to_json() for score in scored],
        "clusters": {
            method: {"images": found.images}
            | {name: value.to_json() for name, value in found.numbers.items()}
            for method, found in agreement.items()
        },
    }


def measures_table(measures: dict[str, Numbers]) -> str:
    """The measures of every column of labels, a line each, with 95 % intervals."""
    rows = [("labels", "measure", "images", "value [95 % interval]")]
    for name, (scored, agreement, _) in measures.items():
        for score in scored:
            where = f" on {score.split}" if score.split else ""
            what = f"{score.method.replace('_', ' ')} accuracy{where}"
            rows.append((name, what, str(score.images), format(score.metrics["accuracy"])))
        for method, found in agreement.items():
            for number, value in found.numbers.items():
                rows.append((name, f"{method} {number}", str(found.images), format(value)))
    if len(rows) == 1:
        return "no labels: nothing is measured against them"
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def reanalyze(config: EmbedConfig, progress: Progress = lambda done, total: None) -> str:
    """Looks at a finished embedding again, with an expert's labels if there are any.

    Args:
        config: `embedding` names the folder, whose files are replaced at the end, `image_dir` where
            the images lie now, if not where they did.
        progress: Called with (images compared, images in all).

    Returns:
        A table of the measures.

    Raises:
        UserError: There is no such embedding, or the labels cannot be joined; nothing is changed.
    """
    folder = Path(config.labelling.embedding).expanduser().absolute()
    stored = open_stored(folder, image_dir=config.images.image_dir)
    stored.facts.pop("asked", None)  # it is no longer what the first command asked for
    joined = join_labels(stored, Path(config.labelling.join)) if config.labelling.join else None
    place = folder.with_name(f".{folder.name}.again")
    shutil.rmtree(place, ignore_errors=True)
    try:
        with new_folder(place) as made:
            table = analyze_embedding(stored, config, made, joined, progress)
        publish(place, folder, ANALYZED)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return table


def stored_settings(folder: str) -> dict[str, Any]:
    """The settings with which a finished embedding was looked at."""
    return dict(open_stored(Path(folder).expanduser()).facts.get("settings", {}))
