"""`report.html` of predicted depth maps: one self-contained page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_prep.manifest.manifest import Manifest
from data_prep.page import Page, Section, Table, repeat_section, software, write_page
from data_prep.phrases import counted
from finetune.depth import figures
from finetune.depth.files import output_names, read_depths
from finetune.depth.metrics import DepthErrors
from finetune.depth.pipeline import ReadImages
from finetune.depth.results import ALL, DepthResults, Measurement
from finetune.report.page import REPORT_PAGE, learning_pictures
from finetune.report.sections import interval_cell
from simclr_tf.evaluation.classifier_figures import confusion_figure
from simclr_tf.evaluation.figures import figure_picture

_WORST = 6
_MOST_CASES = 12  # whose pictures are shown


@dataclass(frozen=True)
class DepthPageContents:
    """The contents of the page beside the numbers.

    Attributes:
        model: Description of models and steps, paragraphs of plain text.
        command: Program and arguments that repeat it.
        histories: Name of a generator -> what its training logged; empty if nothing is known.
        facts: Small print.
    """

    model: tuple[str, ...] = ()
    command: Sequence[str] = ()
    histories: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)


def write_depth_page(
    folder: Path,
    manifest: Manifest,
    measurement: Measurement,
    read_images: ReadImages,
    read_targets: ReadImages,
    facts: DepthPageContents,
) -> Path:
    """Writes the page beside the maps.

    Args:
        folder: Where `predict_depths` wrote.
        manifest: The images.
        measurement: From `measure_depths`.
        read_images: Reads images of records.
        read_targets: Reads their true depths.
        facts: The contents of the page beside the numbers.

    Returns:
        The page.
    """
    examples = _Examples(folder, manifest, measurement, read_images, read_targets)
    results = measurement.results
    sections = [Section("What was predicted", (*facts.model, *results.remarks))]
    sections += [_error_section(results)] if results.splits else []
    sections += [_site_section(measurement)] if results.sites else []
    sections += [_mean_section(measurement)] if results.splits and not results.sites else []
    sections += [_routing_section(results)] if results.routing else []
    sections += [_distributions(measurement), _profiles(examples, results.unit)]
    sections += [_maps(examples, results)]
    sections += _learning(facts.histories)
    if facts.command:
        sections.append(repeat_section(facts.command))
    page = Page(
        title="Depth maps of SEM images",
        summary=tuple(summary(results, len(manifest))),
        sections=tuple(sections),
        facts={"Software": software(), **facts.facts},
    )
    path = folder / REPORT_PAGE
    write_page(page, path)
    return path


def summary(results: DepthResults, images: int) -> list[str]:
    """The result in a few sentences, beside what could be said without an image."""
    unit = f" {results.unit}" if results.unit else ""
    told = []
    if results.splits:
        split = next(iter(results.splits))
        m = results.splits[split][ALL]
        told.append(_against_one_map(m, unit))
        told.append(
            f"On {counted(m.images, f'{split} image'.strip())}: RMSE {m.rmse:.2f}{unit}, MAE"
            f" {m.mae:.2f}{unit}, SSIM {m.ssim:.3f}; in brackets {m.rmse.level:.0%} intervals."
            f" The one depth that is best for all pixels has an RMSE of"
            f" {m.constant_rmse:.2f}{unit}, the one map that is best for all images"
            f" {m.map_rmse:.2f}{unit}."
        )
    if results.sites:
        s = results.sites
        told.append(
            f"Mean depth of {len(s.sites)} sites: RMSE {s.rmse:.2f}{unit}, bias"
            f" {s.bias:+.2f}{unit}. The one depth that is best for all sites has an RMSE of"
            f" {s.constant_rmse:.2f}{unit}."
        )
        if s.rmse.value >= s.constant_rmse > 0:
            told.append("The mean depths are no better than one depth for all sites.")
    if results.routing:
        told.append(
            f"{results.routing.accuracy:.3f} of {int(results.routing.confusion.sum())} images went"
            " to the generator of their own case."
        )
    return told or [f"{counted(images, 'image')}; nothing is known to measure them by."]


def _against_one_map(m: DepthErrors, unit: str) -> str:
    """Compares the model with the one map that is best for all images."""
    if m.rmse.value >= m.map_rmse:
        return "The model is no better than one map for all images: it has learnt nothing of use."
    against = f"RMSE {m.rmse.value:.2f} against {m.map_rmse:.2f}{unit}"
    if m.rmse.high < m.map_rmse:
        return f"Better than the one map that is best for all images ({against})."
    return f"Not told apart from the one map that is best for all images ({against})."


def _error_section(results: DepthResults) -> Section:
    tables = []
    for split, cases in results.splits.items():
        rows = tuple((case or "all", *_cells(m)) for case, m in cases.items())
        name = f"the {split} images" if split else "all images"
        tables.append(
            Table(
                ("case", "images", "RMSE", "skill", "MAE", "SSIM", "bias", "best\nconstant",
                 "one\nmap"),
                rows,
                f"Errors of {name}, in {results.unit or 'units of depth'}",
                (0,),
            )
        )  # fmt: skip
    first = results.splits[next(iter(results.splits))][ALL]
    note = (
        "RMSE and MAE are over all pixels of all images at once. SSIM (Wang et al. 2004) is"
        f" relative to the range {results.depth_min:g} to {results.depth_max:g}. Best constant and"
        " one map (for all) are the mean depth, and the mean map, of the very images of the row:"
        " nothing that does not look at an image does better. Skill is 1 - RMSE / RMSE of the best"
        " constant."
        f" In brackets {results.level:.0%} intervals: percentile bootstrap, {results.resamples}"
        f" samples of {first.units} independent units (groups, or images) within their case."
    )
    return Section("Errors", (note,), tuple(tables))


def _cells(m: DepthErrors) -> tuple[str, ...]:
    return (
        str(m.images),
        interval_cell(m.rmse, ".2f"),
        f"{m.skill.value:.3f}",
        interval_cell(m.mae, ".2f"),
        interval_cell(m.ssim),
        f"{m.bias.value:+.2f}",
        f"{m.constant_rmse:.2f}",
        f"{m.map_rmse:.2f}",
    )


def _site_section(measurement: Measurement) -> Section:
    results = measurement.results
    errors = results.sites
    assert errors is not None
    unit = results.unit or "units"
    rows = (
        (f"RMSE ({unit})", interval_cell(errors.rmse, ".2f")),
        (f"MAE ({unit})", interval_cell(errors.mae, ".2f")),
        (f"bias, predicted less known ({unit})", interval_cell(errors.bias, "+.2f")),
        ("correlation", interval_cell(errors.correlation)),
        (f"RMSE of the best constant ({unit})", f"{errors.constant_rmse:.2f}"),
        ("skill", interval_cell(errors.skill)),
        (f"RMSE of single images ({unit})", f"{errors.image_rmse:.2f}"),
    )
    points: dict[str, tuple[list[float], list[float]]] = {}
    for site in sorted(errors.sites, key=lambda s: s.case):
        known, predicted = points.setdefault(site.case, ([], []))
        known.append(site.known)
        predicted.append(site.predicted)
    few = min(site.images for site in errors.sites)
    most = max(site.images for site in errors.sites)
    counted = f"{few}" if few == most else f"{few} to {most}"
    picture = figure_picture(
        figures.mean_depth_figure(points, results.unit, "site"),
        "Every point is a site: mean of its predicted maps against its known mean depth.",
        half=True,
    )
    return Section(
        "Mean depth of the sites",
        (
            f"Of each of {len(errors.sites)} sites {counted} images were predicted; their mean"
            " depths are averaged and compared with the known one. Intervals are over sites. A"
            " single image may differ from the mean of its site without being wrong.",
        ),
        (Table(("mean depth of the sites", "value"), rows),),
        (picture,),
    )


def _mean_section(measurement: Measurement) -> Section:
    errors, results = measurement.errors, measurement.results
    assert errors is not None
    shown = set(measurement.rows.tolist())
    points: dict[str, tuple[list[float], list[float]]] = {}
    order = sorted(range(len(errors)), key=lambda k: measurement.cases[measurement.with_truth[k]])
    for position in order:
        row = int(measurement.with_truth[position])
        if row in shown:
            known, predicted = points.setdefault(measurement.cases[row], ([], []))
            known.append(float(errors.mean_true[position]))
            predicted.append(float(errors.mean_predicted[position]))
    picture = figure_picture(
        figures.mean_depth_figure(points, results.unit, "map"),
        "Every point is an image: mean of its predicted map against the mean of its true map.",
        half=True,
    )
    return Section("Mean depth of the images", pictures=(picture,))


def _routing_section(results: DepthResults) -> Section:
    found = results.routing
    assert found is not None
    rows = tuple(
        (name, str(int(counts.sum())), f"{counts[k] / counts.sum():.3f}" if counts.sum() else "–")
        for k, (name, counts) in enumerate(zip(found.names, found.confusion, strict=True))
    )
    total = int(found.confusion.sum())
    rows += (("all", str(total), f"{found.accuracy:.3f}"),)
    matrix = confusion_figure(found.confusion, found.names)
    return Section(
        "Routing",
        ("Which generator an image goes to is the router's choice; here it is compared with the"
         " case that is known of the image.",),
        (Table(("case", "images", "share routed\nto it"), rows, "", (len(rows) - 1,)),),
        (figure_picture(matrix, "Rows are the true cases, columns the generators that the images"
                        " went to."),),
    )  # fmt: skip


def _distributions(measurement: Measurement) -> Section:
    histograms, results = measurement.histograms, measurement.results
    cases = sorted(histograms.predicted)[:_MOST_CASES]
    pictures = tuple(
        figure_picture(
            figures.distribution_figure(
                histograms.edges, histograms.predicted[case], histograms.true.get(case),
                results.unit,
            ),
            f"{case or 'All images'}: share of the pixels by depth.",
            half=True,
        )
        for case in cases
    )  # fmt: skip
    return Section("Depth distributions", pictures=pictures)


class _Examples:
    """Images of the split that is shown, by how well they were predicted."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        measurement: Measurement,
        read_images: ReadImages,
        read_targets: ReadImages,
    ) -> None:
        self._folder, self._manifest, self._cases = folder, manifest, measurement.cases
        self._names = output_names(manifest)
        self._read_images, self._read_targets = read_images, read_targets
        self._rows, self._rmse = measurement.rows, {}
        if measurement.errors is not None:
            self._rmse = dict(
                zip(measurement.with_truth.tolist(), measurement.errors.rmse, strict=True)
            )
        self._measured = [row for row in self._rows.tolist() if row in self._rmse]

    def worst(self, number: int) -> list[figures.Example]:
        """Those with the largest errors, the largest first."""
        order = sorted(self._measured, key=lambda row: -self._rmse[row])
        return [self._example(row) for row in order[:number]]

    def typical(self) -> list[figures.Example]:
        """The image of median error of every case; the first one where errors are unknown."""
        by_case: dict[str, list[int]] = {}
        for row in self._measured or self._rows.tolist():
            by_case.setdefault(self._cases[row], []).append(row)
        chosen = []
        for case in sorted(by_case)[:_MOST_CASES]:
            rows = sorted(by_case[case], key=lambda row: self._rmse.get(row, 0.0))
            chosen.append(rows[(len(rows) - 1) // 2 if self._rmse else 0])
        return [self._example(row) for row in chosen]

    def _example(self, row: int) -> figures.Example:
        record = self._manifest.records[row]
        name = f"{self._cases[row]}: {Path(self._names[row]).name}".removeprefix(": ")
        true = None
        if row in self._rmse:
            name += f", RMSE {self._rmse[row]:.2f}"
            true = self._read_targets([record])[0, ..., 0]
        image = self._read_images([record])[0, ..., 0]
        predicted = read_depths(self._folder, [self._names[row]])[0]
        return figures.Example(name, image, predicted, true)


def _profiles(examples: _Examples, unit: str) -> Section:
    shown = examples.typical()
    which = "the image with the median error" if shown[0].true is not None else "one image"
    pictures = tuple(
        figure_picture(
            figures.profile_figure(e, unit), f"{e.name}, row {e.deepest_row}.", half=True
        )
        for e in shown
    )
    text = f"Of every case {which}: the row through the deepest point."
    return Section("Profiles across the holes", (text,), pictures=pictures)


def _maps(examples: _Examples, results: DepthResults) -> Section:
    shown = examples.worst(_WORST)
    title = "Worst images"
    text = "The images with the largest errors, the largest first. Red is predicted too deep."
    if not shown:
        shown, title, text = examples.typical(), "Examples", "One image of every case."
    pictures = tuple(
        figure_picture(figures.example_figure(example, results.unit), example.name, half=True)
        for example in shown
    )
    return Section(title, (text,), pictures=pictures)


def _learning(histories: Mapping[str, Mapping[str, np.ndarray]]) -> list[Section]:
    return [
        Section(f"Learning curves{f' of {name}' if name else ''}", pictures=pictures)
        for name, history in histories.items()
        if (pictures := learning_pictures(history))
    ]
