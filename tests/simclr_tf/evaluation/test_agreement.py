import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from simclr_tf.evaluation.clustering import _of_tables, cluster_agreement, purity


def test_purity_is_the_share_of_each_clusters_most_frequent_label() -> None:
    labels = np.array([0, 0, 1, 1, 1, 2, 2, 0])
    clusters = np.array([5, 5, 5, 9, 9, 9, 2, 2])
    right = sum(np.bincount(labels[clusters == cluster]).max() for cluster in np.unique(clusters))
    assert purity(labels, clusters) == right / 8


@pytest.mark.parametrize("seed", range(5))
def test_tables_of_many_samples_give_what_scikit_learn_gives_sample_by_sample(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, clusters = rng.integers(0, 3, 30), rng.integers(0, 1 + seed, 30)
    drawn = rng.integers(0, 30, (6, 30))
    tables = np.zeros((6, 3, 5))
    for table, rows in zip(tables, drawn, strict=True):
        np.add.at(table, (labels[rows], clusters[rows]), 1)
    found = _of_tables(tables)
    for i, rows in enumerate(drawn):
        a, b = labels[rows], clusters[rows]
        assert found["purity"][i] == pytest.approx(purity(a, b))
        assert found["nmi"][i] == pytest.approx(normalized_mutual_info_score(a, b), abs=1e-9)
        assert found["ari"][i] == pytest.approx(adjusted_rand_score(a, b), abs=1e-9)


def test_clusters_that_are_the_labels_agree_wholly() -> None:
    labels = np.repeat([0, 1, 2], 10)
    for value in cluster_agreement(labels, 7 - labels, resamples=50).values():
        assert (value.value, value.high) == pytest.approx((1, 1))
        assert 0.7 < value.low < 0.95  # 30 images do not show that all others would agree


def test_intervals_hold_the_value_and_are_seeded_and_wider_for_groups() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 40)
    clusters = np.where(rng.random(120) < 0.7, labels, rng.integers(0, 3, 120))
    groups = np.arange(120) // 10
    clusters[groups % 3 == 0] = labels[groups % 3 == 0]
    alone = cluster_agreement(labels, clusters, resamples=400, seed=1)
    again = cluster_agreement(labels, clusters, resamples=400, seed=1)
    grouped = cluster_agreement(labels, clusters, groups=groups, resamples=400, seed=1)
    assert alone == again
    for name, value in alone.items():
        assert value.low < value.value < value.high
        wide, narrow = grouped[name], value
        assert wide.value == narrow.value
        assert wide.high - wide.low > narrow.high - narrow.low
