"""`simclr-synthesize`: labelled synthetic image sets, the same bytes for the same seed."""

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.request import asked
from data_prep.cli.runtime import progress_lines
from data_prep.errors import UserError
from data_prep.synthetic.kinds import KINDS, Kind
from data_prep.synthetic.sample import Meaning, Parameters

NAME = "simclr-synthesize"
DESCRIPTION = """Makes a labelled synthetic image set, with a manifest and the parameters of every
image. The same seed gives the same bytes, and a larger set begins with the images of a smaller one.

Flags that take LOW,HIGH are ranges from which each image's value is drawn uniformly.

""" + "\n\n".join(
    f"--kind={kind.name}: {kind.summary} Classes: {', '.join(kind.classes)}."
    for kind in KINDS.values()
)

logger = logging.getLogger("data_prep.synthesize")


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags: those of the set, then those of every kind."""
    own: dict[str, Any] = {"flag_values": flag_values}
    with topic(flag_values, "Set"):
        flags.DEFINE_enum("kind", "lattice", list(KINDS), "What the images show.", **own)
        flags.DEFINE_string("output", None, "New folder to write to.", required=True, **own)
        flags.DEFINE_integer(
            "images_per_class",
            100,
            "Images of each class; of sem_depth, depth maps with their pictures.",
            **own,
        )
        flags.DEFINE_string(
            "image_size",
            "",
            "Side in pixels, or HEIGHTxWIDTH; empty = 128, of sem_depth 72x48.",
            **own,
        )
        flags.DEFINE_integer("seed", 0, "Seed of the set, from 0.", **own)
        flags.DEFINE_list("classes", [], "Only these classes; all if empty.", **own)
        flags.DEFINE_enum(
            "format",
            "png",
            ["png", "png16", "npy"],
            "8-bit PNG; 16-bit PNG (rheed, depth maps); float32 NPY (lensing, depth maps).",
            **own,
        )
        flags.DEFINE_string(
            "sheet", "", "Also draws the first images of every class on this new PNG.", **own
        )
    for kind in KINDS.values():
        for name, (default, meaning) in kind.parameters.meanings().items():
            with topic(flag_values, f"--kind={kind.name}: {meaning.topic}"):
                _define_setting(name, default, meaning, own)


def _define_setting(name: str, default: Any, meaning: Meaning, own: dict[str, Any]) -> None:
    if meaning.choices:
        flags.DEFINE_enum(name, default, list(meaning.choices), meaning.text, **own)
    elif isinstance(default, tuple):
        flags.DEFINE_list(name, [f"{number:g}" for number in default], meaning.text, **own)
    else:
        flags.DEFINE_float(name, default, meaning.text, **own)


def run(flag_values: flags.FlagValues) -> int:
    """Writes the set that the flags ask for."""
    from data_prep.storage import check_new_png
    from data_prep.synthetic.contact_sheet import write_sheet
    from data_prep.synthetic.write import write_set

    kind = KINDS[flag_values.kind]
    parameters = _parameters(kind, flag_values)
    outputs = asked(flag_values, NAME, ["output", "sheet"])
    if (code := outputs.code_if_complete()) is not None:
        return code
    if flag_values.sheet:
        check_new_png(flag_values.sheet, "sheet")
    started = time.perf_counter()
    with outputs.drafts() as drafts:
        manifest = write_set(
            kind.name,
            drafts.paths[0],
            images_per_class=flag_values.images_per_class,
            image_size=_size(flag_values.image_size),
            seed=flag_values.seed,
            parameters=parameters,
            classes=flag_values.classes or None,
            file_format=flag_values.format,
            progress=progress_lines("samples"),
        )
        if flag_values.sheet:
            write_sheet(drafts.paths[1], kind, manifest)
    seconds = time.perf_counter() - started
    logger.info(
        "wrote %d images of %d classes to %s in %.1f s",
        len(manifest),
        len(manifest.class_names),
        flag_values.output,
        seconds,
    )
    if flag_values.sheet:
        logger.info("drew %s", flag_values.sheet)
    return 0


def _parameters(kind: Kind, flag_values: flags.FlagValues) -> Parameters:
    """The kind's settings; a flag of another kind is refused."""
    for other in KINDS.values():
        given = [name for name in other.parameters.meanings() if flag_values[name].present]
        if given and other is not kind:
            raise UserError(f"--{given[0]} belongs to --kind={other.name}, not to {kind.name}")
    chosen: dict[str, Any] = {}
    for name in kind.parameters.meanings():
        value = flag_values[name].value
        chosen[name] = _numbers(name, value) if isinstance(value, list) else value
    return kind.parameters(**chosen)


def _size(text: str) -> tuple[int, int] | None:
    """(height, width) of `128` or `72x48`; None if empty."""
    if not text:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() for part in parts):
        raise UserError(f"--image_size={text}: must be a whole number, or HEIGHTxWIDTH")
    return int(parts[0]), int(parts[-1])


def _numbers(name: str, texts: Sequence[str]) -> tuple[float, float]:
    """Two numbers LOW,HIGH, or one that stands for both."""
    try:
        numbers = [float(text) for text in texts]
    except ValueError:
        numbers = []
    if len(numbers) not in {1, 2}:
        raise UserError(f"--{name}={','.join(texts)}: must be one number, or two, LOW,HIGH")
    return numbers[0], numbers[-1]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-synthesize`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
