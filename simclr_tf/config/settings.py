"""Declarations of settings, each with default, meaning and limits; configurations made of them."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from data_prep.errors import UserError


def setting(
    default: Any,
    help_text: str,
    *,
    low: float | None = None,
    high: float | None = None,
    added: Sequence[str] = (),
) -> Any:
    """A dataclass field that knows its meaning, its limits (both inclusive) and added choices.

    Args:
        default: Its value where none is given.
        help_text: Its meaning.
        low: The least value.
        high: The largest value.
        added: Choices beside those of its type, a `Literal`; read whenever they are asked for.
    """
    metadata = {"help": help_text, "low": low, "high": high, "added": added}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Setting:
    """One declared setting: what a flag needs to know of it."""

    name: str
    topic: str
    title: str
    kind: type
    choices: tuple[str, ...]
    default: Any
    help: str
    low: float | None
    high: float | None

    def check(self, value: Any) -> None:
        """Checks a value's kind, choice and limits.

        Raises:
            UserError: With the flag, the value and what would be right.
        """
        wanted: Any = (int, float) if self.kind is float else self.kind
        if not isinstance(value, wanted) or (isinstance(value, bool) and self.kind is not bool):
            raise UserError(f"--{self.name}={value!r}: give a value of kind {self.kind.__name__}")
        if self.choices and value not in self.choices:
            raise UserError(f"--{self.name}={value}: choose one of {', '.join(self.choices)}")
        number: Any = value
        if self.low is not None and number < self.low:
            raise UserError(f"--{self.name}={value}: must be at least {self.low:g}")
        if self.high is not None and number > self.high:
            raise UserError(f"--{self.name}={value}: must be at most {self.high:g}")


class Config:
    """All settings of a command, by topic; the base of frozen dataclasses.

    Each field of the subclass is a topic: itself a frozen dataclass, whose fields are declared by
    `setting`. A setting's name is its flag, so names are unique over all topics.
    """

    @classmethod
    def settings(cls) -> Iterator[Setting]:
        """Every declared setting, in the order of declaration."""
        topics: Any = cls
        for topic in fields(topics):
            section = get_type_hints(cls)[topic.name]
            hints = get_type_hints(section)
            title = (section.__doc__ or topic.name).strip().rstrip(".")
            for f in fields(section):
                literal = get_origin(hints[f.name]) is Literal
                choices = (*get_args(hints[f.name]), *f.metadata.get("added", ()))
                yield Setting(
                    name=f.name,
                    topic=topic.name,
                    title=title,
                    kind=str if literal else hints[f.name],
                    choices=choices if literal else (),
                    default=f.default,
                    help=f.metadata["help"],
                    low=f.metadata["low"],
                    high=f.metadata["high"],
                )

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Self:
        """Builds the configuration from flat name-value pairs; absent names take their default.

        Raises:
            UserError: An unknown name, a value of the wrong kind or outside its limits.
        """
        known = {s.name for s in cls.settings()}
        for name in values:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise UserError(f"unknown setting {name!r}{hint}")
        sections, topics = {}, get_type_hints(cls)
        own: Any = cls
        for topic in fields(own):
            section = topics[topic.name]
            given = {f.name: values[f.name] for f in fields(section) if f.name in values}
            sections[topic.name] = section(**given)
        config: Self = own(**sections)
        config.validate()
        return config

    def values(self) -> dict[str, Any]:
        """All settings as flat name-value pairs."""
        return {s.name: getattr(getattr(self, s.topic), s.name) for s in self.settings()}

    def validate(self) -> None:
        """Checks kinds, choices and limits of every setting.

        Raises:
            UserError: With the flag, its value and what would be right.
        """
        for s in self.settings():
            s.check(getattr(getattr(self, s.topic), s.name))

    def to_json(self) -> str:
        """The configuration as JSON, by topic."""
        own: Any = self
        return json.dumps(dataclasses.asdict(own), indent=2) + "\n"

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
