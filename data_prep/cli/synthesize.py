"""`simclr-synthesize`: labelled synthetic image sets, the same bytes for the same seed."""

import logging
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Literal

from data_prep.cli.command import Command
from data_prep.cli.runtime import progress_lines
from data_prep.errors import UserError
from data_prep.outputs import requested_outputs
from data_prep.settings import Config, setting
from data_prep.synthetic.core import CoreParameters
from data_prep.synthetic.kinds import KINDS, Kind
from data_prep.synthetic.lattice import LatticeParameters
from data_prep.synthetic.lens_system import LensingParameters
from data_prep.synthetic.rheed import RheedParameters
from data_prep.synthetic.sem_depth import SemDepthParameters

NAME = "simclr-synthesize"
DESCRIPTION = """Makes a labelled synthetic image set, with a manifest and the parameters of every
image. The same seed gives the same bytes, and a larger set begins with the images of a smaller one.

Flags that take LOW,HIGH are ranges from which each image's value is drawn uniformly.

""" + "\n\n".join(
    f"--kind={kind.name}: {kind.summary} Classes: {', '.join(kind.classes)}."
    for kind in KINDS.values()
)

logger = logging.getLogger("data_prep.synthesize")


@dataclass(frozen=True)
class SetSettings:
    """Set."""

    kind: Literal["lattice", "core", "lensing", "rheed", "sem_depth"] = setting(
        "lattice", "What the images show."
    )
    output: str = setting("", "New folder to write to.", required=True)
    images_per_class: int = setting(
        100, "Images of each class; of sem_depth, depth maps with their pictures."
    )
    image_size: str = setting(
        "", "Side in pixels, or HEIGHTxWIDTH; empty = 128, of sem_depth 72x48."
    )
    seed: int = setting(0, "Seed of the set, from 0.")
    classes: tuple[str, ...] = setting((), "Only these classes; all if empty.")
    format: Literal["png", "png16", "npy"] = setting(
        "png", "8-bit PNG; 16-bit PNG (rheed, depth maps); float32 NPY (lensing, depth maps)."
    )
    sheet: str = setting("", "Also draws the first images of every class on this new PNG.")


@dataclass(frozen=True)
class SynthesizeConfig(Config):
    """All settings of `simclr-synthesize`: those of the set, then those of every kind."""

    images: SetSettings = field(default_factory=SetSettings)
    lattice: LatticeParameters = field(default_factory=LatticeParameters)
    core: CoreParameters = field(default_factory=CoreParameters)
    lensing: LensingParameters = field(default_factory=LensingParameters)
    rheed: RheedParameters = field(default_factory=RheedParameters)
    sem_depth: SemDepthParameters = field(default_factory=SemDepthParameters)


def run(config: SynthesizeConfig, given: Collection[str]) -> int:
    """Writes the set that the settings ask for."""
    from data_prep.storage import check_new_png
    from data_prep.synthetic.contact_sheet import write_sheet
    from data_prep.synthetic.write import write_set

    wanted = config.images
    kind = KINDS[wanted.kind]
    _refuse_other_kinds(kind, given)
    outputs = requested_outputs(config, given, NAME, ["output", "sheet"])
    if (code := outputs.code_if_complete()) is not None:
        return code
    if wanted.sheet:
        check_new_png(wanted.sheet, "sheet")
    started = time.perf_counter()
    with outputs.drafts() as drafts:
        manifest = write_set(
            kind.name,
            drafts.paths[0],
            images_per_class=wanted.images_per_class,
            image_size=_size(wanted.image_size),
            seed=wanted.seed,
            parameters=getattr(config, kind.name),
            classes=wanted.classes or None,
            file_format=wanted.format,
            progress=progress_lines("samples"),
        )
        if wanted.sheet:
            write_sheet(drafts.paths[1], kind, manifest)
    seconds = time.perf_counter() - started
    logger.info(
        "wrote %d images of %d classes to %s in %.1f s",
        len(manifest),
        len(manifest.class_names),
        wanted.output,
        seconds,
    )
    if wanted.sheet:
        logger.info("drew %s", wanted.sheet)
    return 0


def _refuse_other_kinds(kind: Kind, given: Collection[str]) -> None:
    """Refuses a setting of another kind."""
    for other in KINDS.values():
        foreign = [name for name in other.parameters.meanings() if name in given]
        if foreign and other is not kind:
            raise UserError(f"--{foreign[0]} belongs to --kind={other.name}, not to {kind.name}")


def _size(text: str) -> tuple[int, int] | None:
    """(height, width) of `128` or `72x48`; None if empty."""
    if not text:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise UserError("must be a whole number, or HEIGHTxWIDTH", setting="image_size", value=text)
    return int(parts[0]), int(parts[-1])


COMMAND = Command(
    NAME,
    DESCRIPTION,
    SynthesizeConfig,
    run,
    basics=(
        "kind",
        "output",
        "images_per_class",
        "image_size",
        "seed",
        "classes",
        "format",
        "sheet",
    ),
    positional=("output",),
)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
