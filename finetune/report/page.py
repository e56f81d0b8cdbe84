"""`report.html` of a classifier: one self-contained page, from what `write_results` left."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

from data_prep.checksums import Checksums
from data_prep.manifest.leaks import LeakCheck, check_leaks
from data_prep.manifest.manifest import Manifest
from data_prep.page import Page, Picture, Section, Table, render_page, shell_command
from finetune.report.data_section import data_section
from finetune.report.files import StoredResults, read_results
from finetune.report.learning import learning_pictures
from finetune.report.mistakes import mistake_pictures
from finetune.report.sections import (
    class_section,
    curve_section,
    headline,
    main_split,
    metric_section,
)
from simclr_tf.evaluation.drawing import to_png
from simclr_tf.evaluation.figures import view_sheet
from simclr_tf.evaluation.floor_section import FloorVerdict, floor_section
from simclr_tf.training.run_warnings import sentence

REPORT_PAGE = "report.html"

_DPI = 160
_MOST_VIEWED = 8


@dataclass(frozen=True)
class RunFacts:
    """What a report tells beside the numbers.

    Attributes:
        title: Of the page.
        model: What was trained and how, paragraphs of plain text.
        command: Program and arguments that repeat the run.
        manifest: The images of all splits, train included, with their files.
        views: [n, V, S, S, C], uint8 or float in [0, 1]: training images as the model saw them.
        views_note: Below them.
        settings: Flag or setting -> value.
        facts: Small print: software, machine, time.
        sections: Further parts of the page, before the command.
        alarms: What the numbers cannot be trusted for, said first.
        warnings: What the run warned of, said at the top.
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
        run: What the page tells beside them.

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


def warning_paragraphs(
    warnings: Sequence[str], said: Sequence[str] = ()
) -> tuple[str, ...]:  # fmt: skip
    """What a run warned of, for the top of a page.

    Args:
        warnings: Of the run.
        said: Those that the page says already.
    """
    return tuple(f"Warning of the run: {sentence(text)}" for text in warnings if text not in said)


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
    picture = Picture(
        to_png(view_sheet(views[:_MOST_VIEWED]), dpi=_DPI), note, width=672, least=520
    )
    return Section("What the model is shown", pictures=(picture,))


def _repeat(run: RunFacts) -> Section:
    rows = tuple((name, value) for name, value in run.settings.items())
    return Section(
        "To repeat it",
        tables=(Table(("setting", "value"), rows, "Settings"),) if rows else (),
        commands=(shell_command(run.command),) if run.command else (),
    )


def software() -> str:
    """Versions of what made a page."""
    packages = {"TensorFlow": "tensorflow", "Keras": "keras", "scikit-learn": "scikit-learn"}
    named = ", ".join(f"{name} {version(package)}" for name, package in packages.items())
    return f"simclr-tf {version('simclr-tf')}, {named}, Python {platform.python_version()}"
