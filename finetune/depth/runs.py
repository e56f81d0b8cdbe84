"""Several trainings by one command: one network per case, and k folds.

OUTPUT/                       one network
OUTPUT/case_<case>/           --per_case
OUTPUT/fold_<n>/              --folds, each with what it would be without; folds.csv beside
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_prep.csv_files import write_csv
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.splits import FoldPlan, fold_names, make_folds
from data_prep.storage import LOCK, claimed, read_object
from finetune.depth.pairs import TEST, VALIDATION, case_of, open_manifest
from finetune.depth.session import DepthDir
from finetune.depth.settings import DepthConfig
from finetune.depth.train import train_depth
from simclr_tf.training.distribution import Devices, connect

log = logging.getLogger(__name__)

FOLDS_TABLE = "folds.csv"

Run = tuple[DepthConfig, Manifest]


def train_all(config: DepthConfig) -> int:
    """Trains what the settings ask for, one network after the other; complete ones are kept.

    Args:
        config: All settings.

    Returns:
        0, or the exit code of a training that was stopped.

    Raises:
        UserError: Something asked for is impossible.
    """
    if not config.run.output:
        raise UserError("is missing: say where the run is to be kept", setting="output")
    devices = connect(config.machine)
    for folder in (Path(config.run.output), *Path(config.run.output).glob("*/")):
        config = DepthDir(folder).as_begun(config)
    manifest = open_manifest(config)
    runs = planned_runs(config, manifest)
    output = Path(config.run.output)
    with ExitStack() as claim:
        if len(runs) > 1:
            _check_output(output)
            if devices.is_chief:
                busy = "another process is at work there; wait for it to end"
                claim.enter_context(claimed(output, f"--output={output}: {busy}"))
        return _train_runs(config, runs, devices)


def _train_runs(config: DepthConfig, runs: Sequence[Run], devices: Devices) -> int:
    output = Path(config.run.output)
    for number, (one, images) in enumerate(runs, 1):
        if len(runs) > 1:
            log.info("%s, %d of %d", Path(one.run.output).relative_to(output), number, len(runs))
        code = train_depth(one, images, devices)
        if code:
            return code
    if config.data.folds and devices.is_chief:
        _write_folds(output, [DepthDir(Path(one.run.output)) for one, _ in runs])
    return 0


def planned_runs(config: DepthConfig, manifest: Manifest) -> list[Run]:
    """The trainings that the settings ask for, each with its settings and its images.

    Args:
        config: All settings.
        manifest: All images.

    Raises:
        UserError: No cases for `--per_case`, or too few groups for the folds.
    """
    runs: list[Run] = [(config, manifest)]
    if config.data.folds:
        folds = depth_folds(manifest, config.data.folds, config.data.split_seed)
        names = fold_names(config.data.folds)
        runs = [
            (_inside(config, name, folds=0), fold) for name, fold in zip(names, folds, strict=True)
        ]
    if not config.data.per_case:
        return runs
    cases = sorted({case_of(record) for record in manifest.records})
    if "" in cases:
        raise UserError(
            "some images have no case; fill the manifest's column case, or put them "
            "into case folders",
            setting="per_case",
        )
    if wrong := [case for case in cases if "/" in case]:
        raise UserError(f"the case {wrong[0]!r} cannot be the name of a folder", setting="per_case")
    return [
        (_inside(one, f"case_{case}", per_case=False, case=case), images)
        for one, images in runs
        for case in cases
    ]


def depth_folds(manifest: Manifest, count: int, seed: int) -> list[Manifest]:
    """Folds that validate on another part each; test images, if any, are in none of the parts.

    Args:
        manifest: The images, in splits.
        count: How many folds.
        seed: Another seed, other folds.

    Raises:
        UserError: Too few groups.
    """
    dealt = [record for record in manifest.records if record.split != TEST]
    kept = [record for record in manifest.records if record.split == TEST]
    cleared = manifest.subset(replace(record, split="") for record in dealt)
    folds = make_folds(cleared, FoldPlan(count, VALIDATION), seed)
    return [manifest.subset([*fold.records, *kept]) for fold in folds]


def _inside(config: DepthConfig, name: str, **values: object) -> DepthConfig:
    return config.altered(output=str(Path(config.run.output) / name), **values)


def _check_output(output: Path) -> None:
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError("is a file; give a folder", setting="output", value=output)
    known = ("case_", "fold_", FOLDS_TABLE, LOCK)
    others = sorted(p.name for p in output.iterdir() if not p.name.startswith(known))
    if others:
        raise UserError(
            f"holds something else ({others[0]}); give another folder",
            setting="output",
            value=output,
        )


def _write_folds(output: Path, runs: Sequence[DepthDir]) -> None:
    """Writes the errors of every run and split, a row each, and logs mean and spread over runs."""
    found = [(run, read_object(run.result_file)) for run in runs]
    columns = list(found[0][1][VALIDATION]["all"])
    rows: list[list[object]] = [["run", "split", *columns]]
    for run, splits in found:
        for split, cases in splits.items():
            numbers = [repr(cases["all"][name]) for name in columns]
            rows.append([run.path.relative_to(output).as_posix(), split, *numbers])
    write_csv(output / FOLDS_TABLE, rows)
    errors = np.array([splits[VALIDATION]["all"]["rmse"] for _, splits in found])
    log.info(
        "validation RMSE over %d runs: %.3f, standard deviation %.3f; %s",
        len(errors), errors.mean(), errors.std(ddof=1), output / FOLDS_TABLE,
    )  # fmt: skip
