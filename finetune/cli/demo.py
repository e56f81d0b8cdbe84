"""`simclr-demo`: from a folder of images to a page that says what pretraining is worth."""

import logging
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.runtime import import_tensorflow

NAME = "simclr-demo"
DESCRIPTION = """Pretrains a small SimCLRv2 network without labels, trains classifiers on a few
labels a class, and writes a page that compares them on images none of the steps has seen.

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
        flags.DEFINE_integer("labels_per_class", 5, "Labels given.", lower_bound=1, **own)
        flags.DEFINE_integer("draws", 5, "How often labels are drawn.", lower_bound=1, **own)
        flags.DEFINE_integer("pretrain_steps", 700, "Updates without labels.", lower_bound=1, **own)
        flags.DEFINE_integer("finetune_steps", 80, "Updates of each fit.", lower_bound=1, **own)
        flags.DEFINE_integer(
            "scratch_steps", 400, "Updates of the long fit from scratch.", lower_bound=1, **own
        )
        flags.DEFINE_integer("seed", 0, "Seed of everything.", lower_bound=0, **own)
    with topic(flag_values, "Output"):
        flags.DEFINE_string("output", "demo", "Folder for the page and what it rests on.", **own)
        flags.DEFINE_bool("overwrite", False, "Delete an earlier demonstration there.", **own)


def run(flag_values: flags.FlagValues) -> None:
    """Runs the demonstration and writes the page."""
    import_tensorflow()
    from dataclasses import fields

    from finetune.demo import OWN_FILES, Demo, DemoSettings, write_demo

    chosen = {f.name: getattr(flag_values, f.name) for f in fields(DemoSettings)}
    output = Path(flag_values.output)
    if flag_values.overwrite and (output / "settings.json").exists():
        for name in OWN_FILES:
            path = output / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    demo = Demo(DemoSettings(**chosen), output)
    results = demo.run()
    page = write_demo(demo, results)
    for (name, labels), interval in results.accuracy.items():
        log.info("%-32s %4s labels a class  %s", name, labels, format(interval, ".3f"))
    log.info("accuracy gained over training from scratch: %s", format(results.gain, "+.3f"))
    log.info("the page: %s", page)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-demo`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
