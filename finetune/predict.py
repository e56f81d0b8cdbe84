"""Predictions of a trained classifier for any number of new images, written as it goes.

Only names are held for all images. Headers, pages and tiles are looked at chunk by chunk, so that
a bad file stops nothing and memory does not grow with the pixels.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data_prep.csv_files import csv_line
from data_prep.errors import UserError
from data_prep.manifest.identity import array_text, page_text
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.open_images import completed, has_open_limits, page_choice, with_tiles
from data_prep.manifest.places import place_columns
from data_prep.manifest.read_options import ALL_PAGES, Declaration
from data_prep.manifest.scan import list_folder, survey_of
from data_prep.reading.tiles import cut
from finetune.report.results import Decision
from finetune.report.side_files import unreadable_file
from finetune.sections import PredictSettings
from finetune.trained import BatchScorer, Trained


@dataclass(frozen=True)
class Chunk:
    """Images that can be read, as far as their headers tell, and files that cannot.

    Attributes:
        files: How many files were looked at.
        images: One record per page and tile, without label and split.
        problems: Problems of the other files, by path.
    """

    files: int
    images: Manifest
    problems: dict[str, str]


@dataclass(frozen=True)
class ImageList:
    """Files by name, and how they are read.

    Attributes:
        manifest: One record per file, as listed; no file has been opened.
        declaration: Their common declaration.
    """

    manifest: Manifest
    declaration: Declaration

    @property
    def tiled(self) -> bool:
        """True if images may be parts of pictures."""
        d = self.declaration
        return bool(d.tile or d.overlap) or any(record.tile for record in self.manifest.records)

    @property
    def paged(self) -> bool:
        """True if images may be pages of files."""
        return page_choice(self.declaration.page, self.declaration.reading()) is not None or any(
            "page=" in record.reading for record in self.manifest.records
        )

    def sample(self, files: int = 256) -> Manifest:
        """The images of some of the files, at even distances, with their readings."""
        records = self.manifest.records
        chosen = records[:: max(1, -(-len(records) // files))]
        return self._chunk(self.manifest.subset(chosen)).images

    @property
    def several_arrays(self) -> bool:
        """True if a file gives several arrays."""
        return "array" in place_columns(self.manifest)

    def chunks(self, files: int) -> Iterator[Chunk]:
        """The images of so many files at a time, in order."""
        records = self.manifest.records
        for start in range(0, len(records), files):
            yield self._chunk(self.manifest.subset(records[start : start + files]))

    def _chunk(self, listed: Manifest) -> Chunk:
        problems: dict[str, str] = {}
        # What headers say is kept for one chunk alone, or memory would grow with the files.
        listed = Manifest(listed.records, listed.root)
        found = self._checked(self._pages(listed, problems), problems)
        if len(found) and self.declaration.tile:
            found = with_tiles(found, self.declaration)
        return Chunk(len(listed), found, problems)

    def _pages(self, listed: Manifest, problems: dict[str, str]) -> Manifest:
        """One record per page; the problems of files that cannot be read go to `problems`."""
        reading = self.declaration.reading()
        pages = page_choice(self.declaration.page, reading)
        declared = replace(reading, page=0 if pages == ALL_PAGES else pages)
        images: list[Record] = []
        for record, file in zip(listed.records, listed.files(), strict=True):
            bare = replace(record, label="", split="")
            try:
                images += completed(bare, file, declared, pages == ALL_PAGES)
            except UserError as error:
                problems[record.path] = str(error).removeprefix(f"{record.path}: ")
        return listed.subset(images)

    def _checked(self, images: Manifest, problems: dict[str, str]) -> Manifest:
        """The images with a readable header that are large enough for a tile."""
        facts = survey_of(images)
        good = []
        for index, record in enumerate(images.records):
            height, width = int(facts.height[index]), int(facts.width[index])
            problem = facts.problems.get(index) or self._too_small(record, height, width)
            if problem:
                problems[record.path] = problem
            else:
                good.append(record)
        return images.subset(good)

    def _too_small(self, record: Record, height: int, width: int) -> str:
        d = self.declaration
        if record.tile or not d.tile or cut(height, width, d.tile, d.overlap, d.tile_rest):
            return ""
        return f"its {width} x {height} pixels are less than --tile={d.tile}"


def list_images(image_dir: str, manifest: str, declaration: Declaration) -> ImageList:
    """The files of a folder or of a manifest, by name.

    Args:
        image_dir: The folder; with a manifest, where its images lie now.
        manifest: The CSV file.
        declaration: How the files are read.

    Raises:
        UserError: There are none, what is declared is impossible, or an intensity rule whose
            limits would have to be found in the training images.
    """
    reading = declaration.reading()
    if declaration.tile or declaration.overlap:
        cut(1, 1, declaration.tile, declaration.overlap)  # complains of impossible sizes
    if manifest:
        found = Manifest.load(manifest, image_dir)
    else:
        found = list_folder(image_dir, reading=str(reading))
    rules = found.subset([*found.records, Record("", reading=str(reading))])
    if has_open_limits(rules):
        raise UserError(
            "the black and white point are those of the training; give"
            " --intensity=RULE@LOW,HIGH, or leave it to the network's record",
            setting="intensity_per",
            value="set",
        )
    return ImageList(found, declaration)


log = logging.getLogger(__name__)

_FILES = 1024  # looked at together
_IMAGES = 1024  # scored together: pages and tiles make many of one file
_SHOWN = 10

PredictionRow = list[str]


@dataclass(frozen=True)
class PredictionCounts:
    """Counts of the images by their outcome.

    Attributes:
        images: Rows written.
        abstained: Rows without a class, for want of confidence.
        unreadable: Files, or images in them, that could not be read.
    """

    images: int
    abstained: int
    unreadable: int


def predict_images(
    trained: Trained,
    listed: ImageList,
    output: Path,
    settings: PredictSettings,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PredictionCounts:
    """Classifies images and writes a row for each, however many they are.

    The pixels of a batch and the scores of a chunk are held at a time; of all images only the
    names. Files, and images in them, that cannot be read are left out, logged, and listed with the
    reason beside the output (`unreadable_file`).

    Args:
        trained: The classifier.
        listed: The files.
        output: CSV: `path`, absolute (`tile` and `page` where images are parts of files),
            `predicted`, `abstained` (yes or empty; only with `abstain`), then for k = 1 to `top_k`
            `class_k`, `id_k` (WordNet id, for ImageNet's classes alone) and `score_k`
            (probability, all its digits).
        settings: How scores become rows.
        progress: Called with (files done, files in all).

    Raises:
        UserError: A threshold for other than two classes, or no file can be read; nothing is
            written then.
    """
    table = _Table(trained, listed, settings)
    scorer = BatchScorer(trained, settings.batch_size)
    reasons = unreadable_file(output)
    done = images = abstained = unreadable = 0
    with _new_csv(output) as write, _new_csv(reasons) as write_bad:
        write([table.header])
        write_bad([[*table.places, "problem"]])
        for chunk in listed.chunks(_FILES):
            problems = [(Record(path), why) for path, why in chunk.problems.items()]
            for part in _parts(chunk.images):
                readable, scores, bad = _score(scorer, part)
                problems += bad
                predicted, sure = table.decide(scores)
                write(table.rows(readable, scores, predicted, sure))
                images, abstained = images + len(scores), abstained + int((~sure).sum())
            write_bad([*table.place(record), why] for record, why in problems)
            _say_unreadable(problems, unreadable)
            unreadable += len(problems)
            done += chunk.files
            progress(done, len(listed.manifest))
        if not images:
            record, why = problems[0]
            raise UserError(f"none of the images can be read; {record.name}: {why}")
    if not unreadable:
        reasons.unlink()
    return PredictionCounts(images, abstained, unreadable)


class _Table:
    """Columns and rows of the output."""

    def __init__(self, trained: Trained, listed: ImageList, settings: PredictSettings) -> None:
        self._names, self._ids = trained.class_names, trained.class_ids
        self._decision = _decision(trained, settings.threshold)
        self._abstain = settings.abstain
        self._top_k = min(settings.top_k, len(self._names))
        self.places = ["path", *["tile"] * listed.tiled, *["page"] * listed.paged]
        self.places += ["array"] * listed.several_arrays

    @property
    def header(self) -> PredictionRow:
        """Names of the columns."""
        best = ["class", *["id"] * bool(self._ids), "score"]
        ranks = range(1, self._top_k + 1)
        return [
            *self.places,
            "predicted",
            *["abstained"] * bool(self._abstain),
            *(f"{what}_{k}" for k in ranks for what in best),
        ]

    def place(self, record: Record) -> PredictionRow:
        """The cells that tell an image from all others."""
        known = {
            "path": record.path,
            "tile": record.tile,
            "page": page_text(record.reading),
            "array": array_text(record.reading),
        }
        return [known[name] for name in self.places]

    def decide(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predicted classes int64 [n], and whether they reach the score asked for, bool [n]."""
        predicted = self._decision.classes(scores)
        return predicted, scores[np.arange(len(scores)), predicted] >= self._abstain

    def rows(
        self, images: Manifest, scores: np.ndarray, predicted: np.ndarray, sure: np.ndarray
    ) -> Iterator[PredictionRow]:
        """The rows of the output, one per image."""
        files = zip(images.records, images.files(), strict=True)
        places = [self.place(replace(record, path=file)) for record, file in files]
        order = np.argsort(-scores, axis=1, kind="stable")[:, : self._top_k]
        for place, row, best, c, certain in zip(
            places, scores, order, predicted, sure, strict=True
        ):
            said = [self._names[c] if certain else ""]
            if self._abstain:
                said.append("" if certain else "yes")
            yield [*place, *said, *(cell for k in best for cell in self._best(k, row[k]))]

    def _best(self, k: int, score: float) -> PredictionRow:
        return [self._names[k], *self._ids[k : k + 1], repr(float(score))]


def _decision(trained: Trained, threshold: float | None) -> Decision:
    if threshold is None:
        return trained.decision
    if len(trained.class_names) != 2:
        raise UserError(
            f"needs two classes, the network has {len(trained.class_names)}",
            setting="threshold",
            value=f"{threshold:g}",
        )
    positive = trained.decision.positive
    return Decision(threshold, 1 if positive < 0 else positive)


def _parts(images: Manifest) -> Iterator[Manifest]:
    """At most so many images at a time."""
    for start in range(0, len(images), _IMAGES):
        yield images.subset(images.records[start : start + _IMAGES])


def _score(
    scorer: BatchScorer, images: Manifest
) -> tuple[Manifest, np.ndarray, list[tuple[Record, str]]]:
    """Images that can be decoded, their scores float64 [n, K], and the problems of the rest."""
    try:
        return images, scorer.scores(images), []
    except (tf.errors.OpError, UserError):
        bad = scorer.undecodable(images)
        if not bad:
            raise
    problems = [(images.records[index], why) for index, why in bad.items()]
    readable = images.subset(r for index, r in enumerate(images.records) if index not in bad)
    if not len(readable):
        return readable, np.zeros((0, scorer.classes)), problems
    return readable, scorer.scores(readable), problems


def _say_unreadable(problems: Sequence[tuple[Record, str]], before: int) -> None:
    for record, why in problems[: max(0, _SHOWN - before)]:
        log.warning("left out: %s (%s)", record.name, why)


@contextmanager
def _new_csv(path: Path) -> Iterator[Callable[[Any], None]]:
    """Writes rows to a hidden file, which takes its name at the end of the block, or is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            yield lambda rows: file.writelines(map(csv_line, rows))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
