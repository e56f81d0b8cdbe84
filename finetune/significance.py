"""Tests of the difference between two classifiers whose runs share training or test images.

Folds share training images, so their scores are not independent, and the plain t-test finds
differences where there are none; `corrected_t_test` widens the variance as Nadeau and Bengio (2003,
Inference for the Generalization Error) do. Models scored on the same images are compared on the
same bootstrap samples of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from data_prep.errors import UserError
from data_prep.manifest.groups import below_common_folder
from data_prep.manifest.identity import Image
from data_prep.phrases import counted
from finetune.report.scored_split import ScoredSplit
from simclr_tf.evaluation.bootstrap import metric_samples
from simclr_tf.evaluation.degenerate import Ends, classifier_ends, has_no_spread
from simclr_tf.evaluation.intervals import Difference, SampledMean, sampled_difference
from simclr_tf.evaluation.metrics import class_metrics, classification_metrics


@dataclass(frozen=True)
class ScoredPredictions:
    """Scores, and the classes that a run made of them.

    Attributes:
        split: Labelled images with their scores.
        predicted: int64 [n], the classes.
    """

    split: ScoredSplit
    predicted: np.ndarray


def spread(values: np.ndarray, ratio: float, level: float = 0.95) -> tuple[float, float, float]:
    """Standard deviation over folds, and the corrected interval of their mean.

    Args:
        values: float [k], a metric in every fold.
        ratio: Test images for every training image; see `corrected_t_test`.
        level: Of confidence.

    Returns:
        Standard deviation (of k - 1), lower and upper end. The ends are nan for a single fold, and
        for equal values, which show no spread but do not say that there is none.
    """
    k = len(values)
    if k < 2:
        return math.nan, math.nan, math.nan
    deviation, mean = float(np.std(values, ddof=1)), float(np.mean(values))
    if has_no_spread(float(np.min(values)), float(np.max(values))):
        return 0.0, math.nan, math.nan
    half = float(stats.t.ppf((1 + level) / 2, k - 1)) * deviation * math.sqrt(1 / k + ratio)
    return deviation, mean - half, mean + half


def corrected_t_test(a: np.ndarray, b: np.ndarray, ratio: float, level: float = 0.95) -> Difference:
    """Corrected resampled t-test of paired folds (Nadeau and Bengio 2003, section 5).

    Args:
        a: float [k], a metric of one model in every fold.
        b: float [k], of the other, in the same folds.
        ratio: Test images for every training image. 0 = the plain paired t-test.
        level: Of confidence.

    Returns:
        The mean of a - b with its interval and two-sided p-value, of Student's t with k - 1
        degrees of freedom; undefined ones are nan.
    """
    difference = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    k, mean = len(difference), float(difference.mean())
    deviation, low, high = spread(difference, ratio, level)
    if k < 2:
        return Difference(mean, low, high, level, math.nan)
    error = deviation * math.sqrt(1 / k + ratio)
    if error == 0:
        return Difference(mean, low, high, level, 1.0 if mean == 0 else math.nan)
    return Difference(mean, low, high, level, float(2 * stats.t.sf(abs(mean) / error, k - 1)))


def paired_bootstrap(
    a: Sequence[ScoredPredictions],
    b: Sequence[ScoredPredictions],
    *,
    resamples: int,
    seed: int,
    level: float = 0.95,
) -> dict[str, Difference]:
    """Differences of all metrics on the same bootstrap samples of the same images.

    Of several runs on the same test images (seeds, folds with one sealed test split) the mean over
    the runs is compared: every sample of images is drawn for all of them.

    Args:
        a: One model's runs; see `same_images` for their order.
        b: As many runs of the other.
        resamples: Bootstrap samples.
        seed: Of the resampling.
        level: Of confidence.

    Returns:
        Metric -> difference a - b, with its percentile interval and two-sided p-value.
    """
    sides = [sampled_means(runs, resamples, seed) for runs in (a, b)]
    return {name: sampled_difference(sides[0][name], sides[1][name], level) for name in sides[0]}


def sampled_means(
    runs: Sequence[ScoredPredictions], resamples: int, seed: int, *, resample_runs: bool = False
) -> dict[str, SampledMean]:
    """All metrics, means over runs on the same images, on bootstrap samples.

    Args:
        runs: On the same images in the same order.
        resamples: Bootstrap samples, B.
        seed: Of the resampling: the same seed draws the same samples for other models.
        resample_runs: Draw runs as well as images (Owen 2007, The pigeonhole bootstrap), so that
            the samples also vary as other training images and seeds would make them.
    """
    values = [metric_values(run) for run in runs]
    samples = [
        metric_samples(
            run.split.labels, run.split.scores, run.predicted, groups=run.split.units,
            resamples=resamples, seed=seed,
        ).overall
        for run in runs
    ]  # fmt: skip
    ends = [_closed_ends(run) for run in runs]
    k = len(runs)
    weights = np.full((resamples, k), 1 / k)
    if resample_runs:
        # Other random numbers than those that draw the images.
        weights = np.random.default_rng([seed, k]).multinomial(k, [1 / k] * k, resamples) / k
    return {
        name: SampledMean(
            float(np.mean([value[name] for value in values])),
            _weighted(np.stack([sample[name] for sample in samples], axis=1), weights),
            # The runs share the images: their errors do not average out.
            (
                float(np.mean([end[name][0] for end in ends])),
                float(np.mean([end[name][1] for end in ends])),
            ),
        )
        for name in values[0]
    }


def _weighted(samples: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means of the rows [B, k]; runs of weight 0 count for nothing, undefined or not."""
    means: np.ndarray = np.where(weights > 0, samples * weights, 0.0).sum(axis=1)
    return means


def _closed_ends(run: ScoredPredictions, level: float = 0.95) -> dict[str, Ends]:
    """Intervals of a run's metrics in closed form, by name."""
    split = run.split
    units = len(split) if split.units is None else len(set(split.units))
    each = class_metrics(split.labels, split.scores, run.predicted)
    values = metric_values(run)
    return classifier_ends(split.labels, run.predicted, values, each, units, level)[0]


def metric_values(run: ScoredPredictions) -> dict[str, float]:
    """All metrics of a run, by name."""
    split = run.split
    return classification_metrics(split.labels, split.scores, run.predicted)


def same_images(
    a: ScoredPredictions, b: ScoredPredictions, what: str
) -> tuple[ScoredPredictions, ScoredPredictions]:
    """Two runs with their images in the same order.

    An image is the same wherever its folder lies, and however it was read: if the paths differ,
    those below the deepest folder that holds all images of a run tell.

    Args:
        a: One run.
        b: Another, which must have scored the same images with the same labels.
        what: Names the images in messages.

    Raises:
        UserError: Their images or labels differ.
    """
    rows_a, rows_b = (_order(run.split.images, what) for run in (a, b))
    if rows_a.keys() != rows_b.keys():
        moved_a, moved_b = (_order(_wherever(run.split.images), what) for run in (a, b))
        if moved_a.keys() != moved_b.keys():
            alone = len(rows_a.keys() ^ rows_b.keys())
            raise UserError(
                f"{what}: {counted(alone, 'image')} {'was' if alone == 1 else 'were'} scored by one"
                " run and not by the other; only runs on the same images can be compared: train"
                " both on the same manifest"
            )
        rows_a, rows_b = moved_a, moved_b
    keys = sorted(rows_a)
    orders = (
        (run, np.array([rows[key] for key in keys])) for run, rows in ((a, rows_a), (b, rows_b))
    )
    first, second = (
        ScoredPredictions(run.split.take(order), run.predicted[order]) for run, order in orders
    )
    if (first.split.labels != second.split.labels).any():
        key = keys[int(np.argmax(first.split.labels != second.split.labels))]
        raise UserError(f"{what}: the two runs have different labels for {key.file}")
    return first, second


def _order(images: Sequence[Image], what: str) -> dict[Image, int]:
    rows = {image: row for row, image in enumerate(images)}
    if len(rows) < len(images):
        raise UserError(f"{what}: an image was scored twice by one run")
    return rows


def _wherever(images: Sequence[Image]) -> list[Image]:
    """The images with their paths below the folder that holds all of them."""
    inner = below_common_folder([image.file for image in images])
    return [image._replace(file=path) for image, path in zip(images, inner, strict=True)]
