"""`simclr-check`: what would spoil the numbers of a model, found before it is trained."""

import logging
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.cli.command import Command
from data_prep.cli.runtime import progress_lines
from data_prep.manifest.manifest import Manifest
from data_prep.outputs import requested_outputs
from data_prep.sections import CheckConfig

if TYPE_CHECKING:
    from data_prep.manifest.scan import LeftOut

NAME = "simclr-check"
EXIT_FOUND = 3
DESCRIPTION = f"""Reads every image of a set and reports: unreadable, empty, misnamed files; copies
and look-alikes, above all across classes and splits; features of the files that tell the class;
margins, darkness, sizes; few or uneven classes, and groups that file names speak of; names that
look alike, and files and folders that are left out. With --output also a page with contact sheets
and a JSON file.

Exit code: 0 = nothing of the severity that --fail_on names; {EXIT_FOUND} = something;
1 = the images cannot be looked at."""

logger = logging.getLogger("data_prep.check")


def run(config: CheckConfig, given: Collection[str]) -> int:
    """Checks the set that the settings name."""
    from data_prep.check.check import check
    from data_prep.check.page import write_check

    output, check_settings = config.output.output, config.check
    outputs = requested_outputs(config, given, NAME) if output else None
    if outputs and (code := outputs.code_if_complete()) is not None:
        return code
    manifest, left_out = _images(config)
    checked = check(
        manifest,
        near_distance=check_settings.near_distance,
        seed=check_settings.seed,
        left_out=left_out,
        progress=progress_lines("files"),
    )
    print(manifest.table())
    for finding in checked.findings:
        print(finding.line())
    if not checked.findings:
        print("nothing found")
    severities = {"serious": ["serious"], "warning": ["serious", "warning"], "never": []}
    code = EXIT_FOUND if checked.worst() in severities[check_settings.fail_on] else 0
    if outputs:
        with outputs.drafts() as drafts:
            drafts.code = code
            what = config.images.image_dir or config.images.manifest
            write_check(drafts.paths[0], checked, what, config.output.thumbnails)
        logger.info("the page is %s", Path(output) / "report.html")
    return code


def _images(config: CheckConfig) -> "tuple[Manifest, LeftOut | None]":
    from data_prep.manifest.scan import list_with_left_out

    images = config.images
    images.check_given()
    if images.manifest:
        return Manifest.load(images.manifest, images.image_dir), None
    return list_with_left_out(images.image_dir)


COMMAND = Command(NAME, DESCRIPTION, CheckConfig, run, positional=("image_dir", "output"))
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
