"""`simclr-tfrecord`: images to TFRecord shards, and a check of shards that are there."""

import logging
import sys
import time
from collections.abc import Collection

from data_prep.cli.app import EXIT_FAILED
from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.errors import UserError
from data_prep.phrases import counted
from data_prep.sections import ShardConfig

NAME = "simclr-tfrecord"
DESCRIPTION = """Writes an image set as TFRecord shards: few large files instead of many small ones,
for file systems and networks that are slow with small files. --tfrecord_dir of the other commands
reads them.

The files go in byte for byte, with labels, splits, groups and paths. Interrupted, even killed, the
same command goes on where it was. --verify=FOLDER reads shards again and names the damaged ones."""

logger = logging.getLogger("data_prep.sources.tfrecord")


def run(config: ShardConfig, given: Collection[str]) -> int:
    """Writes shards, or checks them; 1 if some are damaged."""
    shards = config.shards
    if config.check.verify:
        others = [name for name in ("image_dir", "manifest", "output") if name in given]
        if others:
            raise UserError(f"--verify reads shards only; leave --{others[0]} away")
        return _verify(config.check.verify)
    if not shards.output:
        raise UserError("is missing: say where the shards are to be written", setting="output")
    from data_prep.manifest.open_images import open_training_images

    progress = progress_lines("pictures")
    manifest = open_training_images(config.images, config.reading, progress)
    import_tensorflow()
    from data_prep.sources.tfrecord_writer import write_shards

    started = time.perf_counter()
    facts = write_shards(
        manifest,
        shards.output,
        shards.num_shards,
        shard_mb=shards.shard_mb,
        workers=shards.workers,
        progress=progress_lines("images"),
    )
    seconds = time.perf_counter() - started
    print(f"{'split':<16}{'images':>10}{'shards':>8}{'MB':>12}")
    for name, part in facts.items():
        size = sum(shard.num_bytes for shard in part.shards) / 1e6
        print(f"{name:<16}{part.num_examples:>10}{len(part.shards):>8}{size:>12.1f}")
    logger.info("wrote %s to %s in %.1f s", counted(len(manifest), "image"), shards.output, seconds)
    if not manifest.splits:
        logger.info("the images have no split; simclr-split makes one to train on")
    return 0


def _verify(folder: str) -> int:
    from data_prep.sources.tfrecord import damaged_shards, read_facts

    _, splits = read_facts(folder)
    shards = tuple(shard for part in splits.values() for shard in part.shards)
    problems = damaged_shards(folder, shards, progress_lines("shards"))
    for name, problem in problems.items():
        print(f"{name}: {problem}")
    size = sum(shard.num_bytes for shard in shards) / 1e6
    print(f"{counted(len(shards), 'shard')}, {size:.1f} MB: {len(problems)} damaged")
    return EXIT_FAILED if problems else 0


COMMAND = Command(NAME, DESCRIPTION, ShardConfig, run, positional=("image_dir", "output"))
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
