"""Numbers, durations and near names in words."""

from collections.abc import Iterable
from difflib import get_close_matches


def counted(number: int, what: str) -> str:
    """A number and what is counted: `1 image`, `2 images`, `2 classes`.

    Args:
        number: How many.
        what: In the singular; an `s` makes the plural, after an `s` an `es`.
    """
    plural = what + ("es" if what.endswith("s") else "s")
    return f"{number} {what if number == 1 else plural}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown name: `; did you mean batch?`; empty if none is near."""
    near = get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def capitalized(text: str) -> str:
    """The text with its first letter in upper case, all others as they are."""
    return f"{text[:1].upper()}{text[1:]}"


def sentence(text: str) -> str:
    """A remark as a sentence of a page: capitalized, with a full stop if it ends without a mark."""
    text = capitalized(text)
    return text if text.endswith((".", "!", "?")) else f"{text}."


def format_seconds(seconds: float) -> str:
    """A duration for people: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
