"""Writing a synthetic set to disk: class folders of PNG, a manifest, a table of parameters."""

import csv
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest import Manifest, Record
from data_prep.synthetic.lattice import LatticeParameters, lattice_image
from data_prep.synthetic.lattice_classes import LATTICE_CLASSES

MANIFEST_NAME = "manifest.csv"
PARAMETERS_NAME = "parameters.csv"


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
    """Writes the lattice set; all of it, or nothing if it fails or is interrupted.

    `output` gets one folder of 8-bit grey PNG a class, `manifest.csv` (path, label) and
    `parameters.csv` (path and every drawn parameter of the crystal, lengths in pixels). The
    same seed gives the same bytes, and a larger set begins with the images of a smaller one.

    Args:
        output: a folder that does not exist yet or is empty.
        images_per_class: how many images of each class, from 1.
        image_size: their side in pixels, from 16.
        seed: from 0.
        parameters: what varies; the documented defaults if None.
        classes: which classes, names of `LATTICE_CLASSES`.
        progress: called with (images done, images in all) now and then.

    Returns:
        The manifest, rooted at `output`.

    Raises:
        UserError: a value outside its range, an unknown class, an output that holds something.
    """
    parameters = parameters or LatticeParameters()
    _check(images_per_class, image_size, seed, classes)
    parameters.validate()
    target = Path(output)
    check_new_folder(target)
    jobs = [(name, index) for name in classes for index in range(images_per_class)]
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for name in classes:
            (partial / name).mkdir()

        def write(job: tuple[str, int]) -> dict[str, str | float]:
            name, index = job
            pixels, crystal = lattice_image(
                name, index, seed=seed, image_size=image_size, parameters=parameters
            )
            path = f"{name}/{name}_{index:05d}.png"
            Image.fromarray(pixels).save(partial / path)
            return {"path": path, **crystal.to_dict()}

        rows = []
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            for row in pool.map(write, jobs):
                rows.append(row)
                progress(len(rows), len(jobs))
        records = tuple(Record(str(row["path"]), str(row["class_name"])) for row in rows)
        Manifest(records, str(partial)).save(partial / MANIFEST_NAME)
        _write_table(partial / PARAMETERS_NAME, rows)
        partial.chmod(0o755)  # mkdtemp makes it private
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Manifest(records, str(target))


def check_new_folder(folder: Path) -> None:
    """Raises UserError unless the folder is missing or empty."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not empty: give another --output, or remove it first")


def _check(images_per_class: int, image_size: int, seed: int, classes: Sequence[str]) -> None:
    if images_per_class < 1:
        raise UserError(f"images_per_class={images_per_class}: must be 1 or more")
    if image_size < 16:
        raise UserError(f"image_size={image_size}: must be 16 pixels or more")
    if seed < 0:
        raise UserError(f"seed={seed}: must be 0 or more")
    unknown = [name for name in classes if name not in LATTICE_CLASSES]
    if unknown or not classes:
        what = f"no lattice class '{unknown[0]}'" if unknown else "no class given"
        raise UserError(f"{what}; there are {', '.join(LATTICE_CLASSES)}")
    if len(set(classes)) < len(classes):
        raise UserError("a class is given twice")


def _write_table(path: Path, rows: Sequence[dict[str, str | float]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
