"""A check as a page: findings, counts, and a contact sheet of every class."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep.check.check import CheckResult
from data_prep.check.findings import Finding
from data_prep.errors import UserError
from data_prep.manifest.identity import image_name
from data_prep.page import Page, Picture, Section, Table, write_page
from data_prep.phrases import counted
from data_prep.reading.thumbnails import blank, thumbnail

_THUMBNAIL = 144
_MANY_SIZES = 12
_MOST_SHEETS = 200
_WORDS = {"serious": "serious fault", "warning": "warning", "note": "note"}


def write_check(folder: Path, checked: CheckResult, what: str, thumbnails: int = 12) -> None:
    """Writes a check as `check.json`, for scripts, and `report.html`.

    Args:
        folder: Made if need be.
        checked: The set and what was found.
        what: Name of the set.
        thumbnails: See `check_page`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "check.json").write_text(checked.to_json(), encoding="utf-8")
    write_page(check_page(checked, f"Check of {what}", thumbnails), folder / "report.html")


def check_page(checked: CheckResult, title: str, thumbnails: int = 12) -> Page:
    """The page of a check.

    Args:
        checked: The set and what was found.
        title: Of the page.
        thumbnails: Pictures of each class on its contact sheet, evenly spread over its files.
    """
    findings = checked.findings
    numbers = {s: sum(f.severity == s for f in findings) for s in ("serious", "warning", "note")}
    said = ", ".join(counted(n, _WORDS[s]) for s, n in numbers.items() if n) or "nothing"
    counts = checked.counts()
    summary = (
        f"{counted(counts['images'], 'image')}, {counts['readable']} of them readable, "
        f"{counts['bytes'] / 1e6:.1f} MB. Found: {said}.",
    )
    sections = [_finding_section(findings), _count_section(checked)]
    sections += _contact_sheets(checked, thumbnails)
    pairs = _pair_section(checked)
    return Page(title, summary, (*sections, *pairs))


def _finding_section(findings: Sequence[Finding]) -> Section:
    if not findings:
        return Section("Findings", ("Nothing that would spoil numbers was found.",))
    rows = tuple(
        (f.severity, "\n".join((f"{f.title[:1].upper()}{f.title[1:]}. {f.text}", *f.examples[:4])))
        for f in findings
    )
    serious = tuple(i for i, f in enumerate(findings) if f.severity == "serious")
    return Section("Findings", tables=(Table(("severity", "finding"), rows,
                                             highlight=serious),))  # fmt: skip


def _count_section(checked: CheckResult) -> Section:
    counts = checked.counts()
    splits = sorted({split for row in counts["classes"].values() for split in row})
    by_class = tuple(
        (label, *(str(row.get(split, 0)) for split in splits), str(sum(row.values())))
        for label, row in sorted(counts["classes"].items())
    )
    tables = [Table(("class", *splits, "all"), by_class, "Images by class and split")]
    for name, what in (("formats", "format"), ("modes", "mode"), ("sizes", "size in pixels")):
        pairs = list(counts[name].items())
        rows = [(value, str(number)) for value, number in pairs[:_MANY_SIZES]]
        if len(pairs) > _MANY_SIZES:
            rows.append((f"{len(pairs) - _MANY_SIZES} others",
                         str(sum(n for _, n in pairs[_MANY_SIZES:]))))  # fmt: skip
        tables.append(Table((what, "images"), tuple(rows)))
    return Section("Counts", tables=tuple(tables))


def _contact_sheets(checked: CheckResult, thumbnails: int) -> list[Section]:
    sections = []
    records, facts = checked.examination.manifest.records, checked.examination.facts
    by_class: dict[str, list[int]] = defaultdict(list)
    for i, (record, fact) in enumerate(zip(records, facts, strict=True)):
        if thumbnails and not fact.problem:
            by_class[record.label].append(i)
    for label, own in sorted(by_class.items())[:_MOST_SHEETS]:
        chosen = np.unique(np.linspace(0, len(own) - 1, min(thumbnails, len(own))).astype(int))
        pictures = tuple(_picture(checked, own[k]) for k in chosen)
        title = f"Images of {label}" if label else "Images without a label"
        sections.append(Section(title, (f"{len(chosen)} of {len(own)}.",), gallery=pictures))
    if len(by_class) > _MOST_SHEETS:
        text = f"Images are shown of the first {_MOST_SHEETS} of {len(by_class)} classes."
        sections.append(Section("Other classes", (text,)))
    return sections


def _pair_section(checked: CheckResult, most: int = 12) -> list[Section]:
    """Near duplicates side by side, those of two splits or classes first."""
    records = checked.examination.manifest.records

    def rank(pair: Sequence[int]) -> tuple[bool, bool]:
        one, other = records[pair[0]], records[pair[1]]
        return one.split == other.split, one.label == other.label

    pairs = sorted(checked.near.tolist(), key=rank)[:most]
    if not pairs:
        return []
    pictures = tuple(tuple(_picture(checked, i, with_class=True) for i in pair) for pair in pairs)
    text = f"{len(pairs)} of {len(checked.near)} pairs, side by side."
    return [Section("Images that look alike", (text,), rows=pictures)]


def _picture(checked: CheckResult, index: int, *, with_class: bool = False) -> Picture:
    record = checked.examination.manifest.records[index]
    file = checked.files[index]
    name = image_name(os.path.basename(record.path), record.reading, record.tile)
    parts = [name, *([record.label] * with_class), *([record.split] if with_class else [])]
    caption = "\n".join(part for part in parts if part)
    try:
        data = thumbnail(file, record.tile, record.reading, side=_THUMBNAIL)
    except UserError:  # It was read before, so it has changed since.
        data = blank(_THUMBNAIL)
    return Picture(data, caption, record.name, kind="jpeg")
