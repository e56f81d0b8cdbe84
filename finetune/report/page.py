"""`report.html` of a classifier: one self-contained page, from what `write_results` left."""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.identity import image_name
from data_prep.manifest.leaks import LeakCheck, check_leaks
from data_prep.manifest.manifest import Manifest, canonical_split
from data_prep.page import (
    Page,
    Picture,
    Section,
    Table,
    render_page,
    repeat_section,
    software,
    warning_paragraphs,
)
from data_prep.phrases import capitalized, sentence
from data_prep.reading.thumbnails import blank, thumbnail
from data_prep.storage import Checksums
from finetune.report.files import StoredResults, read_results
from finetune.report.results import Decision
from finetune.report.scored_split import UNKNOWN, ScoredSplit
from finetune.report.sections import (
    class_section,
    curve_section,
    headline,
    main_split,
    metric_section,
)
from simclr_tf.evaluation.figures import NARROW, Curve, figure_picture, loss_curves, view_sheet
from simclr_tf.evaluation.floors import FloorVerdict, floor_section

_LEAK_WORDS = {
    "picture": "the same picture (file, array and page)",
    "file content": "files with equal bytes (SHA-256)",
    "image content": "files with equal bytes, pages and tiles with equal values (SHA-256)",
    "group": "the same group",
    "target": "the same target",
}


def data_section(
    stored: StoredResults,
    manifest: Manifest | None,
    leaks: Sequence[LeakCheck],
    model: tuple[str, ...],
) -> Section:
    """The section.

    Args:
        stored: Results, whose splits stand in where no manifest is known.
        manifest: All images of the run; None = not known.
        leaks: From `check_leaks`.
        model: Paragraphs on what was trained.
    """
    counts = _counts(stored, manifest)
    text = model
    if manifest is None:
        text = (*text, "No manifest was given: leaks between splits could not be looked for.")
    tables = [_count_table(counts, stored.results.class_names)]
    if leaks:
        tables.append(_leak_table(leaks))
    return Section("Data", text=text, tables=tuple(tables))


def _counts(stored: StoredResults, manifest: Manifest | None) -> dict[str, Counter[str]]:
    """Split -> class ("" = no label) -> images."""
    if manifest:
        own: dict[str, Counter[str]] = {split: Counter() for split in manifest.splits}
        for record in manifest.records:
            own.setdefault(record.split or "no split", Counter())[record.label] += 1
        return own
    names = (*stored.results.class_names, "")  # label -1 is the last one
    return {
        split: Counter(names[label] for label in scored.labels)
        for split, scored in stored.splits.items()
    }


def _count_table(counts: dict[str, Counter[str]], class_names: Sequence[str]) -> Table:
    everything = sum(counts.values(), Counter())
    others = sorted(set(everything).difference(class_names, {""}))
    rows = [
        (name, *(str(own[name]) for own in counts.values()), str(everything[name]))
        for name in (*class_names, *others)
    ]
    if everything[""]:
        unlabeled = (str(own[""]) for own in counts.values())
        rows.append(("no label", *unlabeled, str(everything[""])))
    totals = (str(own.total()) for own in counts.values())
    rows.append(("all", *totals, str(everything.total())))
    return Table(
        ("class", *counts, "all"), tuple(rows), "Images by class and split", (len(rows) - 1,)
    )


def _leak_table(leaks: Sequence[LeakCheck]) -> Table:
    rows = tuple(
        (
            _LEAK_WORDS[leak.what],
            str(leak.checked) if leak.checked else "none known",
            (f"{leak.shared}: {leak.example}" if leak.shared else "none") if leak.checked else "–",
        )
        for leak in leaks
    )
    return Table(
        ("looked for in two splits", "compared", "found"),
        rows,
        "Leaks between splits",
        tuple(i for i, leak in enumerate(leaks) if leak.shared),
        "Nearly identical images and neighbouring fields of view are not found this way: name their"
        " groups in the manifest.",
    )


_PREFIX = re.compile(r"^(train|training|val|valid|validation|test)[_/](.+)$")


def curves_by_quantity(history: Mapping[str, np.ndarray]) -> dict[str, dict[str, Curve]]:
    """Sorts columns into quantities and splits.

    `val_loss`, `validation_loss` and `validation/loss` are the loss on validation; a column without
    a split, as Keras logs it, belongs to train.

    Args:
        history: The first column is the step or epoch; the others are values, nan where none.

    Returns:
        Quantity -> split -> (x, y), finite points alone; quantities that never change are left out.
    """
    if not history:
        return {}
    (_, x), *columns = history.items()
    found: dict[str, dict[str, Curve]] = defaultdict(dict)
    for name, values in columns:
        match = _PREFIX.match(name)
        split, quantity = (canonical_split(match[1]), match[2]) if match else ("train", name)
        finite = np.isfinite(values)
        if finite.any():
            found[quantity][split] = (x[finite], values[finite])
    return {
        quantity: curves
        for quantity, curves in found.items()
        if any(np.ptp(np.asarray(y)) > 0 for _, y in curves.values())
    }


def learning_pictures(history: Mapping[str, np.ndarray]) -> tuple[Picture, ...]:
    """One picture per quantity, with a curve for each split."""
    axis = next(iter(history), "")
    return tuple(
        figure_picture(
            loss_curves(curves, xlabel=axis, ylabel=_words(quantity), width=NARROW),
            f"{capitalized(_words(quantity))} on {' and '.join(curves)}.",
            half=True,
        )
        for quantity, curves in curves_by_quantity(history).items()
    )


def _words(name: str) -> str:
    return re.sub(r"[_/]+", " ", name).strip().replace("roc auc", "ROC AUC").replace("rmse", "RMSE")


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


REPORT_PAGE = "report.html"

_DPI = 160
_MOST_VIEWED = 8


@dataclass(frozen=True)
class RunFacts:
    """The contents of a report beside the numbers.

    Attributes:
        title: Of the page.
        model: Description of model and training, paragraphs of plain text.
        command: Program and arguments that repeat the run.
        manifest: The images of all splits, train included, with their files.
        views: [n, V, S, S, C], uint8 or float in [0, 1]: training images as the model saw them.
        views_note: Below them.
        settings: Flag or setting -> value.
        facts: Small print: software, machine, time.
        sections: Further parts of the page, before the command.
        alarms: Reasons not to trust the numbers, shown first.
        warnings: Warnings of the run, shown at the top.
        floors: Whether the network is above simpler methods; None = not measured.
    """

    title: str
    model: tuple[str, ...] = ()
    command: Sequence[str] = ()
    manifest: Manifest | None = None
    views: np.ndarray | None = None
    views_note: str = "Training images as the model sees them, after augmentation."
    settings: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    sections: tuple[Section, ...] = ()
    alarms: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    floors: FloorVerdict | None = None


def write_report(folder: str | os.PathLike[str], run: RunFacts) -> Path:
    """Writes `report.html` beside the results.

    Args:
        folder: Where `write_results` wrote; every number is read from its files.
        run: The contents of the page beside them.

    Returns:
        The page.

    Raises:
        UserError: There are no results in the folder.
    """
    page = classification_page(read_results(folder), run)
    Checksums(Path(folder)).write_last(REPORT_PAGE, render_page(page))
    return Path(folder) / REPORT_PAGE


def classification_page(stored: StoredResults, run: RunFacts) -> Page:
    """The page, in parts that can still be added to."""
    leaks = check_leaks(run.manifest) if run.manifest else ()
    results = stored.results
    name = main_split(results)
    sections = [
        data_section(stored, run.manifest, leaks, run.model),
        metric_section(results),
        *([floor_section(run.floors)] if run.floors else []),
        class_section(results, name),
        curve_section(results, stored.splits[name]),
        _mistakes(stored, name, run.manifest),
    ]
    if pictures := learning_pictures(stored.history):
        sections.append(Section("Learning curves", pictures=pictures))
    if run.views is not None:
        sections.append(_views(run.views, run.views_note))
    sections += run.sections
    if run.command or run.settings:
        sections.append(_repeat(run))
    verdict = [run.floors.verdict.sentence()] if run.floors else []
    return Page(
        title=run.title,
        summary=(
            *map(sentence, run.alarms),
            *_alarms(leaks),
            *verdict,
            *headline(stored, name, run.manifest),
            *warning_paragraphs(run.warnings, (*run.alarms, *verdict)),
        ),
        sections=tuple(sections),
        facts={"Software": software(), **run.facts},
    )


def _alarms(leaks: Sequence[LeakCheck]) -> list[str]:
    shared = [f"{leak.what}s: {leak.shared}" for leak in leaks if leak.shared]
    if not shared:
        return []
    return [
        "Do not trust these numbers: the splits have something in common "
        f"({', '.join(shared)}; see Data)."
    ]


def _mistakes(stored: StoredResults, name: str, manifest: Manifest | None) -> Section:
    results = stored.results
    split = results.splits[name]
    wrong = split.images - int(np.trace(split.confusion))
    pictures = mistake_pictures(
        stored.splits[name], results.decision, results.class_names, manifest
    )
    text = f"{wrong} of {split.images} {name} images are taken for another class."
    if pictures:
        text += (
            f" Here are the {len(pictures)} with the highest score of the wrong class, scores in"
            " brackets: look for wrong labels among them first. Images with other than 8 bits are"
            " stretched for display."
        )
    return Section("Most confident mistakes", text=(text,), gallery=pictures)


def _views(views: np.ndarray, note: str) -> Section:
    picture = figure_picture(view_sheet(views[:_MOST_VIEWED]), note, dpi=_DPI, least=520)
    return Section("What the model is shown", pictures=(picture,))


def _repeat(run: RunFacts) -> Section:
    rows = tuple((name, value) for name, value in run.settings.items())
    return repeat_section(
        *([run.command] if run.command else []),
        tables=(Table(("setting", "value"), rows, "Settings"),) if rows else (),
    )
