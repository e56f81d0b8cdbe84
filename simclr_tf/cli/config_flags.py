"""Flags derived from the declared settings, and back: the one place where both are known."""

from collections.abc import Mapping
from typing import Any, TypeVar

from absl import flags

from data_prep.cli.app import topic
from simclr_tf.config.run_config import RunConfig
from simclr_tf.config.settings import Config

C = TypeVar("C", bound=Config)


def define(
    flag_values: flags.FlagValues,
    defaults: Mapping[str, Any] | None = None,
    config_type: type[Config] = RunConfig,
) -> None:
    """Defines one flag for every declared setting, under its topic.

    Args:
        flag_values: Where to define them.
        defaults: Defaults of a command that differ from those of the settings.
        config_type: The configuration whose settings become flags.
    """
    for s in config_type.settings():
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
    """The configuration of a run that the parsed flags describe; see `read_as`."""
    return read_as(RunConfig, flag_values)


def read_as(
    config_type: type[C], flag_values: flags.FlagValues, preset: Mapping[str, Any] | None = None
) -> C:
    """The configuration that the parsed flags describe.

    Args:
        config_type: Class of the configuration.
        flag_values: The parsed flags.
        preset: Values of settings that were not given.

    Raises:
        UserError: A value outside its limits, or settings that do not fit together.
    """
    values = {s.name: flag_values[s.name].value for s in config_type.settings()}
    stated = given(flag_values, config_type)
    values |= {name: value for name, value in (preset or {}).items() if name not in stated}
    return config_type.from_values(values)


def given(flag_values: flags.FlagValues, config_type: type[Config] = RunConfig) -> set[str]:
    """Names of the settings that the command line or a flag file gave."""
    names = (s.name for s in config_type.settings())
    return {name for name in names if not flag_values[name].using_default_value}
