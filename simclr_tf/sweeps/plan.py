"""The runs of a sweep, and the plan of them in its folder.

The folder of a sweep holds:

    sweep.json     the runs: name, flags, arguments, settings
    manifest.csv   the images with their splits, the same for all runs
    runs/NAME      a run of simclr-run
    logs/NAME.log  its output
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.storage import read_object, write_text
from simclr_tf.config.run_config import RunConfig
from simclr_tf.config.sections import MethodSettings
from simclr_tf.sweeps.grid import GridRow, run_names
from simclr_tf.training.run_dir import RunDir

PLAN = "sweep.json"
MANIFEST = "manifest.csv"

UNTRAINED = "untrained"
UNTRAINED_STEPS = 50

# Settings that may change between two starts of a sweep: those of a run, but for what it reports.
_REPORTED = {"eval_split", "eval_steps", "eval_crops", "knn_neighbors", "linear_probe"}
_FREE = (RunDir.free_to_change - _REPORTED) | {"model_dir", "overwrite"}

# What the features of a network without training depend on; the rest only trains it.
_OF_THE_START = (
    "labels", "image_channels", "image_size", "central_crop", "whole_image", "resnet_depth",
    "width_multiplier", "sk_ratio", "se_ratio", "stem", "batch_norm_decay", "checkpoint", "ema",
    "stem_adapt",
    "eval_split", "eval_steps", "eval_crops", "knn_neighbors", "linear_probe", "seed",
)  # fmt: skip


@dataclass(frozen=True)
class PlannedRun:
    """One run of a sweep.

    Attributes:
        name: Of its folder.
        row: The flags that are its own.
        arguments: Of `simclr-run`, but for images and folder.
        config: What they come to.
        untrained: Whether it is a floor: a network that is not trained.
    """

    name: str
    row: GridRow
    arguments: tuple[str, ...]
    config: RunConfig
    untrained: bool = False

    def key(self) -> dict[str, Any]:
        """The settings that make the run what it is."""
        values = self.config.values()
        if self.untrained:
            return {name: values[name] for name in _OF_THE_START}
        return {name: value for name, value in values.items() if name not in _FREE}

    def setting(self) -> GridRow:
        """Its own flags but for the seed: runs that differ only in it repeat one setting."""
        return {name: value for name, value in self.row.items() if name != "seed"}


def plan_runs(
    rows: Sequence[GridRow], arguments: Sequence[tuple[str, ...]], configs: Sequence[RunConfig]
) -> tuple[PlannedRun, ...]:
    """The runs of some rows.

    Args:
        rows: The flags that are each run's own.
        arguments: All arguments of each.
        configs: What they come to.

    Raises:
        UserError: Two rows come to the same settings, or to none that a sweep can compare.
    """
    runs = tuple(
        PlannedRun(*parts) for parts in zip(run_names(rows), rows, arguments, configs, strict=True)
    )
    seen: dict[str, str] = {}
    for run in runs:
        mode = run.config.train.train_mode
        if mode != "pretrain":
            raise UserError(
                "a sweep compares runs of pretraining", setting="train_mode", value=mode
            )
        key = json.dumps(run.key())
        if key in seen:
            raise UserError(f"{run.name} and {seen[key]} are the same run; leave one of them out")
        seen[key] = run.name
    return runs


def floors(runs: Sequence[PlannedRun]) -> tuple[PlannedRun, ...]:
    """The runs that others are compared with: each network with its starting weights.

    The weights are fresh, or those of `--checkpoint`. In `UNTRAINED_STEPS` steps, on the views of
    the first run with this network, only BatchNorm's statistics move; without these steps features
    would be normalised by 0 and 1 instead of the images' statistics.

    Args:
        runs: The runs that train.

    Returns:
        One run for each network and seed.
    """
    untouched = {
        **{s.name: s.default for s in RunConfig.settings() if s.topic == "method"},
        "method": MethodSettings.method,
        "learning_rate": 0.0,
        "weight_decay": 0.0,
        "train_steps": UNTRAINED_STEPS,
        "checkpoint_steps": UNTRAINED_STEPS,
        "validate_every": 0,
        "early_stopping_patience": 0,
        "health_watch": False,
    }
    found: dict[str, PlannedRun] = {}
    for run in runs:
        config = RunConfig.from_values({**run.config.values(), **untouched})
        row = {name: value for name, value in run.row.items() if name in _OF_THE_START}
        floor = PlannedRun("", row, arguments_of(config), config, untrained=True)
        found.setdefault(json.dumps(floor.key()), floor)
    names = run_names([floor.row for floor in found.values()]) if len(found) > 1 else [""]
    return tuple(
        replace(floor, name=f"{UNTRAINED},{name}" if name else UNTRAINED)
        for floor, name in zip(found.values(), names, strict=True)
    )


def arguments_of(config: RunConfig) -> tuple[str, ...]:
    """The arguments that come to these settings."""
    values = config.values()
    changed = {s.name: values[s.name] for s in RunConfig.settings() if values[s.name] != s.default}
    return tuple(f"--{name}={value}" for name, value in changed.items())


def keep_plan(
    runs: Sequence[PlannedRun], manifest: Manifest, output: Path
) -> tuple[PlannedRun, ...]:
    """Writes down what a sweep is to do, or finds that its folder holds a part of it.

    Args:
        runs: The runs, floors among them.
        manifest: The images with their splits.
        output: The sweep's folder.

    Returns:
        The runs; those that the folder knows have the names and arguments they were begun with.

    Raises:
        UserError: The folder holds another sweep, or something else; nothing has been written then.
    """
    file = output / PLAN
    if file.is_file():
        runs = _joined(runs, read_object(file)["runs"], output)
        if Manifest.load(output / MANIFEST).sha256() != manifest.sha256():
            raise UserError(
                "was begun with other images or another split; restore them, "
                "or give another folder",
                setting="output",
                value=output,
            )
    elif output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UserError("holds something else; give a new folder", setting="output", value=output)
    if len({run.name for run in runs}) < len(runs):
        raise UserError(
            "new runs would be called as old ones; give another", setting="output", value=output
        )
    output.mkdir(parents=True, exist_ok=True)
    if not (output / MANIFEST).is_file():
        manifest.save(output / MANIFEST)
    facts = [
        {"name": run.name, "flags": run.row, "untrained": run.untrained,
         "arguments": list(run.arguments), "settings": run.key()}
        for run in runs
    ]  # fmt: skip
    write_text(file, json.dumps({"runs": facts}, indent=2) + "\n")
    return tuple(runs)


def _joined(
    runs: Sequence[PlannedRun], stored: list[dict[str, Any]], output: Path
) -> tuple[PlannedRun, ...]:
    """The runs, known ones under the names that they have."""
    # Settings that a later version has brought had their defaults before.
    defaults = {s.name: s.default for s in RunConfig.settings()}
    keys = [json.dumps(run.key(), sort_keys=True) for run in runs]
    names = {run.untrained: run.key().keys() for run in runs}
    known = {}
    for facts in stored:
        settings, wanted = facts["settings"], names.get(facts["untrained"], ())
        settings = {name: settings.get(name, defaults[name]) for name in wanted}
        known[json.dumps(settings, sort_keys=True)] = facts
    missing = [facts["name"] for key, facts in known.items() if key not in keys]
    if missing:
        raise UserError(
            f"holds a sweep of other runs ({missing[0]} is not among these, or "
            "has other settings now); rows may be added, not changed or left out: give another "
            "folder",
            setting="output",
            value=output,
        )
    return tuple(
        replace(run, name=known[key]["name"], arguments=tuple(known[key]["arguments"]))
        if key in known
        else run
        for run, key in zip(runs, keys, strict=True)
    )
