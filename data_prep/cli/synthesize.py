"""`simclr-synthesize`: labelled synthetic image sets, the same bytes for the same seed."""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.errors import UserError

NAME = "simclr-synthesize"
DESCRIPTION = """Makes a labelled synthetic image set in class folders, with a manifest and the
parameters of every image. The same seed gives the same bytes.

--kind=lattice: scanning transmission electron micrographs of 13 crystal classes: Gaussian atom
columns on one or two sublattices, with jitter, an unsteady scan and noise."""

_SECONDS_BETWEEN_LINES = 2.0

logger = logging.getLogger("data_prep.synthesize")


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    from data_prep.synthetic.lattice import LatticeParameters

    defaults = LatticeParameters()
    own: dict[str, Any] = {"flag_values": flag_values}

    def number_range(name: str, help_text: str) -> None:
        low, high = getattr(defaults, name)
        flags.DEFINE_list(name, [f"{low:g}", f"{high:g}"], help_text, **own)

    with topic(flag_values, "Set"):
        flags.DEFINE_enum("kind", "lattice", ["lattice"], "What the images show.", **own)
        flags.DEFINE_string("output", None, "New folder to write to.", required=True, **own)
        flags.DEFINE_integer("images_per_class", 100, "Images of each class.", **own)
        flags.DEFINE_integer("image_size", 128, "Side of the images in pixels.", **own)
        flags.DEFINE_integer("seed", 0, "Seed of the set, from 0.", **own)
        flags.DEFINE_list("classes", [], "Only these classes; all if empty.", **own)
    with topic(flag_values, "Crystals (ranges, LOW,HIGH, are drawn from uniformly)"):
        number_range("spacing", "Root of the area per atom column, as a fraction of the side.")
        number_range("atom_size", "Sigma of a column's Gaussian, as a fraction of the spacing.")
        number_range("contrast", "Brightness of the second element relative to the first.")
        flags.DEFINE_float(
            "displacement",
            defaults.displacement,
            "Largest shift of the second sublattice in x and y, as a fraction of the spacing.",
            **own,
        )
        number_range("jitter", "Sigma of each column's own shift, as a fraction of the spacing.")
        flags.DEFINE_float(
            "rotation", defaults.rotation, "Orientations are drawn from +- this, degrees.", **own
        )
    with topic(flag_values, "Microscope"):
        number_range("scan_distortion", "Sigma of the shift of each scan row, in pixels.")
        number_range("noise", "Sigma of the noise, relative to a column of the first element.")


def run(flag_values: flags.FlagValues) -> None:
    """Writes the set that the flags ask for."""
    from data_prep.synthetic.lattice import LatticeParameters
    from data_prep.synthetic.lattice_classes import LATTICE_CLASSES
    from data_prep.synthetic.write import write_lattice_set

    chosen: dict[str, Any] = {}
    for field in fields(LatticeParameters):
        value = getattr(flag_values, field.name)
        chosen[field.name] = _numbers(field.name, value) if isinstance(value, list) else value
    started = time.perf_counter()
    manifest = write_lattice_set(
        flag_values.output,
        images_per_class=flag_values.images_per_class,
        image_size=flag_values.image_size,
        seed=flag_values.seed,
        parameters=LatticeParameters(**chosen),
        classes=flag_values.classes or tuple(LATTICE_CLASSES),
        progress=progress_lines("images"),
    )
    seconds = time.perf_counter() - started
    logger.info(
        "wrote %d images of %d classes to %s in %.1f s",
        len(manifest),
        len(manifest.class_names),
        flag_values.output,
        seconds,
    )


def progress_lines(what: str) -> Callable[[int, int], None]:
    """A progress callback that logs a line every few seconds."""
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            logger.info("%d of %d %s (%d %%)", done, total, what, 100 * done // total)

    return report


def _numbers(name: str, texts: Sequence[str]) -> tuple[float, float]:
    """Two numbers LOW,HIGH, or one that stands for both."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = []
    if len(numbers) not in {1, 2}:
        raise UserError(f"--{name}={','.join(texts)}: must be one number, or two, LOW,HIGH")
    return numbers[0], numbers[-1]


def main() -> int:
    """Entry point of `simclr-synthesize`."""
    return run_app(run, define, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
