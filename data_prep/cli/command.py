"""Commands made of declared settings: their flags, and the configuration that given flags make."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from absl import flags

from data_prep.cli.app import parse, run_app, set_default_text, topic
from data_prep.errors import UserError
from data_prep.settings import IS_MISSING, Config, Presets, Setting, preset_values, read_toml

log = logging.getLogger("data_prep.command")

C = TypeVar("C", bound=Config)
CONFIG = "config"


@dataclass(frozen=True)
class Command(Generic[C]):
    """A command whose flags are the settings of a configuration.

    Attributes:
        name: The command's name in messages.
        description: For the head of `--help`.
        config_type: Class of its configuration.
        run: Called with the configuration and the names of the settings that were given (a
            preset's values count as given); returns the exit code, `None` for 0. With `forwards`,
            the arguments after `--` are its third argument.
        defaults: Defaults that differ from those of the settings.
        chosen: Settings whose value, if it is not given, the command itself chooses.
        presets: Values that the flag `--preset` stands for, where they are not given.
        preset_help: Meaning of that flag, if it is no setting of the configuration.
        basics: The settings that `--help` shows; empty = all, as `--helpfull` does.
        positional: Settings whose values may be given without their names, in this order.
        forwards: True if what follows two dashes is for another command.
    """

    name: str
    description: str
    config_type: type[C]
    run: Callable[..., int | None]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    chosen: tuple[str, ...] = ()
    presets: Presets = field(default_factory=dict)
    preset_help: str = ""
    basics: tuple[str, ...] = ()
    positional: tuple[str, ...] = ()
    forwards: bool = False

    def define(self, flag_values: flags.FlagValues) -> None:
        """Defines the flags."""
        if self.preset_help:
            with topic(flag_values, "Preset"):
                flags.DEFINE_enum(
                    "preset", None, sorted(self.presets), self.preset_help, flag_values=flag_values
                )
        define(flag_values, self.config_type, self.defaults)
        for name in self.chosen:
            set_default_text(flag_values[name], "suits images and machine")
        with topic(flag_values, "Preset" if self.preset_help else "Settings from a file"):
            flags.DEFINE_string(
                CONFIG,
                None,
                "TOML file of settings, such as the settings.toml of a run; flags that are given "
                "win.",
                flag_values=flag_values,
            )
        for s in self.config_type.settings():
            if s.required:
                _require(s, flag_values)

    def read(self, flag_values: flags.FlagValues) -> tuple[C, frozenset[str]]:
        """The configuration that parsed flags describe, and the names of what was given.

        Raises:
            UserError: A value outside its limits, or settings that do not fit together.
        """
        file = flag_values[CONFIG].value
        stored = read_toml(file) if file else {}
        if self.presets and flag_values.preset:
            stored["preset"] = flag_values.preset
        others = self.with_preset(stored)
        stated = given(flag_values, self.config_type)
        return read(flag_values, self.config_type, others), stated | set(others)

    def with_preset(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values by the settings' own names, and below them those of the preset that they name.

        Args:
            values: Value by either name of a setting, and the name of a preset as `preset`.

        Raises:
            UserError: There is no such preset.
        """
        named = self.config_type.by_own_names(values)
        named = {**preset_values(str(named.get("preset", "")), self.presets), **named}
        if self.preset_help:  # the preset is no setting itself
            named.pop("preset", None)
        return named

    def parsed(self, arguments: Sequence[str]) -> tuple[C, frozenset[str]]:
        """The configuration that a command line describes, and the names of what was given.

        Args:
            arguments: What follows the command's name.

        Raises:
            UserError: An unknown flag or a value that cannot be used.
        """
        flag_values = flags.FlagValues()
        flag_values.set_gnu_getopt(True)
        self.define(flag_values)
        parse(flag_values, arguments, self.name, self.positional)
        return self.read(flag_values)

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Parses arguments and runs the command.

        Args:
            argv: What follows the command's name; `sys.argv[1:]` if None.

        Returns:
            The exit code, see `run_app`.
        """
        arguments = list(sys.argv[1:] if argv is None else argv)
        rest: tuple[list[str], ...] = ()
        if self.forwards:
            at = arguments.index("--") if "--" in arguments else len(arguments)
            arguments, rest = arguments[:at], (arguments[at + 1 :],)

        def run(flag_values: flags.FlagValues) -> int | None:
            config, given = self.read(flag_values)
            for sentence in config.without_effect(given):
                log.warning("%s", sentence)
            return self.run(config, given, *rest)

        return run_app(
            run,
            self.define,
            arguments,
            name=self.name,
            description=self.description,
            basics=self.basics,
            positional=self.positional,
        )


def define(
    flag_values: flags.FlagValues,
    config_type: type[Config],
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Defines one flag for every declared setting, under its topic.

    Args:
        flag_values: Where to define them.
        config_type: The configuration whose settings become flags.
        defaults: Defaults of a command that differ from those of the settings.
    """
    for s in config_type.settings():
        with topic(flag_values, s.title):
            _define_one(s, (defaults or {}).get(s.name, s.default), flag_values)
            if s.also:
                other = replace(s, name=s.also, required=False, help=f"Another name of --{s.name}.")
                _define_one(other, None, flag_values)


def _define_one(s: Setting, default: Any, flag_values: flags.FlagValues) -> None:
    own: dict[str, Any] = {"flag_values": flag_values}
    if s.required:
        default = None
    if s.choices:
        flags.DEFINE_enum(s.name, default, list(s.choices), s.help, case_sensitive=False, **own)
    elif s.kind is bool:
        flags.DEFINE_bool(s.name, default, s.help, **own)
    elif s.kind is int:
        flags.DEFINE_integer(s.name, default, s.help, **own)
    elif s.kind is float:
        flags.DEFINE_float(s.name, default, s.help, **own)
    elif s.repeated:
        flags.DEFINE_multi_string(s.name, list(default), s.help, **own)
    elif s.kind is tuple:
        texts = None if default is None else [format(item, "") for item in default]
        flags.DEFINE_list(s.name, texts, s.help, **own)
    else:
        flags.DEFINE_string(s.name, default, s.help, **own)

    def checked(value: Any) -> bool:
        if value is not None and (problem := _problem(s, value)):
            raise flags.ValidationError(problem)
        return True

    flags.register_validator(s.name, checked, **own)


def _require(s: Setting, flag_values: flags.FlagValues) -> None:
    """Asks for a setting by either name, unless a file of settings may give it."""
    names = [s.name, *([s.also] if s.also else []), CONFIG]
    flags.register_multi_flags_validator(
        names,
        lambda values: any(values[name] is not None for name in names),
        f"--{s.name} {IS_MISSING}",
        flag_values=flag_values,
    )


def _problem(s: Setting, value: Any) -> str:
    try:
        return s.problem(_value(s, value))
    except ValueError:
        return (
            "give whole numbers, such as 5,20" if s.item is int else "give numbers, such as 0.1,1"
        )


def _value(s: Setting, value: Any) -> Any:
    """The value of a setting of what absl makes of its flag."""
    if s.kind is not tuple or value is None:
        return value
    return tuple(map(s.item, value)) if s.item in (int, float) else tuple(value)


def read(
    flag_values: flags.FlagValues, config_type: type[C], preset: Mapping[str, Any] | None = None
) -> C:
    """The configuration that the parsed flags describe.

    Args:
        flag_values: The parsed flags.
        config_type: Class of the configuration.
        preset: Values of settings that were not given.

    Raises:
        UserError: A value outside its limits, or settings that do not fit together.
    """
    values = {s.name: _given_value(s, flag_values) for s in config_type.settings()}
    values = {name: value for name, value in values.items() if value is not None}
    stated = given(flag_values, config_type)
    values |= {name: value for name, value in (preset or {}).items() if name not in stated}
    return config_type.from_values(values)


def _given_value(s: Setting, flag_values: flags.FlagValues) -> Any:
    """The value of a setting, by whichever of its names it is given."""
    flag = flag_values[s.name]
    other = flag_values[s.also].value if s.also else None
    if other is None:
        return _value(s, flag.value)
    if not flag.using_default_value and flag.value != other:
        raise UserError(
            f"--{s.also}={other} and --{s.name}={flag.value} are the same setting; give one of them"
        )
    return _value(s, other)


def given(flag_values: flags.FlagValues, config_type: type[Config]) -> frozenset[str]:
    """Names of the settings that the command line or a flag file gave."""
    return frozenset(
        s.name
        for s in config_type.settings()
        if not flag_values[s.name].using_default_value
        or (s.also and flag_values[s.also].value is not None)
    )
