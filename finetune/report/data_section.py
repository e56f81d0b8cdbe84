"""What was trained on what: images per class and split, and whether splits share anything."""

from collections import Counter
from collections.abc import Sequence

from data_prep.manifest.leaks import LeakCheck
from data_prep.manifest.manifest import Manifest
from data_prep.page import Section, Table
from finetune.report.files import StoredResults

_LEAK_WORDS = {
    "picture": "the same picture (file, array and page)",
    "file content": "files with equal bytes (SHA-256)",
    "image content": "files with equal bytes, pages and tiles with equal values (SHA-256)",
    "group": "the same group",
    "target": "the same target",
}


def data_section(
    stored: StoredResults,
    manifest: Manifest | None,
    leaks: Sequence[LeakCheck],
    model: tuple[str, ...],
) -> Section:
    """The section.

    Args:
        stored: Results, whose splits stand in where no manifest is known.
        manifest: All images of the run; None = not known.
        leaks: From `check_leaks`.
        model: Paragraphs on what was trained.
    """
    counts = _counts(stored, manifest)
    text = model
    if manifest is None:
        text = (*text, "No manifest was given: leaks between splits could not be looked for.")
    tables = [_count_table(counts, stored.results.class_names)]
    if leaks:
        tables.append(_leak_table(leaks))
    return Section("Data", text=text, tables=tuple(tables))


def _counts(stored: StoredResults, manifest: Manifest | None) -> dict[str, Counter[str]]:
    """Split -> class ("" = no label) -> images."""
    if manifest:
        own: dict[str, Counter[str]] = {split: Counter() for split in manifest.splits}
        for record in manifest.records:
            own.setdefault(record.split or "no split", Counter())[record.label] += 1
        return own
    names = (*stored.results.class_names, "")  # label -1 is the last one
    return {
        split: Counter(names[label] for label in scored.labels)
        for split, scored in stored.splits.items()
    }


def _count_table(counts: dict[str, Counter[str]], class_names: Sequence[str]) -> Table:
    everything = sum(counts.values(), Counter())
    others = sorted(set(everything).difference(class_names, {""}))
    rows = [
        (name, *(str(own[name]) for own in counts.values()), str(everything[name]))
        for name in (*class_names, *others)
    ]
    if everything[""]:
        unlabelled = (str(own[""]) for own in counts.values())
        rows.append(("no label", *unlabelled, str(everything[""])))
    totals = (str(own.total()) for own in counts.values())
    rows.append(("all", *totals, str(everything.total())))
    return Table(
        ("class", *counts, "all"), tuple(rows), "Images by class and split", (len(rows) - 1,)
    )


def _leak_table(leaks: Sequence[LeakCheck]) -> Table:
    rows = tuple(
        (
            _LEAK_WORDS[leak.what],
            str(leak.checked) if leak.checked else "none known",
            (f"{leak.shared}: {leak.example}" if leak.shared else "none") if leak.checked else "–",
        )
        for leak in leaks
    )
    return Table(
        ("looked for in two splits", "compared", "found"),
        rows,
        "Leaks between splits",
        tuple(i for i, leak in enumerate(leaks) if leak.shared),
        "Nearly identical images and neighbouring fields of view are not found this way: name their"
        " groups in the manifest.",
    )
