"""`simclr-tfrecord`: images to TFRecord shards, and a check of shards that are there."""

import logging
import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from data_prep.cli.app import EXIT_FAILED, run_app, topic
from data_prep.cli.image_flags import define_declared_images, open_declared_images
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.errors import UserError
from data_prep.phrases import counted

NAME = "simclr-tfrecord"
DESCRIPTION = """Writes an image set as TFRecord shards: few large files instead of many small ones,
for file systems and networks that are slow with small files. --tfrecord_dir of the other commands
reads them.

The files go in byte for byte, with labels, splits, groups and paths. Interrupted, even killed, the
same command goes on where it was. --verify=FOLDER reads shards again and names the damaged ones."""

logger = logging.getLogger("data_prep.sources.tfrecord")


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    define_declared_images(flag_values)
    with topic(flag_values, "Shards"):
        flags.DEFINE_string("output", None, "New folder to write to.", **own)
        flags.DEFINE_integer(
            "num_shards", 0, "Shards of every split; 0: as many as --shard_mb asks for.", **own
        )
        flags.DEFINE_float("shard_mb", 128, "Size of a shard in megabytes.", **own)
        flags.DEFINE_integer(
            "workers", 0, "Shards written at the same time; 0: one a processor, 8 at most.", **own
        )
    with topic(flag_values, "Check"):
        flags.DEFINE_string(
            "verify",
            None,
            "Folder of shards to compare with their SHA-256; nothing is written. Exit code 1 if"
            " any is damaged.",
            **own,
        )


def run(flag_values: flags.FlagValues) -> int:
    """Writes shards, or checks them; 1 if some are damaged."""
    if flag_values.verify:
        others = [n for n in ("image_dir", "manifest", "output") if getattr(flag_values, n)]
        if others:
            raise UserError(f"--verify reads shards only; leave --{others[0]} away")
        return _verify(flag_values.verify)
    if not flag_values.output:
        raise UserError("--output is missing: say where the shards are to be written")
    if flag_values.workers < 0:
        raise UserError(f"--workers={flag_values.workers}: must be 0 or more")
    manifest = open_declared_images(flag_values)
    import_tensorflow()
    from data_prep.sources.tfrecord_writer import write_shards

    started = time.perf_counter()
    facts = write_shards(
        manifest,
        flag_values.output,
        flag_values.num_shards,
        shard_mb=flag_values.shard_mb,
        workers=flag_values.workers,
        progress=progress_lines("images"),
    )
    seconds = time.perf_counter() - started
    print(f"{'split':<16}{'images':>10}{'shards':>8}{'MB':>12}")
    for name, part in facts.items():
        size = sum(shard.num_bytes for shard in part.shards) / 1e6
        print(f"{name:<16}{part.num_examples:>10}{len(part.shards):>8}{size:>12.1f}")
    logger.info(
        "wrote %s to %s in %.1f s", counted(len(manifest), "image"), flag_values.output, seconds
    )
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


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-tfrecord`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
