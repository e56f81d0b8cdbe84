"""The page that a sweep ends in: settings side by side, and no more than the numbers carry."""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.places import short_names
from data_prep.page import (
    Page,
    Picture,
    Section,
    Table,
    repeat_section,
    software,
    warnings_section,
    write_page,
)
from data_prep.phrases import counted, format_seconds, sentence
from data_prep.reading.thumbnails import thumbnail
from simclr_tf.evaluation import figures
from simclr_tf.evaluation.features import Embeddings, l2_normalize
from simclr_tf.evaluation.intervals import Interval
from simclr_tf.explore.compare import write_comparison
from simclr_tf.explore.data import ExploreData
from simclr_tf.sweeps.figures import SettingPoint, embedding_panels, setting_points
from simclr_tf.sweeps.plan import MANIFEST, UNTRAINED_STEPS, PlannedRun
from simclr_tf.sweeps.results import (
    RunScores,
    SettingScores,
    by_setting,
    collect,
    difference,
    is_clear,
    sorted_settings,
    write_tables,
)
from simclr_tf.training.run_warnings import ALARM

PAGE = "index.html"

_PANELS = 12  # in one picture
_MOST_POINTS = 1000
_MOST_NAMES = 8


def write_sweep_page(
    settings: Sequence[SettingScores],
    failed: Sequence[str],
    class_names: Sequence[str],
    command: Sequence[str],
    path: Path,
    *,
    sort_by: str = "knn_accuracy",
    comparison: str = "",
) -> None:
    """Writes the page, whole or not at all.

    Args:
        settings: What was found, one at least.
        failed: Names of runs that are not finished.
        class_names: In the order of the labels.
        command: That repeats the sweep.
        path: HTML file.
        sort_by: A column of `grid.SORT_BY`.
        comparison: Address of the page that shows nearest neighbours; empty = there is none.
    """
    settings = sorted_settings(settings, sort_by)
    runs = [run for one in settings for run in one.runs]
    warned = {run.run.name: tuple(map(str, run.warnings)) for run in runs}
    text = "What the runs have warned of, the last of each kind."
    warnings = warnings_section("run", text, warned)
    sections = [_settings_section(settings, sort_by), *warnings, _runs_section(runs)]
    if len(runs[0].held_out) > 2:
        sections.append(_embedding_section(settings, class_names))
    if comparison:
        sections.append(
            Section(
                "Nearest neighbours",
                text=("The same images in every setting, with their seven nearest and distances.",),
                links={"Look at the neighbours side by side": comparison},
            )
        )
    sections.append(repeat_section(command))
    facts = {
        "Training": format_seconds(sum(run.seconds for run in runs)),
        "Software": software(),
    }
    write_page(Page("Runs side by side", findings(settings, failed), tuple(sections), facts), path)


def findings(settings: Sequence[SettingScores], failed: Sequence[str]) -> tuple[str, ...]:
    """The findings of a sweep, in paragraphs."""
    trained = [one for one in settings if not one.untrained]
    run = settings[0].runs[0]
    number = sum(len(one.runs) for one in trained)
    texts = [
        *_alarms(settings),
        *_verdict(settings),
        f"{counted(len(trained), 'setting')}, {counted(number, 'run')}, on the same"
        f" {run.result['num_train_examples']} training images; all scored on the same"
        f" {run.result['num_eval_examples']} images of the split {run.split}.",
    ]
    if failed:
        texts.append(f"Not finished, and not below: {_listed(failed)}.")
    scored = [one for one in trained if one.knn is not None]
    if not scored:
        texts.append("Without labels on both sides no accuracy can be given.")
        return tuple(texts)
    texts.append(_about_best(scored))
    texts += _about_floor(scored)
    texts.append(_about_limits(scored, run.split))
    return tuple(texts)


def _alarms(settings: Sequence[SettingScores]) -> list[str]:
    """Sentences on why numbers cannot be trusted, with the runs that they are of."""
    runs = [run for one in settings for run in one.runs]
    homes: dict[str, list[str]] = {}
    for run in runs:
        for warning in run.warnings:
            if warning.kind == ALARM:
                homes.setdefault(warning.message, []).append(run.run.name)
    return [
        sentence(text) if len(names) == len(runs) else f"{_listed(names)}: {sentence(text)}"
        for text, names in homes.items()
    ]


def _verdict(settings: Sequence[SettingScores]) -> list[str]:
    """A sentence that compares the best setting with its floors; none without floors."""
    trained = [one for one in settings if not one.untrained and one.knn is not None]
    if not trained:
        return []
    best = sorted_settings(trained, "knn_accuracy")[0]
    told = [run.result["floors"]["sentence"] for run in best.runs if run.result.get("floors")]
    first = f" (run {best.runs[0].run.name})" if len(best.runs) > 1 else ""
    return [f"Of {best.name}, the best by k-NN{first}: {told[0]}"] if told else []


def _about_best(scored: Sequence[SettingScores]) -> str:
    best = sorted_settings(scored, "knn_accuracy")[0]
    text = f"Highest k-NN accuracy: {best.name}, {_with_interval(best.knn)}."
    gaps = {one.name: difference(best, one) for one in scored if one is not best}
    if not gaps:
        return text
    level = [name for name, gap in gaps.items() if not is_clear(gap)]
    if not level:
        return f"{text} Image by image it is above every other setting (95 % intervals)."
    return (
        f"{text} These images do not tell it apart from {_listed(level)}: the 95 % interval of the "
        "difference, image by image, holds 0."
    )


def _about_floor(scored: Sequence[SettingScores]) -> list[str]:
    known = [one for one in scored if one.gain is not None]
    if not known:
        return []
    above = [one for one in known if is_clear(one.gain) and one.gain and one.gain.value > 0]
    below = [one for one in known if is_clear(one.gain) and one.gain and one.gain.value < 0]
    level = [one for one in known if one not in above and one not in below]
    parts = [
        f"{what} the untrained network: {_listed([f'{o.name}, {_points(o.gain)}' for o in ones])}"
        for what, ones in (("Above", above), ("Not told apart from", level), ("Below", below))
        if ones
    ]
    return [". ".join(parts) + " (points, 95 % intervals)."]


def _about_limits(scored: Sequence[SettingScores], split: str) -> str:
    texts = []
    if len(scored) > 1:
        texts.append(
            f"The best of {len(scored)} settings was found on these very images, so its accuracy is"
            " flattered; score the one that is chosen on images that no run here has seen."
            if split != "test"
            else f"{len(scored)} settings were compared on the test images: choosing by them "
            "flatters the choice."
        )
    if min(len(one.runs) for one in scored) == 1:
        texts.append("Where a setting has one seed, what another seed would give is not known.")
    return " ".join(texts)


def settings_table(settings: Sequence[SettingScores], sort_by: str) -> Table:
    """The table of settings, a row for each."""
    headers = (
        "setting", "seeds", "k-NN", "95 % interval", "over untrained,\npoints", "linear probe",
        "effective\nrank",
    )  # fmt: skip
    rows = tuple(
        (
            one.name,
            str(len(one.runs)),
            _mean_and_spread(one, "knn_accuracy", 3),
            f"{one.knn.low:.3f} to {one.knn.high:.3f}" if one.knn else "",
            _points(one.gain) if one.gain else "",
            _mean_and_spread(one, "linear_probe_accuracy", 3),
            _mean_and_spread(one, "effective_rank", 1),
        )
        for one in settings
    )
    note = (
        "Mean over the seeds ± standard deviation. Intervals: of one seed Wilson's, over images; of"
        " several over images and seeds (pigeonhole bootstrap). Over untrained: on the same images,"
        " and the same seed's starting weights. Settings are called by the first flags that tell"
        " them apart; the runs below have all that differ."
    )
    return Table(headers, rows, f"By {sort_by}", note=note)


def _settings_section(settings: Sequence[SettingScores], sort_by: str) -> Section:
    points = {
        one.name: SettingPoint(one.knn, tuple(one.values("knn_accuracy")), one.untrained)
        for one in settings
        if one.knn is not None
    }
    pictures = []
    if points:
        chance = _most_frequent(settings[0].runs[0].held_out)
        figure = setting_points(points, chance=chance, xlabel="k-NN accuracy")
        caption = (
            "Accuracy of the nearest neighbours with 95 % intervals; dots are single seeds. The "
            "dashed line is always to say the most frequent class."
        )
        pictures.append(Picture(figures.to_png(figure), caption))
    floor = (
        f"untrained: the network with its starting weights, of which {UNTRAINED_STEPS} steps with "
        "learning rate 0 moved nothing but BatchNorm's statistics.",
    )
    text = floor if any(one.untrained for one in settings) else ()
    return Section(
        "Settings", text, tables=(settings_table(settings, sort_by),), pictures=tuple(pictures)
    )


def _most_frequent(held_out: Embeddings) -> float:
    counts = Counter(held_out.labeled().labels.tolist())
    return max(counts.values()) / counts.total()


def _runs_section(runs: Sequence[RunScores]) -> Section:
    headers = (
        "run", "k-NN", "95 % interval", "linear probe", "95 % interval", "loss", "effective\nrank",
        "steps", "training",
    )  # fmt: skip
    rows = tuple(
        (
            run.run.name,
            *_score_cells(run, "knn_accuracy"),
            *_score_cells(run, "linear_probe_accuracy"),
            f"{run.loss:.3f}",
            f"{run.effective_rank:.1f}",
            str(run.steps),
            format_seconds(run.seconds),
        )
        for run in runs
    )
    note = (
        "Wilson's intervals, over images. The loss is the mean over the last tenth of the steps; "
        "losses of different methods are no common measure."
    )
    return Section("Runs", tables=(Table(headers, rows, note=note),))


def _score_cells(run: RunScores, name: str) -> tuple[str, str]:
    value, low, high = (run.score(f"{name}{end}") for end in ("", "_low", "_high"))
    if value is None:
        return "", ""
    return f"{value:.3f}", f"{low:.3f} to {high:.3f}"


def _embedding_section(settings: Sequence[SettingScores], class_names: Sequence[str]) -> Section:
    shown = {_panel_name(one, run): run for one in settings for run in one.runs}
    some = _some_rows(len(settings[0].runs[0].held_out))
    pictures = []
    methods: dict[str, Literal["pca", "tsne"]] = {"PCA": "pca", "t-SNE": "tsne"}
    for title, method in methods.items():
        # Directions, as k-NN compares them.
        points = {
            name: figures.project_2d(l2_normalize(run.held_out.features[some]), method)
            for name, run in shown.items()
        }
        names = list(points)
        for start in range(0, len(names), _PANELS):
            part = {name: points[name] for name in names[start : start + _PANELS]}
            labels = settings[0].runs[0].held_out.labels[some]
            png = figures.to_png(embedding_panels(part, labels, class_names))
            caption = f"{title} of the features of the same {len(some)} images, by class."
            pictures.append(Picture(png, caption))
    text = (
        "Each panel has axes of its own: only which images lie together can be compared. t-SNE "
        "draws clusters even where there are none; distances between them mean nothing.",
    )
    return Section("Embeddings", text, pictures=tuple(pictures))


def _panel_name(one: SettingScores, run: RunScores) -> str:
    seed = f", seed={run.run.row['seed']}" if "seed" in run.run.row and len(one.runs) > 1 else ""
    return f"{one.name}{seed}"


def _some_rows(number: int) -> np.ndarray:
    if number <= _MOST_POINTS:
        return np.arange(number)
    return np.sort(np.random.default_rng(0).choice(number, _MOST_POINTS, replace=False))


def _mean_and_spread(one: SettingScores, name: str, digits: int) -> str:
    mean, spread = one.mean(name), one.spread(name)
    if math.isnan(mean):
        return ""
    return f"{mean:.{digits}f}" + ("" if math.isnan(spread) else f" ± {spread:.{digits}f}")


def _with_interval(interval: Interval | None) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})" if interval else ""


def _points(gain: Interval | None) -> str:
    if gain is None:
        return ""
    return f"{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})"


def _listed(names: Sequence[str]) -> str:
    shown = "; ".join(names[:_MOST_NAMES])
    more = len(names) - _MOST_NAMES
    return f"{shown}; and {more} more" if more > 0 else shown


_MOST_IMAGES = 600
_SIDE = 96


def pinned_rows(images: Manifest, asked: Sequence[str]) -> list[int]:
    """Finds the images that are to be shown with their neighbours.

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
                f"fits {len(fitting)} of the {len(images)} images that are scored; "
                "give the end of one path",
                setting="pinned",
                value=end,
            )
        rows += fitting
    return rows


def shown_rows(number: int, pinned: Sequence[int]) -> list[int]:
    """Images among which neighbours are looked for: all, or pinned ones and a seeded sample."""
    if number <= _MOST_IMAGES:
        return list(range(number))
    order = np.random.default_rng(0).permutation(number).tolist()
    return sorted({*pinned, *order[:_MOST_IMAGES]})


def write_neighbors(
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


log = logging.getLogger(__name__)


def report(
    runs: Sequence[PlannedRun],
    failed: Sequence[str],
    output: Path,
    command: Sequence[str],
    *,
    sort_by: str = "knn_accuracy",
    pinned: Sequence[str] = (),
) -> str:
    """Writes `sweep.csv`, `settings.csv`, `index.html` and the page of neighbours.

    Args:
        runs: All runs.
        failed: Names of those that failed.
        output: The sweep's folder.
        command: That repeats the sweep, for the page.
        sort_by: A column of `grid.SORT_BY`.
        pinned: See `pinned_rows`.

    Returns:
        The table of settings, as text.

    Raises:
        UserError: No run is finished.
    """
    scores = collect(runs, output)
    if not scores:
        raise UserError(f"no run is finished; what they said is in {output / 'logs'}")
    settings = by_setting(scores, runs)
    write_tables(runs, scores, settings, output)
    manifest = Manifest.load(output / MANIFEST)
    scored = manifest.split(scores[0].split)
    ordered = sorted_settings(settings, sort_by)
    names = manifest.class_names
    comparison = write_neighbors(ordered, scored, names, pinned, output)
    page = output / PAGE
    write_sweep_page(settings, failed, names, command, page, sort_by=sort_by, comparison=comparison)
    log.info("wrote %s", page)
    return settings_table(ordered, sort_by).text()
