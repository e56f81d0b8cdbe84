"""`simclr-check`: what would spoil the numbers of a model, found before it is trained."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.image_flags import define_images, given_images
from data_prep.cli.request import asked
from data_prep.cli.runtime import progress_lines
from data_prep.manifest.manifest import Manifest

if TYPE_CHECKING:
    from data_prep.check.check import Checked
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


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    define_images(flag_values, may_skip=False)
    with topic(flag_values, "Check"):
        flags.DEFINE_integer(
            "near_distance",
            8,
            "Most bits of 64 in which the perceptual hashes of near duplicates differ; -1 = do not"
            " look for them.",
            -1,
            64,
            **own,
        )
        flags.DEFINE_enum(
            "fail_on",
            "serious",
            ["serious", "warning", "never"],
            f"From which severity on the exit code is {EXIT_FOUND}.",
            **own,
        )
        flags.DEFINE_integer("seed", 0, "Of the test for features that tell the class.", 0, **own)
    with topic(flag_values, "Output"):
        flags.DEFINE_string("output", None, "New folder for report.html and check.json.", **own)
        flags.DEFINE_integer("thumbnails", 12, "Pictures of each class on the page.", 0, **own)


def run(flag_values: flags.FlagValues) -> int:
    """Checks the set that the flags name."""
    from data_prep.check.check import check

    f = flag_values
    outputs = asked(f, NAME, ["output"]) if f.output else None
    if outputs and (code := outputs.code_if_complete()) is not None:
        return code
    manifest, left_out = _images(f)
    checked = check(
        manifest,
        near_distance=f.near_distance,
        seed=f.seed,
        left_out=left_out,
        progress=progress_lines("files"),
    )
    print(manifest.table())
    for finding in checked.findings:
        print(finding.line())
    if not checked.findings:
        print("nothing found")
    failing = {"serious": ["serious"], "warning": ["serious", "warning"], "never": []}[f.fail_on]
    code = EXIT_FOUND if checked.worst() in failing else 0
    if outputs:
        with outputs.drafts() as drafts:
            drafts.code = code
            _write(drafts.paths[0], checked, f.image_dir or f.manifest, f.thumbnails)
        logger.info("the page is %s", Path(f.output) / "report.html")
    return code


def _images(flag_values: flags.FlagValues) -> "tuple[Manifest, LeftOut | None]":
    from data_prep.manifest.scan import list_with_left_out

    folder, listed = given_images(flag_values)
    if listed:
        return Manifest.load(listed, folder), None
    return list_with_left_out(folder)


def _write(output: Path, checked: "Checked", what: str, thumbnails: int) -> None:
    from data_prep.check.page import check_page
    from data_prep.page import write_page

    output.mkdir()
    (output / "check.json").write_text(checked.to_json(), encoding="utf-8")
    write_page(check_page(checked, f"Check of {what}", thumbnails), output / "report.html")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-check`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
