"""Two models side by side: two runs, or two folders of folds or seeds."""

from dataclasses import dataclass

import numpy as np

from data_prep.errors import UserError
from finetune.folds import FoldsResult
from finetune.folds_floors import alarms, folds_verdict, other_warnings
from finetune.significance import Judged, corrected_t_test, paired_bootstrap, same_images
from simclr_tf.evaluation.intervals import Difference

_RESAMPLES = 2000
_MOVED = (
    "The images of the two lie in different folders; those of the same path below the folder that"
    " holds all of them were taken for the same."
)


@dataclass(frozen=True)
class Compared:
    """What the comparison of two models comes to.

    Attributes:
        split: On which both were scored.
        means: Metric -> (a, b), means over the runs.
        t_test: Metric -> the difference over folds by the corrected resampled t-test; empty for
            single runs.
        bootstrap: Metric -> the difference over images by the paired bootstrap; empty if the folds
            have different test images.
        remarks: What a reader must know, sentences.
        cautions: Of each model: why its numbers cannot be trusted, whether it is above simpler
            methods, and what its runs warned of, sentences.
    """

    split: str
    means: dict[str, tuple[float, float]]
    t_test: dict[str, Difference]
    bootstrap: dict[str, Difference]
    remarks: tuple[str, ...]
    cautions: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())


def compare(a: FoldsResult, b: FoldsResult, *, seed: int = 0) -> Compared:
    """Compares run with run.

    Args:
        a: One model's runs.
        b: The other's, as many, on the same images.
        seed: Of the bootstrap.

    Raises:
        UserError: Their runs, images, labels or classes are not the same.
    """
    if a.split != b.split or len(a.folds) != len(b.folds):
        raise UserError(
            f"--compare: one has {len(a.folds)} runs scored on {a.split}, the other"
            f" {len(b.folds)} on {b.split}; only the same folds can be compared"
        )
    pairs, moved = [], False
    for one, other in zip(a.folds, b.folds, strict=True):
        what = one.name if one.name == other.name else f"{one.name} and {other.name}"
        if one.classes != other.classes:
            raise UserError(f"--compare: {what} know different classes")
        pairs.append(same_images(one.judged, other.judged, what))
        moved |= set(one.judged.split.images) != set(other.judged.split.images)
    metrics = list(a.folds[0].measured.metrics)
    means = {n: (float(a.values(n).mean()), float(b.values(n).mean())) for n in metrics}
    t_test, bootstrap = {}, {}
    remarks = [_MOVED] if moved else []
    if len(pairs) > 1:
        ratio = (a.ratio + b.ratio) / 2
        t_test = {n: corrected_t_test(a.values(n), b.values(n), ratio) for n in metrics}
        remarks.append(_about_t_test(ratio))
    if a.shared:
        bootstrap = _bootstrap(pairs, seed)
        remarks.append(
            f"Paired bootstrap: {_RESAMPLES} samples of the {len(pairs[0][0].split)} {a.split}"
            " images, the same for both; groups and tiles of one picture are drawn together."
        )
    cautions = (_cautions(a), _cautions(b))
    return Compared(a.split, means, t_test, bootstrap, tuple(remarks), cautions)


def _cautions(result: FoldsResult) -> tuple[str, ...]:
    verdict = folds_verdict(result)
    floors = (verdict.sentence(),) if verdict else ()
    return (*alarms(result), *floors, *other_warnings(result))


def _bootstrap(pairs: list[tuple[Judged, Judged]], seed: int) -> dict[str, Difference]:
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    return paired_bootstrap(first, second, resamples=_RESAMPLES, seed=seed)


def _about_t_test(ratio: float) -> str:
    if not np.isclose(ratio, 0):
        return (
            "Folds share training images: the variance of the t-test is widened by"
            f" {ratio:.3f}, the test images for every training image (Nadeau and Bengio 2003)."
        )
    return (
        "All runs have the same test images: the t-test tells what other seeds or training images"
        " would change, the bootstrap what other test images would."
    )
