"""`simclr-sweep`: pretraining runs over methods, augmentations and seeds, and one comparison."""

import logging
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data_prep.cli.app import EXIT_FAILED
from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow
from data_prep.errors import UserError
from data_prep.manifest.read_options import READING_FIELDS
from data_prep.sections import ImageSettings
from data_prep.settings import Config, setting
from simclr_tf.cli import run as run_command
from simclr_tf.config.run_config import RunConfig
from simclr_tf.sweeps.grid import GridRow, grid_rows, row_arguments

if TYPE_CHECKING:
    from data_prep.manifest.manifest import Manifest
    from simclr_tf.sweeps.plan import PlannedRun

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


@dataclass(frozen=True)
class GridSettings:
    """Grid."""

    vary: tuple[str, ...] = setting(
        (),
        "FLAG=VALUE,VALUE,... of simclr-run; several of these: every combination.",
        repeated=True,
    )
    grid: str = setting(
        "",
        "CSV with a flag a column and a run a row, or TOML with a [[run]] a row; with --vary each "
        "row in every combination.",
    )
    untrained: bool = setting(True, "Add the floor: each network and seed without training.")


@dataclass(frozen=True)
class SweepSettings:
    """Sweep."""

    output: str = setting("", "Folder of runs, tables and page.")
    parallel: int = setting(1, "Runs at a time.", low=1)


@dataclass(frozen=True)
class SweepPage:
    """Page."""

    sort_by: Literal[
        "knn_accuracy", "linear_probe_accuracy", "loss", "effective_rank", "seconds"
    ] = setting("knn_accuracy", "Order of the settings.")
    pinned: tuple[str, ...] = setting((), "Images whose neighbours are shown: ends of their paths.")


@dataclass(frozen=True)
class SweepConfig(Config):
    """All settings of `simclr-sweep`."""

    images: ImageSettings = field(default_factory=ImageSettings)
    grid: GridSettings = field(default_factory=GridSettings)
    sweep: SweepSettings = field(default_factory=SweepSettings)
    page: SweepPage = field(default_factory=SweepPage)


def run(config: SweepConfig, given: Collection[str], arguments: Sequence[str] = ()) -> int:
    """Checks, trains, compares.

    Args:
        config: All settings.
        given: Names of those that were given.
        arguments: Those that all runs share.

    Returns:
        0; 1 if a run failed; 128 + the number of the signal that asked to stop.
    """
    if not config.sweep.output:
        raise UserError("is missing: say where the runs are to be kept", setting="output")
    rows = grid_rows(config.grid.vary, config.grid.grid)
    for name in _SHARED:
        if any(name in row for row in rows):
            raise UserError(f"--{name} cannot be varied: it is the same for all runs of a sweep")
    output = Path(config.sweep.output).absolute()
    lines = [(*arguments, *row_arguments(row)) for row in rows]
    parsed = [_parsed(row, each, config.images) for row, each in zip(rows, lines, strict=True)]
    import_tensorflow()
    from simclr_tf.training.distribution import refuse_cluster

    refuse_cluster(NAME)
    from simclr_tf.checkpoints.load import Checkpoints
    from simclr_tf.sweeps.check import check_runs, shared_manifest
    from simclr_tf.sweeps.plan import floors, plan_runs
    from simclr_tf.training.from_checkpoint import adopt_checkpoint, open_origins

    opened = Checkpoints()
    configs = [adopt_checkpoint(one, names, open_origins(one, opened)) for one, names in parsed]
    runs = plan_runs(rows, lines, configs)
    manifest = shared_manifest(configs[0])
    check_runs(runs, manifest, config.page.pinned)
    floor = floors(runs) if config.grid.untrained else ()
    command = [NAME, *config.flags(given), "--", *arguments]
    return _train_and_compare(config, (*floor, *runs), manifest, output, command)


def _parsed(
    row: GridRow, arguments: Sequence[str], images: ImageSettings
) -> tuple[RunConfig, Collection[str]]:
    """The settings of a run, and the names of those that are given."""
    try:
        config, given = run_command.COMMAND.parsed(arguments)
    except UserError as error:
        where = ", ".join(f"{name}={value}" for name, value in row.items())
        raise UserError(f"{error} (run {where})") from None
    data = config.data
    if images.image_dir or images.manifest:
        data = replace(data, image_dir=images.image_dir, manifest=images.manifest)
    if images.skip_unreadable:
        data = replace(data, skip_unreadable=True)
    return replace(config, data=data), given


def _train_and_compare(
    config: SweepConfig,
    runs: "Sequence[PlannedRun]",
    manifest: "Manifest",
    output: Path,
    command: Sequence[str],
) -> int:
    from data_prep.storage import only_one
    from simclr_tf.sweeps.launch import launch, run_command
    from simclr_tf.sweeps.page import report
    from simclr_tf.sweeps.plan import keep_plan
    from simclr_tf.training.fit import StopRequest

    runs = keep_plan(runs, manifest, output)
    busy = f"--output={output}: a sweep, or a run of one that was killed, is at work there"
    with only_one(output / "lock", f"{busy}; wait for it to end") as lock:
        with StopRequest().listening() as stop:
            failed = launch(
                runs, output, run_command(output), stop, parallel=config.sweep.parallel, lock=lock
            )
        if stop.signal:
            log.info("stopped; the same command goes on from here")
            return 128 + stop.signal
        page = config.page
        table = report(runs, failed, output, command, sort_by=page.sort_by, pinned=page.pinned)
    print(table)
    if failed:
        log.error("%d of %d runs failed: %s", len(failed), len(runs), ", ".join(failed))
    return EXIT_FAILED if failed else 0


COMMAND = Command(
    NAME, DESCRIPTION, SweepConfig, run, positional=("image_dir", "output"), forwards=True
)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
