"""`simclr-demo`: from a folder of images to a page that says what pretraining is worth."""

import logging
import shutil
import sys
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow
from finetune.sections import DemoConfig, DemoSettings

NAME = "simclr-demo"
DESCRIPTION = """Pretrains a small SimCLRv2 network without labels, trains classifiers on a few
labels a class, and writes a page that compares them on images none of the steps has seen.

Without --image_dir it makes its own images: noisy electron micrographs of 13 crystal lattices."""

log = logging.getLogger("finetune.demo")


def run(config: DemoConfig, _given: Collection[str]) -> None:
    """Runs the demonstration and writes the page."""
    import_tensorflow()
    from finetune.demo import OWN_FILES, Demo, write_demo

    settings = DemoSettings(**{**asdict(config.images), **asdict(config.comparison)})
    output = Path(config.output.output)
    if config.output.overwrite and (output / "settings.json").exists():
        for name in OWN_FILES:
            path = output / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    demo = Demo(settings, output)
    results = demo.run()
    page = write_demo(demo, results)
    for (name, labels), interval in results.accuracy.items():
        log.info("%-32s %4s labels a class  %s", name, labels, format(interval, ".3f"))
    log.info("accuracy gained over training from scratch: %s", format(results.gain, "+.3f"))
    log.info("the page: %s", page)


COMMAND = Command(NAME, DESCRIPTION, DemoConfig, run, positional=("image_dir", "output"))
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
