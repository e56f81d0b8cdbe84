"""Ways to damage a file: bits, bytes, numbers, pieces, and the fields of text headers."""

import re
from collections.abc import Callable
from typing import NamedTuple

from hypothesis import strategies as st

_NUMBERS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63]


class Damage(NamedTuple):
    """One damage.

    Attributes:
        kind: A name of `_KINDS`.
        where: Share of the file before the place, 0 to 1.
        number: What the kind makes of it.
        piece: Bytes to put in.
    """

    kind: str
    where: float
    number: int
    piece: bytes


def damages() -> st.SearchStrategy[list[Damage]]:
    """One to four damages of a file."""
    one = st.builds(
        Damage,
        st.sampled_from(sorted(_KINDS)),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 2**32),
        st.binary(min_size=1, max_size=12),
    )
    return st.lists(one, min_size=1, max_size=4)


def damaged(content: bytes, harm: list[Damage]) -> bytes:
    """The file with its damages; two thirds of them lie near the beginning, where headers are."""
    for damage in harm:
        if content:
            near = damage.where**4 if damage.number % 3 else damage.where
            content = _KINDS[damage.kind](content, int(near * len(content)), damage)
    return content


def _put(content: bytes, place: int, piece: bytes) -> bytes:
    return content[:place] + piece + content[place + len(piece) :]


def _flip(content: bytes, place: int, damage: Damage) -> bytes:
    return _put(content, place, bytes([content[place] ^ 1 << damage.number % 8]))


def _number(content: bytes, place: int, damage: Damage) -> bytes:
    width = (1, 2, 4, 8)[damage.number % 4]
    value = _NUMBERS[damage.number // 4 % len(_NUMBERS)] % 2 ** (8 * width)
    return _put(content, place, value.to_bytes(width, "big" if damage.where > 0.5 else "little"))


def _repeat(content: bytes, place: int, damage: Damage) -> bytes:
    return content[:place] + content[place : place + damage.number % 256] * 3 + content[place:]


def _swap(content: bytes, place: int, damage: Damage) -> bytes:
    other = damage.number % len(content)
    return _put(content, place, content[other : other + 16])


def _text(content: bytes, place: int, damage: Damage) -> bytes:
    """Another number in a header that is text; it takes the blanks before it, if it is longer."""
    numbers = list(re.finditer(rb" *-?\d+", content))
    if not numbers:
        return content
    match = numbers[int(damage.where * len(numbers))]
    sign = -1 if damage.number % 5 == 0 else 1
    new = str(sign * _NUMBERS[damage.number % len(_NUMBERS)]).encode().rjust(len(match.group()))
    return content[: match.start()] + new + content[match.end() :]


_KINDS: dict[str, Callable[[bytes, int, Damage], bytes]] = {
    "flip": _flip,
    "put": lambda content, place, damage: _put(content, place, damage.piece),
    "byte": lambda content, place, damage: _put(content, place, damage.piece[:1]),
    "number": _number,
    "cut": lambda content, place, damage: content[:place],
    "insert": lambda content, place, damage: content[:place] + damage.piece + content[place:],
    "delete": lambda content, place, damage: (
        content[:place] + content[place + damage.number % 64 :]
    ),
    "repeat": _repeat,
    "swap": _swap,
    "text": _text,
}
