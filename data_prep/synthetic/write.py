"""Writing a synthetic set to disk: images in folders, manifests, a table of parameters."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from data_prep.csv_files import write_csv
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.storage import new_folder
from data_prep.synthetic.kinds import Kind, find_kind
from data_prep.synthetic.lattice import LatticeParameters
from data_prep.synthetic.lattice_classes import LATTICE_CLASSES
from data_prep.synthetic.sample import MANIFEST_NAME, Parameters, Request, Sample, SampleRow, encode

PARAMETERS_NAME = "parameters.csv"

_SMALLEST = 16
_WAITING = 64  # samples that may wait for the writer, so that memory stays small


def write_set(
    kind_name: str,
    output: str | os.PathLike[str],
    *,
    images_per_class: int,
    seed: int,
    image_size: tuple[int, int] | None = None,
    parameters: Parameters | None = None,
    classes: Sequence[str] | None = None,
    file_format: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Writes a set of one kind; all of it, or nothing if it fails or is interrupted.

    `output` gets the images, `manifest.csv` and `parameters.csv` (path and all that was drawn); a
    kind may add more. The same seed gives the same bytes, whatever the number of threads, and a
    larger set begins with the images of a smaller one.

    Args:
        kind_name: one of `kinds.KINDS`.
        output: a folder that does not exist yet or is empty.
        images_per_class: how many samples of each class, from 1.
        seed: from 0.
        image_size: (height, width) in pixels, from 16; the kind's own if None.
        parameters: what varies; the documented defaults if None.
        classes: which of the kind's classes; all if None.
        file_format: one of the kind's formats; its first if None.
        progress: called with (samples done, samples in all) after each.

    Returns:
        The manifest, rooted at `output`.

    Raises:
        UserError: a value outside its range, an unknown kind or class, a missing package, an
            output that holds something.
    """
    kind = find_kind(kind_name)
    chosen = list(kind.classes) if classes is None else list(classes)
    height, width = image_size or kind.size
    request = Request(
        seed, height, width, parameters or kind.parameters(), file_format or kind.formats[0]
    )
    _check(kind, request, images_per_class, chosen)
    jobs = [(name, index) for name in chosen for index in range(images_per_class)]
    with new_folder(output) as partial:
        found = _write_samples(kind, request, jobs, partial, progress)
        for name, records in found.records.items():
            Manifest(tuple(records), str(partial)).save(partial / name)
        _write_table(partial / PARAMETERS_NAME, found.rows)
        for name, rows in found.tables.items():
            _write_table(partial / name, rows)
    return Manifest(tuple(found.records[MANIFEST_NAME]), str(output))


def write_lattice_set(
    output: str | os.PathLike[str],
    *,
    images_per_class: int,
    image_size: int,
    seed: int,
    parameters: LatticeParameters | None = None,
    classes: Sequence[str] = tuple(LATTICE_CLASSES),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Writes a lattice set of square images; see `write_set`."""
    return write_set(
        "lattice",
        output,
        images_per_class=images_per_class,
        seed=seed,
        image_size=(image_size, image_size),
        parameters=parameters,
        classes=classes,
        progress=progress,
    )


@dataclass
class _Found:
    """The tables of a set, growing."""

    records: dict[str, list[Record]] = field(default_factory=dict)
    rows: list[SampleRow] = field(default_factory=list)
    tables: dict[str, list[SampleRow]] = field(default_factory=dict)

    def add(self, sample: Sample) -> None:
        self.rows.extend(sample.rows)
        for name, records in sample.records.items():
            self.records.setdefault(name, []).extend(records)
        for name, rows in sample.tables.items():
            table = self.tables.setdefault(name, [])
            table.extend(row for row in rows if row not in table[-1:])


def _write_samples(
    kind: Kind,
    request: Request,
    jobs: Sequence[tuple[str, int]],
    folder: Path,
    progress: Callable[[int, int], None],
) -> _Found:
    """Makes the samples in threads and writes their files; NumPy works beside Python there."""

    def make(job: tuple[str, int]) -> Sample:
        sample = kind.sample(*job, request)
        for path, pixels in sample.files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(pixels))
        return sample

    found, done = _Found(), 0
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for first in range(0, len(jobs), _WAITING):
            for sample in pool.map(make, jobs[first : first + _WAITING]):
                found.add(sample)
                done += 1
                progress(done, len(jobs))
    return found


def _check(kind: Kind, request: Request, images_per_class: int, classes: Sequence[str]) -> None:
    if images_per_class < 1:
        raise UserError(f"images_per_class={images_per_class}: must be 1 or more")
    _check_size(kind, request)
    if request.seed < 0:
        raise UserError(f"seed={request.seed}: must be 0 or more")
    if request.file_format not in kind.formats:
        raise UserError(
            f"format={request.file_format}: {kind.name} can be written as "
            f"{' or '.join(kind.formats)}"
        )
    unknown = [name for name in classes if name not in kind.classes]
    if unknown or not classes:
        what = f"no {kind.name} class '{unknown[0]}'" if unknown else "no class given"
        raise UserError(f"{what}; there are {', '.join(kind.classes)}")
    if len(set(classes)) < len(classes):
        raise UserError("a class is given twice")
    if not isinstance(request.parameters, kind.parameters):
        raise TypeError(f"{kind.name} takes {kind.parameters.__name__}")
    request.parameters.validate()
    kind.check(request)


def _check_size(kind: Kind, request: Request) -> None:
    height, width = request.height, request.width
    shown = str(height) if height == width else f"{height}x{width}"
    if min(height, width) < _SMALLEST:
        raise UserError(f"image_size={shown}: must be {_SMALLEST} pixels or more")
    if kind.square and height != width:
        raise UserError(f"image_size={shown}: {kind.name} images are square, give one number")


def _write_table(path: Path, rows: Sequence[SampleRow]) -> None:
    write_csv(path, [list(rows[0]), *(list(row.values()) for row in rows)])
