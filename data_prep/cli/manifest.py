"""`simclr-manifest`: one table of images, with how each is read, out of files of any kind."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.image_flags import define_images, define_reading, given_images, read_reading
from data_prep.cli.request import asked
from data_prep.cli.runtime import progress_lines
from data_prep.manifest.pairing import PAIRING_HELP
from data_prep.phrases import counted

NAME = "simclr-manifest"
DESCRIPTION = """Writes a manifest: a CSV with a row for each image, its class, split and group, and
how it is read. A file may give many images: pages of a TIFF, a stack in one array, tiles of a large
picture. Every other command takes it as --manifest.

JPEG, PNG, TIFF, BMP, GIF, NPY, NPZ, HDF5 and FITS are known by their content; RAW files by what is
declared of them. With --target_dir every image is paired with the file of the same name there, such
as a depth map. With --intensity_per=set the black and white point are found over the images of
the split train, or, if there is no split yet, by the run that makes one."""

logger = logging.getLogger("data_prep.manifest_command")


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    define_images(flag_values)
    with topic(flag_values, "Output"):
        flags.DEFINE_string("output", None, "CSV file to write.", required=True, **own)
    define_reading(flag_values)
    define_pairs(flag_values)


def define_pairs(flag_values: flags.FlagValues) -> None:
    """Defines the flags that pair images with targets."""
    own: dict[str, Any] = {"flag_values": flag_values}
    with topic(flag_values, "Targets"):
        flags.DEFINE_string("target_dir", "", PAIRING_HELP["target_dir"], **own)
        flags.DEFINE_string("pair_by", "", PAIRING_HELP["pair_by"], **own)
        flags.DEFINE_string("target_scale", "", PAIRING_HELP["target_scale"], **own)


def run(flag_values: flags.FlagValues) -> int:
    """Writes the manifest that the flags ask for."""
    from data_prep.manifest.open_images import find_set_limits, has_open_limits, open_declared
    from data_prep.manifest.pairing import paired

    output = Path(flag_values.output)
    folder, listed = given_images(flag_values)
    outputs = asked(flag_values, NAME, ["output"])
    if (code := outputs.code_if_complete()) is not None:
        return code
    manifest = open_declared(
        folder,
        listed,
        read_reading(flag_values),
        skip_unreadable=flag_values.skip_unreadable,
    )
    manifest = paired(
        manifest, flag_values.target_dir, flag_values.pair_by, flag_values.target_scale
    )
    if has_open_limits(manifest) and "train" in manifest.splits:
        manifest = find_set_limits(manifest, manifest.split("train"), progress_lines("pictures"))
    elif has_open_limits(manifest):
        logger.info("no split yet: black and white point will be found by the run that makes one")
    with outputs.drafts() as drafts:
        manifest.save(drafts.paths[0])
    print(manifest.table())
    pictures = len(set(manifest.pictures()))
    logger.info(
        "wrote %s: %s from %s",
        output,
        counted(len(manifest), "image"),
        counted(pictures, "picture"),
    )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-manifest`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
