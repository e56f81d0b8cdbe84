"""Everything that is said of a stored embedding, and the files that say it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.manifest.places import PLACE, shown_names
from data_prep.phrases import counted
from simclr_tf.embedding.exploring import write_exploration
from simclr_tf.embedding.floors import FloorFeatures, floor_verdict
from simclr_tf.embedding.measures import Labelled, Scored, measure
from simclr_tf.embedding.settings import EmbedConfig, names_in
from simclr_tf.embedding.stored import FACTS, PARQUET, TABLE, Stored, write_facts
from simclr_tf.embedding.structure import Structure, find_structure
from simclr_tf.embedding.table import Columns, write_parquet, write_rows
from simclr_tf.evaluation.active_learning import suggest
from simclr_tf.evaluation.agreement import cluster_agreement
from simclr_tf.evaluation.blockwise import Progress
from simclr_tf.evaluation.floors import Verdict
from simclr_tf.evaluation.intervals import Interval

log = logging.getLogger(__name__)

CLUSTERS, NEIGHBOURS = "clusters.csv", "neighbours.csv"
PAIRS, SUGGESTIONS = "near_duplicates.csv", "suggestions.csv"
EXPERT = "expert"
ANALYSED = (
    TABLE, PARQUET, CLUSTERS, NEIGHBOURS, PAIRS, SUGGESTIONS, "explore.html", "projector", FACTS
)  # fmt: skip
"""What an analysis writes anew, or leaves out and may be out of date."""

# Settings that say how a stored embedding is looked at; they are kept with it.
_KEPT = ("structure", "measures", "labelling", "page")
_OF_ONE_CALL = ("embedding", "join", "compare", "pinned")


def analyse(
    stored: Stored,
    config: EmbedConfig,
    folder: Path,
    joined: dict[str, list[str]] | None = None,
    progress: Progress = lambda done, total: None,
) -> str:
    """Looks at an embedding and writes what it finds.

    Args:
        stored: The embedding.
        config: What to look for.
        folder: Where to write; features and images stay where they are.
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


def _write_structure(folder: Path, stored: Stored, found: Structure) -> None:
    names = shown_names(stored.columns)
    if found.clusters:
        write_rows(folder / CLUSTERS, _cluster_rows(stored, found, names))
    if found.neighbours:
        n, k = found.neighbours.indices.shape
        rows, near = np.repeat(np.arange(n), k), found.neighbours.indices.ravel()
        write_rows(
            folder / NEIGHBOURS,
            {
                "path": [names[row] for row in rows],
                "rank": np.tile(np.arange(1, k + 1), n),
                "neighbour": [names[row] for row in near],
                "similarity": found.neighbours.similarities.ravel(),
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


def _cluster_rows(stored: Stored, found: Structure, names: Sequence[str]) -> Columns:
    """A row a cluster: its size, its middle, and what most of it is called."""
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
    """The most frequent text, and its share; nothing of nothing."""
    if not texts:
        return ["", ""]
    names, counts = np.unique(texts, return_counts=True)
    return [str(names[counts.argmax()]), f"{counts.max() / len(texts):.3f}"]


def _write_suggestions(folder: Path, stored: Stored, config: EmbedConfig) -> None:
    """A list to fill in: the column `expert` is empty, and `--join` reads it."""
    settings = config.labelling
    labelled = np.array([any(c) for c in zip(*_label_texts(stored), strict=True)], bool)
    rows = suggest(
        stored.features,
        labelled,
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


def _label_texts(stored: Stored) -> list[list[str]]:
    return [stored.columns[name] for name in ("label", *stored.expert_columns)]


@dataclass(frozen=True)
class Agreement:
    """How well a clustering agrees with labels.

    Attributes:
        images: Labelled images that are in a cluster.
        numbers: By `agreement.AGREEMENT_NAMES`.
    """

    images: int
    numbers: dict[str, Interval]


Numbers = tuple[list[Scored], dict[str, Agreement], Labelled]


def _measure(stored: Stored, found: Structure, column: str, config: EmbedConfig) -> Numbers:
    """k-NN, probe, and by clustering the agreement with one column of labels."""
    known = Labelled.of(stored.columns[column], stored.columns["split"], stored.units)
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
    stored: Stored, measures: dict[str, Numbers], config: EmbedConfig
) -> dict[str, Verdict]:
    """Column of labels -> whether the features are above the floors, where there are floors."""
    floors = FloorFeatures.load(stored.folder) if config.measures.floors else None
    if floors is None:
        return {}
    found = {
        name: floor_verdict(scored, known, floors, config.measures)
        for name, (scored, _, known) in measures.items()
    }
    return {name: verdict for name, verdict in found.items() if verdict}


def _as_json(
    scored: list[Scored], agreement: dict[str, Agreement], known: Labelled
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
