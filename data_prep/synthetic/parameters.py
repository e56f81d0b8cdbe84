"""How the settings of a kind of image are declared: default, meaning, unit and limits in one place.

    @dataclass(frozen=True)
    class RingParameters(Parameters):
        radius: Annotated[Range, Meaning("Radius over the side.", most=1)] = (0.2, 0.4)
        colour: Annotated[str, Meaning("Colours.", choices=("grey", "rgb"))] = "grey"

`Parameters.validate` checks values against the limits; the command line makes a flag of every
setting.
"""

import math
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from data_prep.errors import UserError

Range = tuple[float, float]


@dataclass(frozen=True)
class Meaning:
    """What is known of one setting.

    Attributes:
        text: what it means, with its unit.
        topic: the heading that it belongs under.
        least: smallest value allowed.
        most: largest value allowed.
        choices: the words allowed, for a setting that is a word.
    """

    text: str
    topic: str = ""
    least: float = 0.0
    most: float = math.inf
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Parameters:
    """Base of the settings of a kind.

    A setting that is a `Range` is drawn uniformly for each image; one that is a number or a word
    holds for all of them.
    """

    @classmethod
    def meanings(cls) -> dict[str, tuple[Any, Meaning]]:
        """Every setting with its default and its meaning, in order."""
        hints = get_type_hints(cls, include_extras=True)
        return {one.name: (one.default, hints[one.name].__metadata__[0]) for one in fields(cls)}

    def validate(self) -> None:
        """Raises UserError if a value is outside its limits or a range is reversed."""
        for name, (default, meaning) in self.meanings().items():
            value = getattr(self, name)
            if meaning.choices:
                if value not in meaning.choices:
                    raise UserError(f"{name}={value}: must be one of {', '.join(meaning.choices)}")
            elif isinstance(default, tuple):
                low, high = value
                if not (meaning.least <= low <= high <= meaning.most and math.isfinite(high)):
                    raise UserError(
                        f"{name}={low:g},{high:g}: must be two numbers, the smaller first, "
                        f"{_limits(meaning)}"
                    )
            elif not (meaning.least <= value <= meaning.most and math.isfinite(value)):
                raise UserError(f"{name}={value:g}: must be a number {_limits(meaning)}")


def _limits(meaning: Meaning) -> str:
    upper = "upwards" if math.isinf(meaning.most) else f"to {meaning.most:g}"
    return f"from {meaning.least:g} {upper}"
