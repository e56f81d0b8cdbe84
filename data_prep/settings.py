"""Declarations of settings, each with default, meaning and limits; configurations made of them.

A setting is declared once, as a field of a section, which is a frozen dataclass; a configuration is
a frozen dataclass of sections and holds all settings of a command. From the declaration come the
flag (`data_prep.cli.command`), the checks of a value, the key in `config.json` and the keyword in
Python.
"""

import dataclasses
import json
import math
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

from data_prep.errors import UserError
from data_prep.phrases import did_you_mean

IS_MISSING = "is missing: it must be given"


def setting(
    default: Any,
    help_text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    added: Sequence[str] = (),
    required: bool = False,
    repeated: bool = False,
    also: str = "",
    topic: str = "",
    only: str = "",
) -> Any:
    """A dataclass field that knows its meaning, its limits (both inclusive) and added choices.

    The field's type is `bool`, `int`, `float`, `str`, a `Literal` of texts, one of these or
    `None`, or a tuple of texts or numbers such as `tuple[float, ...]`.

    Args:
        default: Its value where none is given.
        help_text: Its meaning.
        low: The least value, of a tuple that of each number.
        high: The largest value.
        added: Choices beside those of its type, a `Literal`; read whenever they are asked for.
        required: It must be given, and not be empty.
        repeated: A tuple whose flag is given once for each item, not once with commas.
        also: Another name of its flag.
        topic: Heading below that of its section.
        only: What it takes effect with: `other=value,value`, the values of another setting, or
            `other`, which must be given a value.
    """
    metadata = {
        "help": help_text, "low": low, "high": high, "added": added,
        "required": required, "repeated": repeated, "also": also, "topic": topic, "only": only,
    }  # fmt: skip
    return field(default=default, metadata=metadata)


def same_setting(section: Any, name: str, help_text: str = "", *, default: Any = MISSING) -> Any:
    """A field like one of another section: default, meaning and limits are declared there.

    It serves sections that share some settings, each in an order of its own in `config.json`.
    Another name of the flag is not taken over.

    Args:
        section: The other section.
        name: Of the setting, and of the new field.
        help_text: Its meaning, if that is another here.
        default: Its default, if that is another here.
    """
    (there,) = [f for f in fields(section) if f.name == name]
    metadata = {**there.metadata, "help": help_text or there.metadata["help"], "also": ""}
    return field(default=there.default if default is MISSING else default, metadata=metadata)


@dataclass(frozen=True)
class Setting:
    """One declared setting: what a flag needs to know of it.

    Attributes:
        name: Of the setting and of its flag.
        topic: Field of the configuration that holds its section.
        title: Heading of the section.
        kind: `bool`, `int`, `float`, `str` or `tuple`.
        item: Kind of a tuple's items.
        optional: True if `None` is a value.
        choices: The values that there are; empty = any.
        default: Its value where none is given.
        help: Its meaning.
        low: The least value.
        high: The largest value.
        required: It must be given.
        repeated: Its flag is given once for each item.
        also: Another name of its flag.
        only: What it takes effect with, see `setting`; empty = always.
    """

    name: str
    topic: str
    title: str
    kind: type
    item: type
    optional: bool
    choices: tuple[str, ...]
    default: Any
    help: str
    low: float | None
    high: float | None
    required: bool
    repeated: bool
    also: str
    only: str

    def problem(self, value: Any) -> str:
        """Returns what is wrong with a value; empty for a value that can be used."""
        if value is None and self.optional:
            return ""
        if self.kind is tuple:
            items = value if isinstance(value, tuple) else (None,)
            return next(filter(None, (self._problem_of(item, self.item) for item in items)), "")
        return self._problem_of(value, self.kind)

    def _problem_of(self, value: Any, kind: type) -> str:
        wanted: Any = (int, float) if kind is float else kind
        if not isinstance(value, wanted) or (isinstance(value, bool) and kind is not bool):
            return f"give a value of kind {kind.__name__}"
        if self.choices and value not in self.choices:
            hint = did_you_mean(str(value), self.choices)
            return f"must be one of {', '.join(self.choices)}{hint}"
        number: Any = value
        if kind is float and not math.isfinite(number):
            return "must be a finite number"
        if self.low is not None and number < self.low:
            return f"must be at least {self.low:g}"
        if self.high is not None and number > self.high:
            return f"must be at most {self.high:g}"
        return ""

    def check(self, value: Any) -> None:
        """Checks a value's kind, choice and limits.

        Raises:
            UserError: With the setting, the value and what would be right.
        """
        if problem := self.problem(value):
            of_wrong_kind = isinstance(value, (str, bool)) and type(value) is not self.kind
            shown = repr(value) if of_wrong_kind else value
            raise UserError(problem, setting=self.name, value=shown)


class Config:
    """All settings of a command, by topic; the base of frozen dataclasses.

    Each field of the subclass is a topic: itself a frozen dataclass, whose fields are declared by
    `setting`. A setting's name is its flag, so names are unique over all topics. The first line of
    a section's docstring is its heading, unless the class has a `TITLE`.
    """

    @classmethod
    def settings(cls) -> tuple[Setting, ...]:
        """Every declared setting, in the order of declaration."""
        return tuple(_settings(cls))

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Self:
        """Builds the configuration from flat name-value pairs; absent names take their default.

        Either name of a setting will do.

        Raises:
            UserError: An unknown name, a value of the wrong kind or outside its limits.
        """
        known = {s.name for s in cls.settings()}
        values = cls.by_own_names(values)
        for name in values:
            if name not in known:
                hint = did_you_mean(name, known)
                raise UserError(f"unknown setting {name!r}{hint}")
        sections = {}
        own: Any = cls
        for topic, section in _sections(cls).items():
            given = {f.name: values[f.name] for f in fields(section) if f.name in values}
            sections[topic] = section(**{n: _tuple_if_list(value) for n, value in given.items()})
        config: Self = own(**sections)
        config.validate()
        return config

    @classmethod
    def by_own_names(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values by the settings' own names, of values by either name.

        Raises:
            UserError: Both names of a setting, with different values.
        """
        others = {s.also: s.name for s in cls.settings() if s.also}
        own = {name: value for name, value in values.items() if name not in others}
        for other, value in values.items():
            name = others.get(other)
            if name and own.setdefault(name, value) != value:
                raise UserError(
                    f"--{other}={value} and --{name}={own[name]} are the same setting; give one of"
                    " them"
                )
        return own

    def values(self) -> dict[str, Any]:
        """All settings as flat name-value pairs."""
        return {s.name: getattr(getattr(self, s.topic), s.name) for s in self.settings()}

    def without_effect(self, given: Collection[str]) -> list[str]:
        """Sentences on settings that were given another value than the default in vain."""
        values, found = self.values(), []
        for s in self.settings():
            other, _, wanted = s.only.partition("=")
            if s.name not in given or other not in values or values[s.name] == s.default:
                continue
            now, choices = self.deciding_value(other), wanted.split(",")
            if str(now) not in choices if wanted else not now:
                with_these = (
                    [f"--{other}={choice}" for choice in choices] if wanted else [f"--{other}"]
                )
                said = " ".join(_flags(s, values[s.name]))
                found.append(f"{said} has no effect: it is for {' or '.join(with_these)}")
        return found

    def deciding_value(self, name: str) -> Any:
        """The value of a setting that others depend on; subclasses resolve an `auto`."""
        return self.values()[name]

    def completed(self, values: Mapping[str, Any], given: Collection[str]) -> Self:
        """The configuration with other values for the settings that were not given."""
        others = {name: value for name, value in values.items() if name not in given}
        return self.from_values({**self.values(), **others})

    def flags(self, names: Collection[str]) -> list[str]:
        """The flags that give some of the settings their values, in the order of declaration."""
        values = self.values()
        return [
            flag for s in self.settings() if s.name in names for flag in _flags(s, values[s.name])
        ]

    def validate(self) -> None:
        """Checks kinds, choices and limits of every setting.

        Raises:
            UserError: With the setting, its value and what would be right.
        """
        for s in self.settings():
            value = getattr(getattr(self, s.topic), s.name)
            if s.required and value in ("", None, ()):
                raise UserError(IS_MISSING, setting=s.name)
            s.check(value)

    def to_json(self) -> str:
        """The configuration as JSON, by topic."""
        own: Any = self
        return json.dumps(dataclasses.asdict(own), indent=2) + "\n"

    def to_toml(self, names: Collection[str]) -> str:
        """Some of the settings as TOML, a table for each section; see `read_toml`."""
        lines: list[str] = []
        for topic, section in _sections(type(self)).items():
            own = getattr(self, topic)
            chosen = [f.name for f in fields(section) if f.name in names]
            rows = [(name, getattr(own, name)) for name in chosen]
            rows = [(name, value) for name, value in rows if value is not None]
            if rows:
                lines += ["", f"[{topic}]", *(f"{name} = {_toml(value)}" for name, value in rows)]
        return "\n".join(lines[1:]) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote.

        Raises:
            UserError: Unknown or wrong entries.
        """
        values: dict[str, Any] = {}
        for section in json.loads(text).values():
            values.update(section)
        return cls.from_values(values)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads a `config.json`."""
        return cls.from_json(Path(path).read_text())


_hints: Callable[[Any], dict[str, Any]] = cache(get_type_hints)


def _sections(config_type: Any) -> dict[str, Any]:
    """Section by topic."""
    hints = _hints(config_type)
    return {topic.name: hints[topic.name] for topic in fields(config_type)}


def _settings(config_type: type[Config]) -> Iterator[Setting]:
    for topic, section in _sections(config_type).items():
        yield from section_settings(topic, section)


def section_settings(topic: str, section: Any) -> Iterator[Setting]:
    """The settings of a section, in the order of declaration.

    Args:
        topic: Field of the configuration that holds it.
        section: The section's class.
    """
    hints = _hints(section)
    title = getattr(section, "TITLE", "")
    title = title or (section.__doc__ or topic).strip().splitlines()[0].rstrip(".")
    for f in fields(section):
        below = f.metadata.get("topic", "")
        yield _setting(topic, f"{title}: {below}" if below else title, f, hints[f.name])


def _setting(topic: str, title: str, f: "dataclasses.Field[Any]", hint: Any) -> Setting:
    # `Literal[...] | None` is a `Union`.
    optional = get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)
    if optional:
        hint = next(part for part in get_args(hint) if part is not NoneType)
    literal, many = get_origin(hint) is Literal, get_origin(hint) is tuple
    choices = (*get_args(hint), *f.metadata.get("added", ())) if literal else ()
    return Setting(
        name=f.name,
        topic=topic,
        title=title,
        kind=str if literal else tuple if many else hint,
        item=get_args(hint)[0] if many else NoneType,
        optional=optional,
        choices=choices,
        default=f.default,
        help=f.metadata["help"],
        low=f.metadata["low"],
        high=f.metadata["high"],
        required=f.metadata.get("required", False),
        repeated=f.metadata.get("repeated", False),
        also=f.metadata.get("also", ""),
        only=f.metadata.get("only", ""),
    )


def _flags(s: Setting, value: Any) -> list[str]:
    if value is None:
        return []
    if s.kind is bool:
        return [f"--{'' if value else 'no'}{s.name}"]
    if s.repeated:
        return [f"--{s.name}={item}" for item in value]
    if s.kind is tuple:
        value = ",".join(map(_text, value))
    return [f"--{s.name}={_text(value)}"]


def _text(value: Any) -> str:
    """A value as a flag gives it; numbers in their shortest form that is read back the same."""
    short = f"{value:g}" if isinstance(value, float) else ""
    return short if short and float(short) == value else str(value)


def _tuple_if_list(value: Any) -> Any:
    """A tuple of a list, as JSON and flags have them."""
    return tuple(value) if isinstance(value, list) else value


def _toml(value: Any) -> str:
    """A value as TOML writes it, whose texts and numbers are those of JSON."""
    if isinstance(value, float):
        return repr(value)
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def read_toml(path: str | Path) -> dict[str, Any]:
    """Settings from a TOML file, by name; the tables that they lie in do not count.

    Raises:
        UserError: The file cannot be read, is no TOML, or names a setting twice.
    """
    try:
        with open(path, "rb") as file:
            content = tomllib.load(file)
    except OSError as error:
        raise UserError(error.strerror or str(error), setting="config", value=path) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"is no TOML: {error}", setting="config", value=path) from None
    values: dict[str, Any] = {}
    for name, value in content.items():
        for key, item in (value if isinstance(value, dict) else {name: value}).items():
            if key in values:
                raise UserError(f"names {key} twice", setting="config", value=path)
            values[key] = _tuple_if_list(item)
    return values


Presets = Mapping[str, Mapping[str, Any]]
"""Values of settings by the name of a preset."""


def preset_values(name: str, presets: Presets, setting: str = "preset") -> dict[str, Any]:
    """The values of a preset; none for an empty name.

    Raises:
        UserError: There is no such preset.
    """
    if name and name not in presets:
        hint = did_you_mean(name, presets)
        raise UserError(f"there are {', '.join(presets)}{hint}", setting=setting, value=name)
    return dict(presets[name]) if name else {}
