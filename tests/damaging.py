"""Damage to files: what disks, copies and people do to them."""

from collections.abc import Callable
from pathlib import Path

Damage = Callable[[bytes], bytes | None]
"""What becomes of a file's content; None = the file is removed."""


def half(content: bytes) -> bytes:
    """Cut off in the middle."""
    return content[: len(content) // 2]


def zeroed(content: bytes) -> bytes:
    """As long as before, all zero."""
    return bytes(len(content))


def emptied(_content: bytes) -> bytes:
    """Without a byte."""
    return b""


def flipped(content: bytes) -> bytes:
    """A bit of a digit in the second half is another, so that text stays readable."""
    digits = [i for i in range(len(content) // 2, len(content)) if 48 <= content[i] <= 57]
    place = digits[len(digits) // 3] if digits else len(content) // 2
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def removed(_content: bytes) -> None:
    """Gone."""


CHANGES: tuple[Damage, ...] = (half, zeroed, emptied, flipped)
"""All that leave a file where it is."""


def do_damage(file: Path, damage: Damage) -> None:
    """Damages a file in its place."""
    before = file.read_bytes()
    content = damage(before)
    assert content != before
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
