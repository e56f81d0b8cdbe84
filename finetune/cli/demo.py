"""`simclr-demo`: from a folder of images to a page that says what pretraining is worth."""

import logging
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.storage import claimed

NAME = "simclr-demo"
DESCRIPTION = """Pretrains a small SimCLRv2 network without labels, trains classifiers on a few
labels a class and on all, and writes a page that compares them with the same network trained from
scratch, on images none of the steps has seen. It is simclr-compare --preset=demo in few flags.

Without --image_dir it makes its own images: noisy electron micrographs of 13 crystal lattices."""

log = logging.getLogger("finetune.demo")


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    with topic(flag_values, "Images"):
        flags.DEFINE_string("image_dir", "", "Folder of class folders; empty makes images.", **own)
        flags.DEFINE_integer(
            "images_per_class", 130, "Of the images it makes.", lower_bound=20, **own
        )
        flags.DEFINE_integer(
            "image_size", 64, "Side of the network's input in pixels.", lower_bound=16, **own
        )
    with topic(flag_values, "Comparison"):
        flags.DEFINE_integer(
            "labels_per_class", 5, "Labels given, beside all.", lower_bound=1, **own
        )
        flags.DEFINE_integer("draws", 5, "How often labels are drawn.", lower_bound=1, **own)
        flags.DEFINE_integer("pretrain_steps", 700, "Updates without labels.", lower_bound=1, **own)
        flags.DEFINE_integer("finetune_steps", 300, "Updates of each fit.", lower_bound=1, **own)
        flags.DEFINE_integer(
            "scratch_steps", None, "Has no effect: from scratch takes --finetune_steps, too.", **own
        )
        flags.DEFINE_integer("seed", 0, "Seed of everything.", lower_bound=0, **own)
    with topic(flag_values, "Output"):
        flags.DEFINE_string("output", "demo", "Folder for the page and what it rests on.", **own)
        flags.DEFINE_bool("overwrite", False, "Delete an earlier demonstration there.", **own)


def run(flag_values: flags.FlagValues) -> int:
    """Runs the demonstration, and prints its table."""
    output = Path(flag_values.output)
    if flag_values.scratch_steps is not None:
        log.warning(
            "--scratch_steps=%d has no effect any more: from scratch takes as many steps as"
            " fine-tuning, --finetune_steps=%d",
            flag_values.scratch_steps, flag_values.finetune_steps,
        )  # fmt: skip
    busy = f"--output={output}: another demonstration is at work there; wait for it to end"
    with claimed(output, busy):
        return _run(flag_values, output)


def _run(flag_values: flags.FlagValues, output: Path) -> int:
    import_tensorflow()
    from finetune.compare.chain import Stopped
    from finetune.compare.page import mean_table
    from finetune.demo import OWN_FILES, PAGE, SETTINGS, Demo, DemoSettings

    chosen = {f.name: getattr(flag_values, f.name) for f in fields(DemoSettings)}
    if flag_values.overwrite and (output / SETTINGS).exists():
        for name in OWN_FILES:
            path = output / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    try:
        results = Demo(DemoSettings(**chosen), output, progress_lines).run()
    except Stopped as stopped:
        log.info("stopped; what is done is saved, and the same command goes on from there")
        return stopped.code
    print(mean_table(results).text())
    log.info("the page: %s", output / PAGE)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-demo`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
