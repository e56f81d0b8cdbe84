"""Numbers with what they count, in the singular or the plural."""


def counted(number: int, what: str) -> str:
    """A number and what is counted: `1 image`, `2 images`, `2 classes`.

    Args:
        number: How many.
        what: In the singular; an `s` makes the plural, after an `s` an `es`.
    """
    plural = what + ("es" if what.endswith("s") else "s")
    return f"{number} {what if number == 1 else plural}"
