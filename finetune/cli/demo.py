"""`simclr-demo`: from a folder of images to a page that says what pretraining is worth."""

import logging
import shutil
import sys
from collections.abc import Collection
from dataclasses import fields
from pathlib import Path

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.storage import claimed
from finetune.sections import DemoConfig, DemoSettings

NAME = "simclr-demo"
DESCRIPTION = """Pretrains a small SimCLRv2 network without labels, trains classifiers on a few
labels a class and on all, and writes a page that compares them with the same network trained from
scratch, on images none of the steps has seen. It is simclr-compare --preset=demo in few flags.

Without --image_dir it makes its own images: noisy electron micrographs of 13 crystal lattices."""

log = logging.getLogger("finetune.demo")


def run(config: DemoConfig, _given: Collection[str]) -> int:
    """Runs the demonstration, and prints its table."""
    output, former = Path(config.output.output), config.former.scratch_steps
    if former is not None:
        log.warning(
            "--scratch_steps=%d has no effect any more: from scratch takes as many steps as"
            " fine-tuning, --finetune_steps=%d",
            former,
            config.comparison.finetune_steps,
        )
    busy = f"--output={output}: another demonstration is at work there; wait for it to end"
    with claimed(output, busy):
        return _run(config, output)


def _run(config: DemoConfig, output: Path) -> int:
    import_tensorflow()
    from finetune.compare.chain import Stopped
    from finetune.compare.page import mean_table
    from finetune.demo import OWN_FILES, PAGE, SETTINGS, Demo

    values = config.values()
    chosen = DemoSettings(**{f.name: values[f.name] for f in fields(DemoSettings)})
    if config.output.overwrite and (output / SETTINGS).exists():
        for name in OWN_FILES:
            path = output / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    try:
        results = Demo(chosen, output, progress_lines).run()
    except Stopped as stopped:
        log.info("stopped; what is done is saved, and the same command goes on from there")
        return stopped.code
    print(mean_table(results).text())
    log.info("the page: %s", output / PAGE)
    return 0


COMMAND = Command(NAME, DESCRIPTION, DemoConfig, run, positional=("image_dir", "output"))
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
