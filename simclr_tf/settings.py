"""How a setting is declared: default, meaning and limits in one place."""

from dataclasses import dataclass, field
from typing import Any

from data_prep.errors import UserError


def setting(
    default: Any, help_text: str, *, low: float | None = None, high: float | None = None
) -> Any:
    """A dataclass field that knows its meaning and its limits (both inclusive)."""
    return field(default=default, metadata={"help": help_text, "low": low, "high": high})


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
