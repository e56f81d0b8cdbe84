"""`simclr-manifest`: one table of images, with how each is read, out of files of any kind."""

import logging
import sys
from collections.abc import Collection

from data_prep.cli.command import Command
from data_prep.cli.runtime import progress_lines
from data_prep.outputs import requested_outputs
from data_prep.phrases import counted
from data_prep.sections import ManifestConfig

NAME = "simclr-manifest"
DESCRIPTION = """Writes a manifest: a CSV with a row for each image, its class, split and group, and
how it is read. A file may give many images: pages of a TIFF, a stack in one array, tiles of a large
picture. Every other command takes it as --manifest.

JPEG, PNG, TIFF, BMP, GIF, NPY, NPZ, HDF5 and FITS are known by their content; RAW files by what is
declared of them. With --target_dir every image is paired with the file of the same name there, such
as a depth map. With --intensity_per=set the black and white point are found over the images of
the split train, or, if there is no split yet, by the run that makes one."""

logger = logging.getLogger("data_prep.manifest_command")


def run(config: ManifestConfig, given: Collection[str]) -> int:
    """Writes the manifest that the settings ask for."""
    from data_prep.manifest.open_images import find_set_limits, has_open_limits, open_declared
    from data_prep.manifest.pairing import paired

    images, targets = config.images, config.targets
    images.check_given()
    outputs = requested_outputs(config, given, NAME)
    if (code := outputs.code_if_complete()) is not None:
        return code
    manifest = open_declared(
        images.image_dir,
        images.manifest,
        config.reading,
        skip_unreadable=images.skip_unreadable,
    )
    manifest = paired(manifest, targets.target_dir, targets.pair_by, targets.target_scale)
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
        config.output.output,
        counted(len(manifest), "image"),
        counted(pictures, "picture"),
    )
    return 0


COMMAND = Command(NAME, DESCRIPTION, ManifestConfig, run, positional=("image_dir", "output"))
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
