"""`simclr-sweep`: pretraining runs over methods, augmentations and seeds, and one comparison."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from data_prep.cli.app import EXIT_FAILED, given_flags, parse, run_handing_on, topic
from data_prep.cli.image_flags import define_images, given_images
from data_prep.cli.runtime import import_tensorflow
from data_prep.errors import UserError
from data_prep.manifest.read_options import READING_FIELDS
from simclr_tf.cli import run as run_command
from simclr_tf.config.run_config import RunConfig
from simclr_tf.sweep.grid import SORT_BY, Row, grid_rows, row_arguments

if TYPE_CHECKING:
    from data_prep.manifest.manifest import Manifest
    from simclr_tf.sweep.plan import PlannedRun

NAME = "simclr-sweep"
DESCRIPTION = """Pretrains over a grid of settings and sets the runs side by side. What all runs
share follows after two dashes, as flags of simclr-run or its --flagfile:

simclr-sweep --image_dir=images --output=sweep --vary=method=simclr,byol --vary=seed=0,1 -- FLAGS

All flags and images are checked before the first run begins. Each run is a simclr-run of its own in
OUTPUT/runs; the same command goes on with those that were broken off, and rows may be added. It
ends in sweep.csv, a row a run, settings.csv, a row a setting, and index.html."""

log = logging.getLogger("simclr_tf.sweep")

# What is the same for all runs, or set by the sweep.
_SHARED = (
    "model_dir", "mode", "train_mode", "image_dir", "manifest", "tfrecord_dir", "dataset",
    "data_dir", "download", "skip_unreadable", "train_split", "eval_split", "split_ratios",
    "split_seed", "overwrite", "eval_name", "hdf5_links", *READING_FIELDS,
)  # fmt: skip


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    define_images(flag_values)
    with topic(flag_values, "Grid"):
        flags.DEFINE_multi_string(
            "vary",
            [],
            "FLAG=VALUE,VALUE,... of simclr-run; several of these: every combination.",
            **own,
        )
        flags.DEFINE_string(
            "grid",
            "",
            "CSV with a flag a column and a run a row, or TOML with a [[run]] a row; with --vary "
            "each row in every combination.",
            **own,
        )
        flags.DEFINE_bool(
            "untrained", True, "Add the floor: each network and seed without training.", **own
        )
    with topic(flag_values, "Sweep"):
        flags.DEFINE_string("output", None, "Folder of runs, tables and page.", **own)
        flags.DEFINE_integer("parallel", 1, "Runs at a time.", 1, **own)
    with topic(flag_values, "Page"):
        flags.DEFINE_enum("sort_by", "knn_accuracy", list(SORT_BY), "Order of the settings.", **own)
        flags.DEFINE_list(
            "pinned", [], "Images whose neighbours are shown: ends of their paths.", **own
        )


def run(flag_values: flags.FlagValues, arguments: Sequence[str] = ()) -> int:
    """Checks, trains, compares.

    Args:
        flag_values: The parsed flags.
        arguments: Those that all runs share.

    Returns:
        0; 1 if a run failed; 128 + the number of the signal that asked to stop.
    """
    f = flag_values
    if not f.output:
        raise UserError("--output is missing: say where the runs are to be kept")
    rows = grid_rows(f.vary, f.grid)
    for name in _SHARED:
        if any(name in row for row in rows):
            raise UserError(f"--{name} cannot be varied: it is the same for all runs of a sweep")
    output = Path(f.output).absolute()
    given = [(*arguments, *row_arguments(row)) for row in rows]
    parsed = [_parsed(row, each, f) for row, each in zip(rows, given, strict=True)]
    import_tensorflow()
    from simclr_tf.training.distribution import refuse_cluster

    refuse_cluster(NAME)
    from simclr_tf.checkpoints.load import Checkpoints
    from simclr_tf.sweep.check import check_runs, shared_manifest
    from simclr_tf.sweep.plan import floors, plan_runs
    from simclr_tf.training.from_checkpoint import adopt_checkpoint, open_origins

    opened = Checkpoints()
    configs = [
        adopt_checkpoint(config, names, open_origins(config, opened)) for config, names in parsed
    ]
    runs = plan_runs(rows, given, configs)
    manifest = shared_manifest(configs[0])
    check_runs(runs, manifest, f.pinned)
    floor = floors(runs) if f.untrained else ()
    return _train_and_compare(f, (*floor, *runs), manifest, output, arguments)


def _parsed(row: Row, arguments: Sequence[str], f: flags.FlagValues) -> tuple[RunConfig, set[str]]:
    """The settings of a run, and the names of those that are given."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    run_command.define(values)
    try:
        parse(values, arguments, run_command.NAME)
        config = run_command.read_config(values)
    except UserError as error:
        where = ", ".join(f"{name}={value}" for name, value in row.items())
        raise UserError(f"{error} (run {where})") from None
    if f.image_dir or f.manifest:
        given_images(f)
        data = replace(config.data, image_dir=f.image_dir or "", manifest=f.manifest or "")
        config = replace(config, data=data)
    if f.skip_unreadable:
        config = replace(config, data=replace(config.data, skip_unreadable=True))
    return config, run_command.config_flags.given(values)


def _train_and_compare(
    f: flags.FlagValues,
    runs: "Sequence[PlannedRun]",
    manifest: "Manifest",
    output: Path,
    arguments: Sequence[str],
) -> int:
    from data_prep.storage import only_one
    from simclr_tf.sweep.launch import launch, run_command
    from simclr_tf.sweep.page import report
    from simclr_tf.sweep.plan import keep_plan
    from simclr_tf.training.fit import StopRequest

    runs = keep_plan(runs, manifest, output)
    busy = f"--output={output}: a sweep, or a run of one that was killed, is at work there"
    with only_one(output / "lock", f"{busy}; wait for it to end") as lock:
        with StopRequest().listening() as stop:
            failed = launch(runs, output, run_command(output), stop, parallel=f.parallel, lock=lock)
        if stop.signal:
            log.info("stopped; the same command goes on from here")
            return 128 + stop.signal
        command = [NAME, *given_flags(f), "--", *arguments]
        table = report(runs, failed, output, command, sort_by=f.sort_by, pinned=f.pinned)
    print(table)
    if failed:
        log.error("%d of %d runs failed: %s", len(failed), len(runs), ", ".join(failed))
    return EXIT_FAILED if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-sweep`."""
    return run_handing_on(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
