"""Depth maps of any number of images: translate, route, generate, level the surface, write.

Images are taken in batches; only their names are kept for all of them. A call that was stopped is
continued by the next one, which keeps the maps that are finished.

Networks leave noise of a unit or so on a surface that is level by construction; `Background` levels
it. Where a predicted depth is within a tolerance of the known surface depth of its case, it becomes
that depth; nothing else changes. The floor of a hole that is no deeper than the tolerance would be
flattened too, so the tolerance must be smaller than the shallowest structure.
"""

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from data_prep.csv_files import csv_text, read_rows
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.scan import survey_of
from data_prep.reading.headers import unusable
from data_prep.reading.training_files import TrainingReading
from data_prep.storage import write_text
from finetune.depth.files import (
    DEPTH,
    DepthScale,
    depth_scale,
    output_names,
    write_archive,
    write_depth,
)
from finetune.depth.pairs import case_of
from finetune.depth.router import Router


@dataclass(frozen=True)
class Background:
    """The known surface.

    Attributes:
        depths: case -> depth of its surface; "" = of every case that is not named.
        tolerance: in units of depth.
    """

    depths: Mapping[str, float]
    tolerance: float

    def apply(self, depth: np.ndarray, cases: Sequence[str]) -> np.ndarray:
        """The maps with a level surface.

        Args:
            depth: float32 [n, H, W].
            cases: [n], of every map.

        Returns:
            float32 [n, H, W]; the argument is left as it is.

        Raises:
            UserError: A case whose surface depth is not given.
        """
        levels = np.array([self._of(case) for case in cases], np.float32)[:, np.newaxis, np.newaxis]
        near = np.abs(depth - levels) <= self.tolerance
        return np.where(near, levels, depth)

    def _of(self, case: str) -> float:
        depth = self.depths.get(case, self.depths.get(""))
        if depth is None:
            raise UserError(
                f"--surface_depth names no depth for the case {case!r} (it names"
                f" {', '.join(self.depths)}); add {case}:DEPTH, or a depth for all others"
            )
        return depth


def parse_background(items: Sequence[str], tolerance: float) -> Background | None:
    """Reads the known surface from flags.

    Args:
        items: `DEPTH`, which holds for every case that is not named, or `CASE:DEPTH`; none = None.
        tolerance: In units of depth.

    Raises:
        UserError: An item of another form, or a case twice.
    """
    depths: dict[str, float] = {}
    for item in items:
        case, _, text = item.rpartition(":")
        try:
            depth = float(text)
        except ValueError:
            raise UserError(
                "must be a depth, or CASE:DEPTH,CASE:DEPTH",
                setting="surface_depth",
                value=",".join(items),
            ) from None
        if case in depths:
            raise UserError(
                f"{case or 'a depth'} comes twice", setting="surface_depth", value=",".join(items)
            )
        depths[case] = depth
    return Background(depths, tolerance) if depths else None


log = logging.getLogger(__name__)

PREDICTIONS = "predictions.csv"
COLUMNS = (
    "path", "case", "routed_case", "routed_probability", "mean_depth", "min_depth", "max_depth",
    "depth",
)  # fmt: skip

_ROWS = ".rows"  # of the batches that are done, until all are

ReadImages = Callable[[Sequence[Record]], np.ndarray]
"""Images of records: float32 [n, H, W, 1] in [0, 1]."""


class DepthNetwork(Protocol):
    """Interface of a generator of depth maps; see `trained.DepthModel`."""

    @property
    def facts(self) -> Any:
        """Facts with `reading`, fields of `Declaration`: how files became images in training."""
        ...

    @property
    def kind(self) -> str:
        """Kind of network."""
        ...

    @property
    def unit(self) -> str:
        """Unit of depth; empty = not said."""
        ...

    @property
    def depth_min(self) -> float:
        """Least depth of the training maps."""
        ...

    @property
    def depth_max(self) -> float:
        """Greatest depth of the training maps."""
        ...

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W)."""
        ...

    def predict(self, images: np.ndarray, batch_size: int = 256) -> np.ndarray:
        """Depths float32 [n, H, W] of images [n, H, W, 1] in [0, 1]."""
        ...


class Translation(Protocol):
    """Interface of a translator of images; see `trained.Translator`."""

    def translate(self, images: np.ndarray) -> np.ndarray:
        """Translates real images to the simulated domain: of the same size, in [0, 1]."""
        ...


@dataclass(frozen=True)
class Pipeline:
    """The steps from an image to its depth map.

    Attributes:
        models: Generators by case; "" = one for all.
        router: Finds the case; None = the manifest says it, or there is one generator.
        translator: Makes simulated images of real ones; None = they are taken as they are.
        route_before: Route the images as they are rather than translated.
        blend: Average the maps of all cases' generators, weighted by the router's probabilities,
            rather than take that of the likeliest case: the mean is what has the least squared
            error where the case is in doubt.
        background: The surface whose depth is known; None = not levelled.
    """

    models: Mapping[str, DepthNetwork]
    router: Router | None = None
    translator: Translation | None = None
    route_before: bool = False
    blend: bool = False
    background: Background | None = None

    @property
    def one_for_all(self) -> bool:
        """True if there is one generator for all cases."""
        return set(self.models) == {""}

    @property
    def image_size(self) -> tuple[int, int]:
        """(H, W) that the generators take."""
        height, width = next(iter(self.models.values())).image_size
        return int(height), int(width)

    @property
    def reading(self) -> TrainingReading:
        """The reading of the files that the generators were trained on."""
        facts = next(iter(self.models.values())).facts
        return TrainingReading.from_record(
            {"reading": facts.reading, "training_files": facts.training_files}
        )

    @property
    def scale(self) -> DepthScale:
        """One 16-bit scale for all cases."""
        models = self.models.values()
        return depth_scale(
            min(model.depth_min for model in models),
            max(model.depth_max for model in models),
            next(iter(models)).unit,
        )

    def check(self, manifest: Manifest) -> None:
        """Looks for what would stop the prediction half-way.

        Raises:
            UserError: One line: images of another size or with bands, no way to tell the cases,
                a case without a generator, generators that do not go together.
        """
        sizes = {tuple(map(int, model.image_size)) for model in self.models.values()}
        if len(sizes) > 1 or len({model.unit for model in self.models.values()}) > 1:
            raise UserError("the generators were trained for different image sizes or units")
        if self.router and self.one_for_all:
            raise UserError(
                "the model has one generator for all cases; leave it out", setting="router"
            )
        if self.blend and not self.router:
            raise UserError("needs the probabilities of a --router", setting="blend_cases")
        if not self.router and not self.one_for_all:
            self._check_cases(manifest)
        check_images(manifest, self.image_size)

    def _check_cases(self, manifest: Manifest) -> None:
        known = ", ".join(sorted(self.models))
        for record in manifest.records:
            case = case_of(record)
            if not case:
                raise UserError(
                    f"{record.path}: its case is not known, and there is a generator for each of"
                    f" {known}; give --router=CLASSIFIER, or a manifest with the column case"
                )
            if case not in self.models:
                raise UserError(f"{record.path}: no generator for the case {case!r}, only {known}")

    def run(self, images: np.ndarray, cases: Sequence[str], batch_size: int) -> "Batch":
        """The maps of some images.

        Args:
            images: float32 [n, H, W, 1] in [0, 1].
            cases: [n], the true ones; "" = not known.
            batch_size: Images of a pass.
        """
        seen = images if self.translator is None else self.translator.translate(images)
        routed: tuple[str, ...] = ("",) * len(images)
        probability = np.full(len(images), np.nan)
        used = tuple(cases)
        if self.router:
            routes = self.router.route(images if self.route_before else seen)
            routed, probability = routes.cases, routes.probability
            used = routed
        depth = np.zeros(images.shape[:3], np.float32)
        if self.router and self.blend:
            for case, share in zip(self.router.cases, routes.shares.T, strict=True):
                map_of_case = self.models[case].predict(seen, batch_size)
                depth += share[:, np.newaxis, np.newaxis].astype(np.float32) * map_of_case
        else:
            for case in sorted(set(used)) if not self.one_for_all else [""]:
                rows = np.array([self.one_for_all or name == case for name in used])
                depth[rows] = self.models[case].predict(seen[rows], batch_size)
        if not np.isfinite(depth).all():
            raise UserError("the model predicts depths that are not finite: its training failed")
        if self.background:
            depth = self.background.apply(depth, used)
        return Batch(depth, routed, probability)


@dataclass(frozen=True)
class Batch:
    """Maps of a batch.

    Attributes:
        depth: float32 [n, H, W], in units of depth.
        routed: [n], the case that the router chose; "" without one.
        probability: float64 [n], the probability of that case; nan without one.
    """

    depth: np.ndarray
    routed: tuple[str, ...]
    probability: np.ndarray


def check_images(manifest: Manifest, size: tuple[int, int]) -> None:
    """Raises UserError, one line, unless all images are of this size (H, W), grey or colour."""
    files, facts = manifest.files(), survey_of(manifest)
    if facts.problems:
        raise unusable(files, facts.problems)
    wrong = np.flatnonzero(
        (facts.height != size[0]) | (facts.width != size[1]) | ~np.isin(facts.channels, (1, 3))
    )
    if len(wrong):
        first = int(wrong[0])
        channels = int(facts.channels[first])
        raise UserError(
            f"{len(wrong)} of {len(files)} images are not such as the model takes, grey or colour"
            f" of {size[0]}x{size[1]} (height x width): {files[first]} has"
            f" {facts.height[first]}x{facts.width[first]} pixels and {channels}"
            f" channel{'s' * (channels != 1)}"
        )


def predict_depths(
    pipeline: Pipeline,
    manifest: Manifest,
    folder: Path,
    read_images: ReadImages,
    *,
    batch_size: int = 256,
    archive_format: str = "png16",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Writes the depth map of every image, `predictions.csv`, the scale and the archive.

    Batches whose rows are in the folder already, from a call that was stopped, are left alone.

    Args:
        pipeline: Checked (`Pipeline.check`).
        manifest: The images.
        folder: Where to; there.
        read_images: Reads them.
        batch_size: Images of a batch.
        archive_format: See `write_archive`.
        progress: Called with (images done, images in all) after each batch.

    Raises:
        UserError: An image cannot be read.
    """
    names, scale = output_names(manifest), pipeline.scale
    rows_folder = folder / _ROWS
    rows_folder.mkdir(exist_ok=True)
    files, clipped = manifest.files(), 0
    for start in range(0, len(manifest), batch_size):
        done = rows_folder / f"{start:09d}.csv"
        part = slice(start, start + batch_size)
        records = manifest.records[part]
        if not done.exists():
            cases = [case_of(record) for record in records]
            batch = pipeline.run(read_images(records), cases, batch_size)
            for name, depth in zip(names[part], batch.depth, strict=True):
                write_depth(folder, name, depth, scale)
            clipped += scale.clipped(batch.depth)
            write_text(done, _rows(files[part], cases, batch, names[part]))
        progress(start + len(records), len(manifest))
    if clipped:
        log.warning(
            "%d pixels lie beyond the 16-bit scale and are clipped in the PNG files; the NPY files"
            " hold them", clipped,
        )  # fmt: skip
    scale.save(folder)
    texts = [path.read_text(encoding="utf-8") for path in sorted(rows_folder.iterdir())]
    write_text(folder / PREDICTIONS, ",".join(COLUMNS) + "\n" + "".join(texts))
    write_archive(folder, names, archive_format)
    shutil.rmtree(rows_folder)


def _rows(files: Sequence[str], cases: Sequence[str], batch: Batch, names: Sequence[str]) -> str:
    """Lines of `predictions.csv`, in the order of `COLUMNS`."""
    rows: list[list[str]] = []
    columns = zip(files, cases, batch.routed, batch.probability, batch.depth, names, strict=True)
    for file, case, routed, probability, depth, name in columns:
        rows.append(
            [
                file, case, routed, "" if np.isnan(probability) else repr(float(probability)),
                *(f"{value:.4f}" for value in (depth.mean(dtype=np.float64), depth.min(),
                                               depth.max())),
                f"{DEPTH}/{name}.png",
            ]
        )  # fmt: skip
    return csv_text(rows)


@dataclass(frozen=True)
class Predictions:
    """The columns of `predictions.csv`, for n images.

    Attributes:
        routed: [n], where the router sent them; "" without one.
        mean_depth: float64 [n].
    """

    routed: tuple[str, ...]
    mean_depth: np.ndarray


def read_predictions(folder: Path) -> Predictions:
    """Reads `predictions.csv`."""
    rows = read_rows(folder / PREDICTIONS)
    means = np.array([float(row["mean_depth"]) for row in rows])
    return Predictions(tuple(row["routed_case"] for row in rows), means)


def folder_state(folder: str | os.PathLike[str]) -> list[tuple[str, int, int]]:
    """Name, bytes and time of every file below a folder: whether it is still what it was."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    stats = [(path, path.stat()) for path in files]
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in stats]
