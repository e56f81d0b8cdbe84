"""Names of classes, splits, groups and files: their one form, their look-alikes, their files.

The same name can be written in several ways that look alike: a Mac decomposes accents and Korean
syllables (NFD), Windows and Linux compose them (NFC), spreadsheets leave blanks at the ends and
pages of the web zero-width characters. Such names are brought to one form (`clean_name`) wherever
names come in. Names that differ by the case of letters, by the spelling of a number or by letters
of another alphabet stay apart, for they may be meant so; `look_alikes` finds them.
"""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal

_ZERO_WIDTH = "\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2066\u2067\u2068\u2069\ufeff"
_BLANKS = "".join(character for character in map(chr, range(0x3001)) if character.isspace())
_AT_ENDS = _BLANKS + _ZERO_WIDTH
_NUMBER = re.compile(r"[+-]?\d+(?:[.,]\d*)?")

# Letters of other alphabets that look like Latin ones, after case folding; dashes and quotes.
_LOOK_LIKE = str.maketrans(
    "аеорсухіјѕһԁԛԝӏвкмнтαβεζηικνορτυχ–—‐‑−’‘‛´`“”",
    "aeopcyxijshdqwlbkmhtabezhiknoptux-----'''''\"\"",
)

MISSING = frozenset("nan na n/a #n/a #na <na> null none nil nat #null! #value! undefined".split())
"""Case-folded texts that programs write for a value that is missing."""


def clean_name(text: str) -> str:
    """A name in its one form: composed (NFC), without blanks and zero-width characters at the ends.

    Args:
        text: As it stands in a folder, a CSV or a flag.
    """
    if text.isascii():
        return text.strip()
    return unicodedata.normalize("NFC", text).strip(_AT_ENDS)


def composed(path: str) -> str:
    """A path in Unicode form NFC, as which paths are compared and sorted."""
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def look_alikes(names: Iterable[str]) -> list[tuple[str, ...]]:
    """Different names that people take for one: `Quartz` and `quartz`, `1` and `1.0`.

    Alike are names that differ only in the case of letters, in blanks, in zero-width characters, in
    the spelling of a number, in compatibility forms (full-width letters), in dashes and quotes, or
    in Greek and Cyrillic letters that look Latin.

    Args:
        names: In any form.

    Returns:
        The names that look alike, sorted; a name alone is not listed.
    """
    alike: dict[str, set[str]] = defaultdict(set)
    for name in names:
        alike[_appearance(name)].add(name)
    return sorted(tuple(sorted(group)) for group in alike.values() if len(group) > 1)


def missing_names(names: Iterable[str]) -> list[str]:
    """Names that programs write for a missing value, such as `nan`, sorted."""
    return sorted(name for name in set(names) if clean_name(name).casefold() in MISSING)


def name_problems(names: Iterable[str], what: str = "class") -> list[str]:
    """Returns the doubts about names that are kept apart, a sentence each.

    Args:
        names: Of the classes, or of something else.
        what: The word for what has these names.
    """
    known = tuple(names)
    found = [
        f"the {what} names {shown(group)} look alike but are different; rename them, or merge them"
        " with simclr-split --merge=NEW:OLD,OLD"
        for group in look_alikes(known)
    ]
    found += [
        f"the {what} name {name!r} stands for a missing value in many programs; leave the cell"
        " empty if nothing is known, or rename it"
        for name in missing_names(known)
    ]
    return found


def shown(names: Iterable[str]) -> str:
    """Names side by side, quoted, with invisible characters in them spelled out."""
    return " and ".join(ascii(n) if _hides(n) else repr(n) for n in names)


def match_name(name: str, known: Iterable[str]) -> str | None:
    """The known name that is the same text, or else the same in its one form; None if none is.

    Args:
        name: As the user wrote it.
        known: Names to choose from.
    """
    candidates = list(known)
    if name in candidates:
        return name
    wanted = clean_name(name)
    return next((other for other in candidates if clean_name(other) == wanted), None)


def _appearance(name: str) -> str:
    """A text that is the same for names that look alike."""
    text = unicodedata.normalize("NFKC", clean_name(name)).casefold()
    if not text.isascii():
        text = "".join(c for c in text if unicodedata.category(c) != "Cf").translate(_LOOK_LIKE)
    text = " ".join(text.split())
    if _NUMBER.fullmatch(text):
        number = Decimal(text.replace(",", ".")).normalize()
        return f"number {number + 0:f}"
    return text


def _hides(name: str) -> bool:
    """Returns True if a name holds characters that cannot be told by looking at it."""
    return any(
        not c.isascii() and (c in _AT_ENDS or c in _LOOK_CHARACTERS or unicodedata.combining(c))
        for c in name
    )


_LOOK_CHARACTERS = frozenset(map(chr, _LOOK_LIKE)) | frozenset(
    c.upper() for c in map(chr, _LOOK_LIKE)
)


class DiskNames:
    """Finds files whose names are written in another form than on the disk.

    Args:
        root: Folder to which relative paths belong.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._listings: dict[str, dict[str, list[str]]] = {}

    def find(self, path: str) -> str:
        """The path as it is on disk, or in its plainest form if there is no such file.

        A file of exactly this name wins; then one with forward slashes instead of backslashes, and
        one whose folders and name are the same but for Unicode form and blanks at the ends.

        Args:
            path: Absolute, or relative to the root.
        """
        if _is_plain(path) or os.path.lexists(os.path.join(self._root, path)):
            return path
        plainest = clean_name(path)
        if os.sep == "/" and "\\" in plainest:
            plainest = plainest.replace("\\", "/")
        if os.path.lexists(os.path.join(self._root, plainest)):
            return plainest
        for spelled in dict.fromkeys((path, path.replace("\\", "/") if os.sep == "/" else path)):
            found = self._walk(spelled)
            if found is not None:
                return found
        return plainest

    def _walk(self, path: str, done: str = "") -> str | None:
        """The path after `done`, part by part in any form; both forms of a folder may be there."""
        part, slash, rest = path.partition("/")
        for actual in self._spellings(done, part):
            so_far = done + actual
            if not slash:
                return so_far
            found = self._walk(rest, f"{so_far}/")
            if found is not None:
                return found
        return None

    def _spellings(self, folder: str, part: str) -> list[str]:
        """Entries of a folder that the part may mean, the exact one first."""
        if part in ("", ".", ".."):
            return [part]
        known = self._children(folder).get(clean_name(part), [])
        return sorted(known, key=lambda name: (name != part, name))

    def _children(self, folder: str) -> dict[str, list[str]]:
        """Entries of a folder by their one form."""
        place = os.path.join(self._root, folder) or "."
        if place not in self._listings:
            listing: dict[str, list[str]] = defaultdict(list)
            with suppress(OSError, ValueError):
                for name in os.listdir(place):
                    listing[clean_name(name)].append(name)
            self._listings[place] = listing
        return self._listings[place]


def _is_plain(path: str) -> bool:
    """Returns True if a path can be written in one form only."""
    return (
        path.isascii()
        and "\\" not in path
        and path == path.strip()
        and " /" not in path
        and "/ " not in path
    )
