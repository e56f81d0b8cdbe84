"""Folders that functions and commands leave, as objects: results with intervals, tables, pages."""

import html
import math
import os
import webbrowser
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from data_prep.csv_files import read_rows, read_written
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.storage import read_object
from finetune.api.call import call, speaking_python
from finetune.api.images import ImageSet, PathLike, places
from simclr_tf.evaluation.intervals import RESAMPLES, Interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from finetune.report.files import StoredResults
    from finetune.significance import ScoredPredictions
    from simclr_tf.evaluation.intervals import Difference

Results = dict[str, Interval | float]
"""Number by name, such as `test/accuracy`; with its interval where it has one."""


class Folder:
    """A folder that a function or a command has left.

    Args:
        path: The folder.

    Attributes:
        path: The folder.
    """

    PAGE: ClassVar[str] = "report.html"

    def __init__(self, path: PathLike) -> None:
        self.path = Path(path)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __repr__(self) -> str:
        results = self.results if self.finished else {}
        shown = ", ".join(f"{name} {_shown(value)}" for name, value in _head(results).items())
        state = shown or ("finished" if self.finished else "not finished")
        return f"{type(self).__name__}({str(self.path)!r}: {state})"

    def _repr_html_(self) -> str:
        from finetune.api.html import gallery, table

        # What was measured on images that no step has seen comes first.
        held_out = sorted(self.results.items(), key=lambda found: not found[0].startswith("test/"))
        rows = [(name, _shown(value)) for name, value in held_out]
        body = table(("measure", "value [95 % interval]"), rows[:40])
        sample = self._sample()
        pictures = gallery(sample) if sample else ""
        title = f"{type(self).__name__} {self.path}"
        return f"<p><b>{html.escape(title)}</b></p>{body}{pictures}"

    @property
    def finished(self) -> bool:
        """True if it holds results."""
        return self._results_file().is_file()

    @property
    def results(self) -> Results:
        """Numbers by name; empty before the end.

        Raises:
            UserError: The file is damaged.
        """
        return numbers_in(read_object(self._results_file())) if self.finished else {}

    @property
    def floors(self) -> Results:
        """What simpler methods reach on the same images; empty if that was not measured.

        Numbers by method and name, such as `raw_pixels/accuracy`: of the most frequent class
        (`majority`), of pixels and of the features of an untrained network.
        """
        found = self._judged().get("floors", ())
        return {f"{f['name']}/{n}": value for f in found
                for n, value in numbers_in(f["metrics"]).items()}  # fmt: skip

    @property
    def verdict(self) -> str:
        """Whether the network is above its floors, in a sentence; empty if not measured."""
        return str(self._judged().get("sentence", ""))

    @property
    def config(self) -> dict[str, Any]:
        """The settings, by name; empty where the folder keeps none."""
        file = self.path / "config.json"
        sections = read_object(file) if file.is_file() else {}
        return {n: v for section in sections.values() for n, v in section.items()}

    @property
    def images(self) -> ImageSet:
        """The images, with labels and splits, as they were used.

        Raises:
            UserError: The folder keeps no list of them.
        """
        file = self.path / "manifest.csv"
        if not file.is_file():
            raise UserError(f"{self.path} keeps no list of images")
        return ImageSet(Manifest.load(file), {"manifest": str(file)})

    @property
    def warnings(self) -> list[str]:
        """What was warned of."""
        file = self.path / "warnings.csv"
        rows = _rows(file)
        return [row.get("message", row.get("text", "")) for row in rows]

    @property
    def page(self) -> Path:
        """The page that shows everything."""
        return self.path / self.PAGE

    def explore(self) -> Path:
        """Opens the page in a browser, where there is one, and returns its path.

        Raises:
            UserError: There is no page yet.
        """
        if not self.page.is_file():
            raise UserError(f"{self.path} has no page yet")
        webbrowser.open(self.page.absolute().as_uri())
        return self.page

    def to_pandas(self) -> Any:
        """The results as a pandas data frame: measure, value, low, high."""
        from finetune.api.html import data_frame

        rows = [(n, *_ends(value)) for n, value in self.results.items()]
        names = ("measure", "value", "low", "high")
        return data_frame({name: [row[i] for row in rows] for i, name in enumerate(names)})

    def table(self, file: str) -> Any:
        """A CSV of the folder as a pandas data frame, numbers as numbers.

        Raises:
            UserError: There is no such file.
        """
        if not (self.path / file).is_file():
            raise UserError(f"{self.path} has no {file}")
        return _frame(self.path / file)

    def _results_file(self) -> Path:
        return self.path / "result.json"

    def _judged(self) -> dict[str, Any]:
        """The comparison with the floors, as a file holds it; empty if there is none."""
        return read_object(self._results_file()).get("floors") or {} if self.finished else {}

    def _sample(self) -> Manifest | None:
        file = self.path / "manifest.csv"
        return ImageSet(Manifest.load(file))._sample(8) if file.is_file() else None


class Run(Folder):
    """A pretraining, or another run of `simclr run`."""

    @property
    def encoder(self) -> Path:
        """The network without heads, a file for Keras."""
        return self.path / "encoder.keras"

    def history(self) -> Any:
        """What was logged at every step, as a pandas data frame."""
        return self.table("metrics.csv")

    def validations(self) -> Any:
        """What was validated on the way, as a pandas data frame."""
        return self.table("validation.csv")


class Classifier(Folder):
    """A classifier that was trained and measured."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the scores."""
        return tuple(read_object(self._results_file())["class_names"])

    @property
    def results(self) -> Results:
        """Numbers by split and name; empty before the end."""
        if not self.finished:
            return {}
        splits = read_object(self._results_file())["splits"]
        own = {split: found["metrics"] for split, found in splits.items()}
        return {f"{s}/{n}": value for s, m in own.items() for n, value in numbers_in(m).items()}

    def history(self) -> Any:
        """What was measured after every epoch, as a pandas data frame."""
        return self.table("history.csv")

    @speaking_python
    def difference(
        self, other: PathLike, metric: str = "accuracy", split: str = "test"
    ) -> "Difference":
        """How much more this classifier reaches than another on the same images.

        Both are measured on the same bootstrap samples of the images. An interval that holds 0
        does not tell them apart.

        Args:
            other: A `Classifier` or its folder.
            metric: Name of a number, such as `roc_auc`.
            split: The split that both have scored.

        Raises:
            UserError: They scored other images, or there is no such number or split.
        """
        from finetune.significance import paired_bootstrap, same_images

        mine, theirs = (_scored(Path(os.fspath(one)), split) for one in (self, other))
        pair = same_images(mine, theirs, f"split {split}")
        found = paired_bootstrap(pair[:1], pair[1:], resamples=RESAMPLES, seed=0)
        if metric not in found:
            raise UserError(f"metric={metric!r}: must be one of {', '.join(found)}")
        return found[metric]

    def confusion(self, split: str = "test") -> "Figure":
        """Draws which classes are taken for which: rows are the truth, columns what was said.

        Args:
            split: The split that was scored.

        Raises:
            UserError: It was not scored.
        """
        from simclr_tf.evaluation.classifier_figures import confusion_figure

        results = _stored(self.path, split).results
        title = f"{self.path.name}, {split} images"
        return confusion_figure(results.splits[split].confusion, results.class_names, title=title)

    @speaking_python
    def predict(self, images: "PathLike | ImageSet", output: PathLike = "", **settings: Any) -> Any:
        """Classifies images; see `simclr_tf.predict`.

        Returns:
            `Predictions`.
        """
        return predict_images(self, images, output, **settings)

    @speaking_python
    def export(self, format: str = "onnx", output: PathLike = "", **settings: Any) -> Path:
        """Writes a file that runs without this package.

        Args:
            format: `onnx`, `saved_model` or `keras`.
            output: A new file; "" = `model.ENDING` beside the run's own files.
            **settings: Those of `simclr export`.
        """
        return export_classifier(self, output, format=format, **settings)

    def _results_file(self) -> Path:
        return self.path / "report.json"

    def _judged(self) -> dict[str, Any]:
        file = self.path / "floors.json"
        return read_object(file)["verdict"] or {} if file.is_file() else {}


class Predictions(Folder):
    """What a network says of images: a CSV with a row for each."""

    @property
    def finished(self) -> bool:
        """True if the file is there."""
        return self.path.is_file()

    @property
    def results(self) -> Results:
        """Images by predicted class."""
        counts: dict[str, Interval | float] = {}
        for row in self.rows():
            counts[row["predicted"]] = counts.get(row["predicted"], 0) + 1  # type: ignore[operator]
        return counts

    def rows(self) -> list[dict[str, str]]:
        """A row for each image."""
        return _rows(self.path)

    def to_pandas(self) -> Any:
        """The predictions as a pandas data frame, scores as numbers."""
        return _frame(self.path)

    def __len__(self) -> int:
        return len(self.rows())

    def _sample(self) -> Manifest | None:
        return None


class Embedding(Folder):
    """Features of images, with clusters, neighbors and measures."""

    PAGE = "explore.html"

    @property
    def features(self) -> np.ndarray:
        """The features, float32 [n, d], mapped from the disk."""
        array: np.ndarray = np.load(self.path / "features.npy", mmap_mode="r")
        return array

    @property
    def results(self) -> Results:
        """k-NN, probe and clusters against every column of labels."""
        if not self.finished:
            return {}
        found: Results = {}
        for column, measured in read_object(self._results_file()).get("measures", {}).items():
            for score in measured.get("scores", ()):
                name = "/".join(filter(None, (column, score["method"], score.get("split", ""))))
                numbers = {k: v for k, v in score.items() if isinstance(v, dict)}
                found |= {f"{name}/{k}": v for k, v in numbers_in(numbers).items()}
        return found

    def knn(self) -> Results:
        """The scores of the nearest neighbors."""
        return {n: v for n, v in self.results.items() if "/knn" in n}

    def probe(self) -> Results:
        """The scores of the linear probe."""
        return {n: v for n, v in self.results.items() if "/linear_probe" in n}

    @speaking_python
    def join(self, labels: PathLike, **settings: Any) -> "Embedding":
        """Adds the columns of a table and measures everything anew; no network is needed.

        Args:
            labels: CSV with a column `path` and columns of labels, such as an expert's.
            **settings: Those of `simclr embed` that may change.
        """
        call("embed", {"embedding": os.fspath(self), "join": os.fspath(labels), **settings})
        return self

    def rows(self) -> list[dict[str, str]]:
        """What is known of every image, a row for each, in the order of the features."""
        return _rows(self.path / "embedding.csv")

    def to_pandas(self) -> Any:
        """What is known of every image, as a pandas data frame."""
        return self.table("embedding.csv")

    def _results_file(self) -> Path:
        return self.path / "embedding.json"


class Comparison(Folder):
    """Strategies side by side."""

    @property
    def recommendation(self) -> str:
        """The recommendation in words; empty before the end."""
        file = self.path / "recommendation.txt"
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    @property
    def results(self) -> Results:
        """Every metric, by strategy and number of labels."""
        return {
            f"{row['strategy']}/{row['labels']} labels/{row['metric']}": _interval(row)
            for row in _rows(self.path / "summary.csv")
        }

    def to_pandas(self) -> Any:
        """The table of strategies, as a pandas data frame."""
        return self.table("summary.csv")

    def _results_file(self) -> Path:
        return self.path / "recommendation.txt"


class Folds(Folder):
    """The same training over folds or seeds."""

    PAGE = "folds.html"

    @property
    def results(self) -> Results:
        """Mean of every metric over the runs."""
        rows = _rows(self._results_file())
        values: dict[str, list[float]] = {}
        for row in rows:
            for name, cell in row.items():
                with suppress(ValueError):
                    values.setdefault(name, []).append(float(cell))
        return {n: float(np.mean(v)) for n, v in values.items() if len(v) == len(rows)}

    def to_pandas(self) -> Any:
        """A row for each run, as a pandas data frame."""
        return self.table("folds.csv")

    def _results_file(self) -> Path:
        return self.path / "folds.csv"


class Sweep(Folder):
    """Pretraining over methods, settings and seeds."""

    PAGE = "index.html"

    @property
    def results(self) -> Results:
        """The scores of every run."""
        return {
            f"{row['run']}/{name}": value
            for row in self.rows()
            for name, value in numbers_in(_scores(row)).items()
        }

    @property
    def runs(self) -> dict[str, Run]:
        """The finished runs by name, the floors `untrained...` among them."""
        names = [row["run"] for row in self.rows() if row["finished"] == "true"]
        return {name: Run(self.path / "runs" / name) for name in names}

    def rows(self) -> list[dict[str, str]]:
        """A row for each run: its settings and its scores."""
        return _rows(self._results_file())

    def to_pandas(self) -> Any:
        """A row for each run, as a pandas data frame."""
        return self.table("sweep.csv")

    def _results_file(self) -> Path:
        return self.path / "sweep.csv"


class DepthModel(Folder):
    """Networks that make depth maps of images."""

    @speaking_python
    def predict(self, images: "PathLike | ImageSet", output: PathLike, **settings: Any) -> Any:
        """Predicts depth maps; see `simclr_tf.depth_predict`.

        Returns:
            `DepthMaps`.
        """
        return predict_depth(self, images, output, **settings)


class DepthMaps(Folder):
    """Predicted depth maps, and how good they are where true ones are known."""

    @property
    def finished(self) -> bool:
        """True if the maps are there."""
        return (self.path / "predictions.csv").is_file()

    @property
    def results(self) -> Results:
        """Errors, where there are true maps."""
        file = self._results_file()
        return numbers_in(read_object(file)) if file.is_file() else {}

    def to_pandas(self) -> Any:
        """A row for each image, as a pandas data frame."""
        return self.table("predictions.csv")

    def _results_file(self) -> Path:
        return self.path / "metrics.json"


def _scores(row: Mapping[str, str]) -> dict[str, float]:
    """The numbers of a row of `sweep.csv` that are scores with an interval."""
    scores = [name.removesuffix("_low") for name in row if name.endswith("_low")]
    names = [f"{score}{end}" for score in scores for end in ("", "_low", "_high")]
    return {name: float(row[name]) for name in names if row[name]}


def _stored(folder: Path, split: str) -> "StoredResults":
    """The results of a classifier, if it scored this split.

    Raises:
        UserError: It did not.
    """
    from finetune.report.files import read_results

    stored = read_results(folder)
    if split not in stored.results.splits:
        scored = ", ".join(stored.results.splits)
        raise UserError(f"split={split!r}: {folder} has scored {scored}")
    return stored


def _scored(folder: Path, split: str) -> "ScoredPredictions":
    """What a classifier says of the labelled images of a split."""
    from finetune.significance import ScoredPredictions

    stored = _stored(folder, split)
    labeled = stored.splits[split].labeled()
    return ScoredPredictions(labeled, stored.results.decision.classes(labeled.scores))


def predict_images(
    model: PathLike, images: "PathLike | ImageSet", output: PathLike = "", **settings: Any
) -> Predictions:
    """Classifies images; the function `predict`."""
    file = Path(os.fspath(output) or _beside(model, f"predictions_of_{_name_of(images)}.csv"))
    call("predict", {"model": os.fspath(model), **places(images, file), **settings})
    return Predictions(file)


def export_classifier(model: PathLike, output: PathLike = "", **settings: Any) -> Path:
    """Writes a classifier as a file of its own; the function `export`."""
    ending = {"saved_model": "", "keras": ".keras"}.get(settings.get("format", "onnx"), ".onnx")
    file = Path(os.fspath(output) or _beside(model, f"exported{ending}"))
    call("export", {"model": os.fspath(model), "output": os.fspath(file), **settings})
    return file


def predict_depth(
    model: PathLike, images: "PathLike | ImageSet", output: PathLike, **settings: Any
) -> DepthMaps:
    """Predicts depth maps; the function `depth_predict`."""
    call("depth-predict", {"model": os.fspath(model), **places(images, output), **settings})
    return DepthMaps(output)


def _beside(model: PathLike, name: str) -> str:
    folder = Path(os.fspath(model))
    if not folder.is_dir():
        raise UserError("give output: there is no folder of a run to write into")
    return os.fspath(folder / name)


def _name_of(images: "PathLike | ImageSet") -> str:
    return Path(images).stem if isinstance(images, (str, os.PathLike)) else "images"


def load(path: PathLike) -> Folder:
    """Opens whatever a function or a command has left.

    Args:
        path: A folder, or the CSV of predictions.

    Raises:
        UserError: It is not known what it is.
    """
    place = Path(path)
    if place.suffix == ".csv" and place.is_file():
        return Predictions(place)
    kinds: dict[str, type[Folder]] = {
        "embedding.json": Embedding, "recommendation.txt": Comparison, "plan.json": Comparison,
        "folds.json": Folds, "sweep.json": Sweep, "depth_scale.json": DepthMaps,
        "depth.json": DepthModel, "report.json": Classifier,
    }  # fmt: skip
    for file, kind in kinds.items():
        if (place / file).is_file():
            return kind(place)
    sections = read_object(place / "config.json") if (place / "config.json").is_file() else {}
    if "method" in sections:
        return Run(place)
    if "measure" in sections:
        return Classifier(place)
    raise UserError(f"{place}: no folder that simclr-tf has left")


def numbers_in(facts: Mapping[str, Any], prefix: str = "") -> Results:
    """The numbers among facts of a JSON file, with their intervals.

    Intervals are objects with value, low and high, or three numbers `x`, `x_low` and `x_high`.
    """
    found: Results = {}
    for name, value in facts.items():
        full = f"{prefix}{name}"
        if isinstance(value, Mapping) and "value" in value:
            found[full] = _interval(value)
        elif (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or (name.endswith(("_low", "_high")) and name.rpartition("_")[0] in facts)
        ):
            continue
        elif f"{name}_low" in facts:
            found[full] = _interval(
                {"value": value, "low": facts[f"{name}_low"], "high": facts[f"{name}_high"]}
            )
        else:
            found[full] = float(value)
    return found


def _interval(facts: Mapping[str, Any]) -> Interval | float:
    names = next(n for n in (("value", "low", "high"), ("mean", "low", "high")) if n[0] in facts)
    ends = [math.nan if facts.get(n) in (None, "") else float(facts[n]) for n in names]
    return Interval(*ends) if not math.isnan(ends[1]) else ends[0]


def _head(results: Results) -> Results:
    """The one number that matters most."""
    for part in ("test/accuracy", "linear_probe_accuracy", "knn_accuracy", "accuracy", ""):
        for name, value in results.items():
            if part in name and isinstance(value, Interval):
                return {name: value}
    return {}


def _shown(value: Interval | float) -> str:
    if isinstance(value, Interval):
        return format(value, ".3f")
    return f"{value:g}"


def _ends(value: Interval | float) -> tuple[float, float, float]:
    if isinstance(value, Interval):
        return value.value, value.low, value.high
    return value, math.nan, math.nan


def _rows(file: Path) -> list[dict[str, str]]:
    return read_rows(file) if file.is_file() else []


def _frame(file: Path) -> Any:
    """A CSV as a pandas data frame; columns of numbers are numbers."""
    from finetune.api.html import data_frame

    header, rows = read_written(file)
    cells = {name: [row[i] for row in rows] for i, name in enumerate(header)}
    return data_frame({name: _as_numbers(column) for name, column in cells.items()})


def _as_numbers(cells: list[str]) -> list[Any]:
    """The cells as numbers if all that are not empty are numbers."""
    try:
        return [float(cell) if cell else math.nan for cell in cells]
    except ValueError:
        return list(cells)
