"""Findings about labels: few or uneven classes, groups hidden in names, files that tell the class.

A set once had grey images in one class and colour images in two others: any network reaches a fine
accuracy there by telling the file format. What a file's header says must not say its label.

The accuracy of a cross-validated guess tells how much a feature gives away, but shuffling labels
against such guesses is no fair test: the folds share images, and unrelated features are called
related several times too often. Mutual information is a function of the table of feature against
class alone, so that shuffled labels give its distribution exactly.
"""

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.tree import DecisionTreeClassifier

from data_prep.check.files import Examination
from data_prep.check.findings import Finding, Severity
from data_prep.manifest.identity import shares_file
from data_prep.phrases import counted

_BINS = 8
_PERMUTATIONS = 2000
_AT_ONCE = 100


def independence_p_value(feature: np.ndarray, labels: np.ndarray, seed: int = 0) -> float:
    """Tests by shuffling labels if a feature is independent of the class.

    The p-value is the share of shuffled labels that have as much mutual information with the
    feature as the true ones.

    Args:
        feature: Of each image, float [n]; more than 8 different values are put into 8 bins of about
            as many images.
        labels: Classes, [n].
        seed: Of the 2,000 shuffles.

    Returns:
        The p-value, from 1/2001 to 1.
    """
    levels = _levels(feature)
    classes = np.unique(labels, return_inverse=True)[1]
    truth = _information(levels, classes[np.newaxis])[0]
    rng = np.random.default_rng([seed, 0x5BFF])
    reached = 0
    for _ in range(0, _PERMUTATIONS, _AT_ONCE):
        shuffled = rng.permuted(np.tile(classes, (_AT_ONCE, 1)), axis=1)
        # Equal tables may differ in the last bit of the sum.
        reached += int(np.sum(_information(levels, shuffled) >= truth - 1e-9))
    return (reached + 1) / (_PERMUTATIONS + 1)


def _levels(feature: np.ndarray) -> np.ndarray:
    values = np.unique(feature)
    if len(values) <= _BINS:
        return np.searchsorted(values, feature)
    edges = np.unique(np.quantile(feature, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return np.searchsorted(edges, feature, side="right")


def _information(levels: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Mutual information but for a constant, of each row of classes [k, n] with levels [n]: [k]."""
    rows, number = classes.shape
    shape = (rows, int(levels.max()) + 1, int(classes.max()) + 1)
    cells = np.arange(rows)[:, np.newaxis] * (shape[1] * shape[2]) + levels * shape[2] + classes
    table = np.bincount(cells.ravel(), minlength=int(np.prod(shape))).reshape(shape) / number
    return (table * np.log(np.where(table > 0, table, 1.0))).sum(axis=(1, 2))


_FEW = 10
_UNEVEN = 3.0
_FOLDS = 5
_CHANCE = 0.01  # that a set is suspected by chance, over all features
_MOST_IMAGES = 5000
# Of the way from chance to certainty.
_SUSPECT, _CERTAIN = 0.15, 0.5

HEADER = ("width", "height", "aspect", "channels", "bits", "format", "ending", "quality")
CONTENT = ("bytes per pixel",)


def label_findings(examination: Examination, seed: int = 0) -> Iterator[Finding]:
    """Yields the findings about labels, and about groups hidden in names.

    Args:
        examination: The set.
        seed: Of the permutations.
    """
    counts = Counter(r.label for r in examination.manifest.records if r.label)
    if len(counts) == 1:
        yield Finding("one_class", "warning", f"there is only one class, {next(iter(counts))!r}",
                      "Pretraining needs no labels; fine-tuning needs two classes or more.",
                      sum(counts.values()))  # fmt: skip
    if len(counts) >= 2:
        yield from _balance(counts)
        yield from giveaways(examination, seed)
    yield from _groups(examination)


def _balance(counts: Counter[str]) -> Iterator[Finding]:
    few = {label: n for label, n in counts.items() if n < _FEW}
    if few:
        yield Finding(
            "few", "warning", f"{counted(len(few), 'class')} of fewer than {_FEW} images",
            "No accuracy of such a class means much, and it may be missing from a split.",
            sum(few.values()), tuple(f"{label}: {n}" for label, n in sorted(few.items())),
        )  # fmt: skip
    most, least = max(counts.values()), min(counts.values())
    if most >= _UNEVEN * least:
        yield Finding(
            "uneven", "warning", f"the largest class has {most / least:.1f} times the smallest",
            f"Always answering the largest is right in {most / counts.total():.0%}: read the "
            "balanced accuracy, and weigh classes (simclr-stats lists the weights).",
            counts.total(), tuple(f"{label}: {n}" for label, n in counts.most_common()),
        )  # fmt: skip


def giveaways(examination: Examination, seed: int = 0) -> Iterator[Finding]:
    """Features of the files, not of the pictures, that tell the class.

    A shallow decision tree guesses the class from each feature; its cross-validated balanced
    accuracy says how much it tells, a permutation test whether that is more than chance.

    Args:
        examination: A set of two classes or more.
        seed: Of folds and shuffles.
    """
    rows = [i for i in examination.usable().tolist() if examination.manifest.records[i].label]
    rng = np.random.default_rng([seed, 0xC4EC])
    if len(rows) > _MOST_IMAGES:
        rows = sorted(rng.choice(rows, _MOST_IMAGES, replace=False).tolist())
    labels = np.array([examination.manifest.records[i].label for i in rows])
    names, number = np.unique(labels, return_counts=True)
    kept = np.isin(labels, names[number >= _FOLDS])
    labels, rows = labels[kept], [i for i, keep in zip(rows, kept, strict=True) if keep]
    classes = len(np.unique(labels))
    if classes < 2:
        return
    table = _features(examination, rows)
    told = {name: _told(column, labels, seed) for name, column in table.items()}
    for kind, features in (("header_tells", HEADER), ("size_tells", CONTENT)):
        best = max(features, key=lambda name: told[name][0])
        accuracy, p_value = told[best]
        above = (accuracy - 1 / classes) / (1 - 1 / classes)
        least = _CHANCE / len(features)
        if p_value < least and above >= _SUSPECT:
            also = [f"{n}: {told[n][0]:.2f}" for n in features if told[n][1] < least and n != best]
            yield Finding(
                kind, _severity(kind, above),
                f"the {best} of the file alone tells the class: balanced accuracy {accuracy:.2f}, "
                f"chance {1 / classes:.2f}",
                _ADVICE[kind], len(rows), tuple(_by_class(table[best], labels) + also),
            )  # fmt: skip


_ADVICE = {
    "header_tells": "A network can learn the file instead of the picture. Bring all classes to one "
    "format, size and depth before splitting, or find out where the classes come from.",
    "size_tells": "How well files compress depends on what they show, so this may be no fault; it "
    "is one if the classes were compressed differently.",
}


def _severity(kind: str, above: float) -> Severity:
    if kind == "size_tells":
        return "note"
    return "serious" if above >= _CERTAIN else "warning"


def _features(examination: Examination, rows: list[int]) -> dict[str, np.ndarray]:
    facts = [examination.facts[i] for i in rows]
    records = [examination.manifest.records[i] for i in rows]
    endings = [os.path.splitext(record.path)[1].lower() for record in records]
    parts = [shares_file(record.reading, record.tile) for record in records]
    columns = {
        "width": [f.width for f in facts],
        "height": [f.height for f in facts],
        "aspect": [f.width / f.height for f in facts],
        "channels": [f.channels for f in facts],
        "bits": [f.bits for f in facts],
        "format": np.unique([f.format for f in facts], return_inverse=True)[1],
        "ending": np.unique(endings, return_inverse=True)[1],
        "quality": [f.quality for f in facts],
        # A part of a file has no number of bytes of its own.
        "bytes per pixel": [
            0 if part else f.size / (f.width * f.height)
            for f, part in zip(facts, parts, strict=True)
        ],
    }
    return {name: np.asarray(column, np.float64) for name, column in columns.items()}


def _told(column: np.ndarray, labels: np.ndarray, seed: int) -> tuple[float, float]:
    """Balanced accuracy of guessing the class from a feature, and its p-value."""
    if len(np.unique(column)) == 1:
        return 0.0, 1.0
    classes = len(np.unique(labels))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    tree = DecisionTreeClassifier(max_depth=3, class_weight="balanced", random_state=seed)
    guessed = cross_val_predict(tree, column[:, np.newaxis], labels, cv=folds)
    accuracy = float(balanced_accuracy_score(labels, guessed))
    if accuracy <= 1 / classes:
        return accuracy, 1.0
    return accuracy, independence_p_value(column, labels, seed)


def _by_class(column: np.ndarray, labels: np.ndarray) -> list[str]:
    found = []
    for label in np.unique(labels):
        low, middle, high = np.quantile(column[labels == label], (0, 0.5, 1))
        found.append(f"{label}: {middle:.4g} ({low:.4g} to {high:.4g})")
    return found


def _groups(examination: Examination) -> Iterator[Finding]:
    """Names such as `field12_cell3` and `field12_cell7`: several images of one thing."""
    records = examination.manifest.records
    if any(record.group for record in records):
        return
    members: dict[str, list[str]] = defaultdict(list)
    paths = list(dict.fromkeys(record.path for record in records))
    for path in paths:
        stem = os.path.splitext(os.path.basename(path))[0]
        match = re.fullmatch(r"(.*\d.*?)[-_ .]+[A-Za-z]*\d+", stem)
        members[match[1] if match else path].append(path)
    shared = {name: own for name, own in members.items() if len(own) > 1}
    inside = sum(map(len, shared.values()))
    classes = len(examination.manifest.class_names)
    if inside < len(paths) / 5 or len(members) <= max(3, 2 * classes):
        return
    what = "image" if len(paths) == len(records) else "file"
    examples = [f"{name}: {counted(len(own), what)}" for name, own in sorted(shared.items())[:5]]
    yield Finding(
        "groups", "warning", f"the names speak of {len(members)} groups of {what}s",
        "If they are images of one specimen or field of view, they must not be torn between "
        "splits: simclr-split --group_by=REGEX, whose first bracket catches the group.",
        inside, tuple(examples),
    )  # fmt: skip
