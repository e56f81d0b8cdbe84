"""The test for independence holds its level and sees what is there."""

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from data_prep.check.labels import _information, independence_p_value


def test_it_orders_tables_as_mutual_information_does() -> None:
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 5, 60)
    classes = np.stack([rng.permutation(np.repeat(np.arange(3), 20)) for _ in range(30)])
    expected = [mutual_info_score(levels, row) for row in classes]
    found = _information(levels, classes)
    np.testing.assert_allclose(found - found[0], np.array(expected) - expected[0], atol=1e-12)


@pytest.mark.parametrize(("images", "classes"), [(24, 2), (60, 3)])
def test_unrelated_features_are_called_related_no_more_often_than_the_level_says(
    images: int, classes: int
) -> None:
    labels = np.repeat(np.arange(classes), images // classes)
    found = []
    for seed in range(150):
        feature = np.random.default_rng([seed, images]).integers(0, 6, images).astype(float)
        found.append(independence_p_value(feature, labels))
    # 7.5 are expected; 15 or more come by chance once in a hundred times.
    assert sum(p <= 0.05 for p in found) < 15


def test_a_feature_that_tells_one_class_of_three_is_seen() -> None:
    labels = np.repeat(["a", "b", "c"], 20)
    feature = np.where(labels == "b", 640.0, 480.0)
    assert independence_p_value(feature, labels) == 1 / 2001


def test_a_feature_of_many_values_is_seen_by_its_order() -> None:
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 200)
    assert independence_p_value(rng.normal(labels * 0.7), labels) == 1 / 2001
    assert independence_p_value(rng.normal(size=400), labels) > 0.01


def test_the_same_seed_gives_the_same_value() -> None:
    rng = np.random.default_rng(2)
    feature, labels = rng.normal(size=50), rng.integers(0, 2, 50)
    values = {independence_p_value(feature, labels, seed=3) for _ in range(2)}
    assert len(values) == 1
