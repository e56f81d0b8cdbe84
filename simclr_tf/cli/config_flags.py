"""Flags derived from the declared settings, and back: the one place where both are known."""

from collections.abc import Mapping
from typing import Any

from absl import flags

from data_prep.cli.app import topic
from simclr_tf.config import RunConfig, all_settings


def define(flag_values: flags.FlagValues, defaults: Mapping[str, Any] | None = None) -> None:
    """Defines one flag for every declared setting, under its topic.

    Args:
        flag_values: Where to define them.
        defaults: Defaults of a command that differ from those of the settings.
    """
    for s in all_settings():
        default = (defaults or {}).get(s.name, s.default)
        with topic(flag_values, s.title):
            _define_one(s.name, s.kind, s.choices, default, s.help, flag_values)


def _define_one(
    name: str,
    kind: type,
    choices: tuple[str, ...],
    default: Any,
    help_text: str,
    flag_values: flags.FlagValues,
) -> None:
    own: dict[str, Any] = {"flag_values": flag_values}
    if choices:
        flags.DEFINE_enum(name, default, list(choices), help_text, case_sensitive=False, **own)
    elif kind is bool:
        flags.DEFINE_bool(name, default, help_text, **own)
    elif kind is int:
        flags.DEFINE_integer(name, default, help_text, **own)
    elif kind is float:
        flags.DEFINE_float(name, default, help_text, **own)
    else:
        flags.DEFINE_string(name, default, help_text, **own)


def read(flag_values: flags.FlagValues) -> RunConfig:
    """The configuration that the parsed flags describe.

    Raises:
        UserError: A value outside its limits, or settings that do not fit together.
    """
    return RunConfig.from_values({s.name: flag_values[s.name].value for s in all_settings()})


def given(flag_values: flags.FlagValues) -> set[str]:
    """Names of the settings that the command line or a flag file gave."""
    return {s.name for s in all_settings() if not flag_values[s.name].using_default_value}
