"""Tests between models, against the formulas and SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from data_prep.errors import UserError
from finetune.report.scored_split import ScoredSplit
from finetune.significance import (
    ScoredPredictions,
    corrected_t_test,
    paired_bootstrap,
    same_images,
    sampled_means,
    spread,
)
from simclr_tf.evaluation.intervals import paired_difference, sampled_difference
from simclr_tf.evaluation.metrics import accuracy
from tests.finetune.scores import scored

A, B = np.array([0.81, 0.84, 0.79, 0.88, 0.80]), np.array([0.78, 0.80, 0.80, 0.83, 0.77])


def judged(split: ScoredSplit) -> ScoredPredictions:
    split = split.labeled()
    return ScoredPredictions(split, split.scores.argmax(axis=1))


def test_without_correction_it_is_the_paired_t_test() -> None:
    found = corrected_t_test(A, B, ratio=0.0)
    expected = stats.ttest_rel(A, B)
    interval = expected.confidence_interval(0.95)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_the_variance_is_widened_as_nadeau_and_bengio_say() -> None:
    """Their equation for k folds with n2 test and n1 training images, written out."""
    k, d = 5, A - B
    variance = sum((x - d.mean()) ** 2 for x in d) / (k - 1)
    t = d.mean() / math.sqrt((1 / k + 20 / 80) * variance)
    found = corrected_t_test(A, B, ratio=20 / 80)
    assert found.p_value == pytest.approx(2 * stats.t.cdf(-t, k - 1), rel=1e-9)
    assert found.p_value > 2 * corrected_t_test(A, B, ratio=0.0).p_value
    swapped = corrected_t_test(B, A, ratio=20 / 80)
    assert (swapped.value, swapped.p_value) == pytest.approx((-found.value, found.p_value))


def test_the_corrected_test_errs_as_rarely_as_it_says() -> None:
    """Equal models in ten folds whose scores depend as those of folds do: correlation n2 / n.

    The plain test, which takes them for independent, is wrong far more often than one in twenty.
    """
    rng = np.random.default_rng(0)
    k, ratio = 10, 0.25
    correlation = ratio / (1 + ratio)
    wrong = {0.0: 0, ratio: 0}
    for _ in range(2000):
        common = rng.normal(0, math.sqrt(correlation))
        d = common + rng.normal(0, math.sqrt(1 - correlation), k)
        for used in wrong:
            wrong[used] += corrected_t_test(d, np.zeros(k), used).p_value < 0.05
    assert 0.03 < wrong[ratio] / 2000 < 0.07
    assert wrong[0.0] / 2000 > 0.2


def test_one_fold_has_no_spread_and_equal_folds_no_difference() -> None:
    assert all(map(math.isnan, spread(A[:1], 0.25)))
    assert math.isnan(corrected_t_test(A[:1], B[:1], 0.25).p_value)
    same = corrected_t_test(A, A, 0.25)
    assert same.p_value == 1
    assert math.isnan(same.low)  # equal folds show no spread, which is not none
    by_chance = corrected_t_test(A + 0.125, A, 0.25)
    assert math.isnan(by_chance.low)
    assert math.isnan(by_chance.p_value)


def test_predictors_of_one_class_are_compared_with_some_doubt() -> None:
    labels = np.arange(40) % 2
    names = tuple(f"{i}.png" for i in range(40))
    runs = []
    for said in (0, 1):
        scores = np.full((40, 2), 0.2)
        scores[:, said] = 0.8
        runs.append(
            ScoredPredictions(ScoredSplit("test", names, labels, scores), np.full(40, said))
        )
    found = paired_bootstrap(runs[:1], runs[1:], resamples=50, seed=0)
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "roc_auc"):
        assert found[name].low < found[name].value < found[name].high, name
    mean = sampled_means(runs[:1], 50, 0)["balanced_accuracy"].interval()
    assert mean.low < mean.value == 0.5 < mean.high


@pytest.mark.slow
def test_the_paired_bootstrap_is_that_of_one_metric_on_resampled_rows() -> None:
    """Same model plus noise: an interval that unpaired resampling would not give."""
    first, second = scored("test", 200, skill=1.5), scored("test", 200, skill=1.2, seed=1)
    second = ScoredSplit("test", first.paths, first.labels, second.scores)
    a, b = judged(first), judged(second)
    found = paired_bootstrap([a], [b], resamples=2000, seed=0)["accuracy"]
    reference = paired_difference(
        accuracy, first.labels, a.predicted, b.predicted, resamples=2000, seed=1
    )
    assert found.value == pytest.approx(reference.value)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.015)
    same = paired_bootstrap([a], [a], resamples=100, seed=0)["roc_auc"]
    assert (same.value, same.p_value) == (0, 1)
    assert same.low < 0 < same.high  # equal on these images, which are not all


def test_runs_on_the_same_images_are_averaged_sample_by_sample() -> None:
    a, b = (judged(scored("test", 60, skill=skill)) for skill in (2.0, 1.0))
    one = paired_bootstrap([a], [b], resamples=300, seed=3)
    again = paired_bootstrap([a, a], [b, b], resamples=300, seed=3)
    for name, difference in one.items():
        other = again[name]
        assert (other.value, other.low, other.high) == pytest.approx(
            (difference.value, difference.low, difference.high)
        )


def test_images_are_matched_by_name_whatever_their_order() -> None:
    split = scored("test", 20)
    order = np.random.default_rng(0).permutation(20)
    a, b = same_images(judged(split), judged(split.take(order)), "test")
    assert a.split.paths == b.split.paths
    np.testing.assert_array_equal(a.split.scores, b.split.scores)
    np.testing.assert_array_equal(a.predicted, b.predicted)


def paged(split: ScoredSplit, rule: str, file: str = "a/stack.npy") -> ScoredSplit:
    """The images of a split as those of one stack."""
    readings = tuple(f"page={page};axes=NHW{rule}" for page in range(len(split)))
    paths = (file,) * len(split)
    return ScoredSplit(split.split, paths, split.labels, split.scores, readings=readings)


def test_an_image_is_the_same_however_it_was_read() -> None:
    split = scored("test", 20)
    order = np.random.default_rng(0).permutation(20)
    one = paged(split, "")
    for rule in (";intensity=sqrt", ";intensity=percentile(1,99);nan=min", ";exif=ignore"):
        a, b = same_images(judged(one), judged(paged(split, rule).take(order)), "test")
        assert a.split.images == b.split.images
        np.testing.assert_array_equal(a.split.scores, b.split.scores)
    blank = ScoredSplit("test", split.paths, split.labels, split.scores)
    zero = ("page=0",) * 20
    first = ScoredSplit("test", split.paths, split.labels, split.scores, readings=zero)
    same_images(judged(blank), judged(first), "a page that is not named is the first")
    named = ("array=/image",) * 20
    array = ScoredSplit("test", split.paths, split.labels, split.scores, readings=named)
    same_images(judged(blank), judged(array), "the only array need not be named")
    with pytest.raises(UserError, match="only runs on the same images"):
        same_images(judged(one), judged(one.take(np.arange(19))), "test")


def test_images_are_found_again_in_a_folder_that_was_moved() -> None:
    split = scored("test", 20)
    moved = tuple(f"/elsewhere/set/{path}" for path in split.paths)
    other = ScoredSplit("test", moved, split.labels, split.scores)
    a, b = same_images(judged(split), judged(other), "test")
    np.testing.assert_array_equal(a.split.scores, b.split.scores)
    assert [f"/elsewhere/set/{path}" for path in a.split.paths] == list(b.split.paths)
    with pytest.raises(UserError, match="only runs on the same images"):
        same_images(judged(split), judged(other.take(np.arange(19))), "test")


def test_arrays_of_one_file_are_images_of_their_own() -> None:
    split = scored("test", 20)
    names = tuple(f"array=image_{i}" for i in range(20))
    one = ScoredSplit("test", ("s.h5",) * 20, split.labels, split.scores, readings=names)
    assert len(set(one.images)) == 20
    assert one.units is None
    order = np.random.default_rng(0).permutation(20)
    a, b = same_images(judged(one), judged(one.take(order)), "test")
    np.testing.assert_array_equal(a.split.scores, b.split.scores)


def test_other_images_or_labels_are_refused() -> None:
    split = scored("test", 20)
    with pytest.raises(UserError, match="fold_1: 1 image was scored by one run and not by the"):
        same_images(judged(split), judged(split.take(np.arange(19))), "fold_1")
    labels = split.labels.copy()
    labels[3] = (labels[3] + 1) % 3
    other = ScoredSplit("test", split.paths, labels, split.scores)
    with pytest.raises(UserError, match=r"different labels for test/3\.png"):
        same_images(judged(split), judged(other), "fold_1")


def test_samples_that_draw_runs_too_have_the_spread_of_both() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(2), 100)
    runs = []
    for skill in (0.2, 1.0, 3.0):  # runs that differ much
        logits = rng.normal(size=(200, 2)) + skill * np.eye(2)[labels]
        scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        paths = tuple(f"{i}.png" for i in range(200))
        split = ScoredSplit("test", paths, labels, scores)
        runs.append(ScoredPredictions(split, scores.argmax(axis=1)))
    fixed = sampled_means(runs, 500, 0)["accuracy"]
    drawn = sampled_means(runs, 500, 0, resample_runs=True)["accuracy"]
    own = [float((r.predicted == labels).mean()) for r in runs]
    assert fixed[0] == drawn[0] == pytest.approx(np.mean(own))
    # Variances of a mean over three drawn runs, and of images, add up.
    expected = np.var(own) / 3 + np.var(fixed[1])
    assert np.var(drawn[1]) == pytest.approx(expected, rel=0.2)
    assert sampled_difference(drawn, drawn).p_value == 1.0
