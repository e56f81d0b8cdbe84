"""Merging classes: several labels become one."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.names import clean_name


def parse_merges(texts: Sequence[str]) -> dict[str, list[str]]:
    """Reads texts such as `disturbance:crack,brecciated`: new class -> those that go into it.

    Raises:
        UserError: A text does not say that.
    """
    merges: dict[str, list[str]] = {}
    for text in texts:
        name, _, members = text.partition(":")
        old = [clean_name(member) for member in members.split(",") if clean_name(member)]
        if not clean_name(name) or not old:
            raise UserError(f"--merge={text}: must be NEW:CLASS,CLASS,...")
        merges.setdefault(clean_name(name), []).extend(old)
    return merges


def merge_classes(manifest: Manifest, merges: Mapping[str, Sequence[str]]) -> Manifest:
    """Gives classes a common name; all others keep theirs.

    Args:
        manifest: The images.
        merges: New class -> the classes that go into it (one only to rename it).

    Returns:
        The manifest with the new labels, in the same order.

    Raises:
        UserError: A class that there is not, one that goes into two, or a new name that another
            class has.
    """
    new_name: dict[str, str] = {}
    for new, members in merges.items():
        for old in members:
            if old not in manifest.class_names:
                near = difflib.get_close_matches(old, manifest.class_names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                known = ", ".join(manifest.class_names) or "none"
                raise UserError(f"--merge: no class {old!r} (the classes: {known}){hint}")
            if new_name.setdefault(old, new) != new:
                raise UserError(f"--merge: class {old!r} goes into {new_name[old]!r} and {new!r}")
    for new in merges:
        if new in manifest.class_names and new not in new_name:
            raise UserError(
                f"--merge: there is a class {new!r} already; list it among those that go into it,"
                " or choose another name"
            )
    return manifest.subset(
        replace(record, label=new_name.get(record.label, record.label))
        for record in manifest.records
    )
