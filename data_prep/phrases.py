"""Numbers and durations in words."""


def counted(number: int, what: str) -> str:
    """A number and what is counted: `1 image`, `2 images`, `2 classes`.

    Args:
        number: How many.
        what: In the singular; an `s` makes the plural, after an `s` an `es`.
    """
    plural = what + ("es" if what.endswith("s") else "s")
    return f"{number} {what if number == 1 else plural}"


def format_seconds(seconds: float) -> str:
    """A duration for people: `45 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
