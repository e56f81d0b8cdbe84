"""Settings of runs begun by former versions, which go on with the behaviour they began with."""

import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from data_prep.errors import UserError
from data_prep.settings import Config
from data_prep.storage import read_object

log = logging.getLogger(__name__)

C = TypeVar("C", bound=Config)

CONFIG_FILE = "config.json"
FLAT_FILE = "flags.json"

# What version 0.1 did before there were settings for it.
_MISSING: dict[str, Any] = {"head_start": "random", "feature_scaling": False, "floors": False}

# Defaults of version 0.1 that are others now.
_CHANGED: dict[str, Any] = {
    "warmup_epochs": 0.0,
    "train_batch_size": 64,
    "train_epochs": 25,
    "learning_rate": 0.001,
    "min_crop_area": 0.08,
    "min_crop_aspect": 0.75,
}

# Settings whose value here means "as suits the images": a run that goes on keeps what was chosen.
_OPEN: dict[str, Any] = {"train_batch_size": 0, "train_epochs": 0, "warmup_epochs": -1.0,
                         "learning_rate": 0.0}  # fmt: skip


def with_former_settings(values: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Stored settings; those that their version did not have get the value that it worked by.

    Args:
        values: Flat name-value pairs of a `config.json`.
        known: Names of all settings of the command.
    """
    return {n: v for n, v in _MISSING.items() if n in known and n not in values} | dict(values)


def published(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a published work: what they leave open is as it was in version 0.1."""
    return {**_CHANGED, "head_start": "random", **values}


def of_the_run(config: C, *folders: Path) -> C:
    """Takes what was left open from the run that goes on in a folder.

    Settings at their default take the value that the run began with, where it was begun by a
    version with another default, or where the default is to choose what suits the images.

    Args:
        config: As asked for.
        folders: Where the run may lie; the first that holds one counts.
    """
    values = config.values()
    stored = next((found for folder in folders if (found := _stored(folder))), None)
    if stored is None or values["overwrite"]:
        return config
    defaults = type(config)().values()
    former = "head_start" not in stored
    stored = with_former_settings(stored, values)
    names = set(_OPEN) | (set(_CHANGED) | set(_MISSING) if former else set())
    taken = {
        name: stored[name]
        for name in sorted(names & set(values) & set(stored))
        if values[name] == defaults[name] != stored[name]
    }
    if former and taken:
        said = ", ".join(f"--{name}={value}" for name, value in taken.items())
        log.info("going on as the run was begun, by a version with other defaults: %s", said)
    return type(config).from_values({**values, **taken})


def _stored(folder: Path) -> dict[str, Any] | None:
    """The settings of the run in a folder, of the second copy if the first is damaged; or None.

    Errors in them are reported where the settings are finally read.
    """
    with suppress(OSError, UserError, AttributeError):
        return _flat(read_object(folder / CONFIG_FILE))
    with suppress(OSError, UserError):
        return read_object(folder / FLAT_FILE)
    return None


def _flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {name: value for section in sections.values() for name, value in section.items()}
