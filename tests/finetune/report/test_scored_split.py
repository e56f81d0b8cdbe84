import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from finetune.report.scored_split import ScoredSplit
from simclr_tf.evaluation.metrics import softmax
from tests.finetune.scores import scored

MANIFEST = Manifest(
    (
        Record("a.png", "cat", "test", "home"),
        Record("b.png", "", "test"),
        Record("c.png", "ant", "test", "home"),
    )
)
SCORES = np.array([[0.25, 0.75], [0.5, 0.5], [1.0, 0.0]], np.float32)


def test_a_manifest_gives_labels_groups_and_paths() -> None:
    split = ScoredSplit.from_manifest("test", MANIFEST, ("ant", "cat"), SCORES)
    assert split.paths == ("a.png", "b.png", "c.png")
    assert split.labels.tolist() == [1, -1, 0]
    assert split.groups == ("home", "", "home")
    assert split.tiles is None
    np.testing.assert_array_equal(split.scores, SCORES)
    assert split.scores.dtype == np.float64


def test_float32_probabilities_are_scaled_to_add_up_in_float64() -> None:
    scores = np.random.default_rng(0).dirichlet(np.ones(7), 3).astype(np.float32)
    records = tuple(Record(f"{i}.png") for i in range(3))
    split = ScoredSplit.from_manifest("x", Manifest(records), tuple("abcdefg"), scores)
    np.testing.assert_allclose(split.scores.sum(axis=1), 1, rtol=0, atol=1e-15)
    np.testing.assert_allclose(split.scores, scores, rtol=1e-6)


def test_labels_of_other_classes_and_logits_are_refused() -> None:
    with pytest.raises(UserError, match="cat"):
        ScoredSplit.from_manifest("test", MANIFEST, ("ant", "bee"), SCORES)
    with pytest.raises(ValueError, match="probabilities"):
        ScoredSplit.from_manifest("test", MANIFEST, ("ant", "cat"), 3 * SCORES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": SCORES}, "float64"),
        ({"labels": np.zeros(3, np.int32)}, "int64"),
        ({"labels": np.array([0, 1, 2])}, "no column"),
        ({"groups": ("a",)}, "3 names"),
        ({"scores": np.full((3, 2), 0.4)}, "sum to 1"),
        ({"scores": np.array([[2.0, -1.0]] * 3)}, "not negative"),
        ({"scores": np.full((3, 2), np.nan)}, "finite"),
    ],
)
def test_what_does_not_fit_together_is_refused(change: dict, message: str) -> None:
    good = {
        "split": "x",
        "paths": ("a", "b", "c"),
        "labels": np.array([0, 1, -1]),
        "scores": SCORES.astype(np.float64),
    }
    assert len(ScoredSplit(**good)) == 3
    with pytest.raises(ValueError, match=message):
        ScoredSplit(**{**good, **change})


def test_images_of_a_group_and_tiles_of_a_picture_belong_together() -> None:
    paths, scores = ("a", "a", "b", "c", "d"), np.full((5, 2), 0.5)
    split = ScoredSplit("x", paths, np.zeros(5, np.int64), scores, ("", "", "g", "g", ""))
    assert split.units is not None
    _, which = np.unique(split.units, return_inverse=True)
    assert which[0] == which[1]
    assert which[2] == which[3]
    assert len(set(which)) == 3
    assert scored("test").units is None


def test_a_group_is_not_taken_for_a_picture_of_the_same_name() -> None:
    labels, scores = np.zeros(3, np.int64), np.full((3, 2), 0.5)
    split = ScoredSplit("x", ("a", "b", "b"), labels, scores, ("", "a", "a"))
    assert split.units is not None
    assert split.units[0] != split.units[1]


def test_labeled_images_keep_their_groups() -> None:
    split = scored("test", 10, groups=True, unlabeled=3).labeled()
    assert len(split) == 7
    assert split.paths[0] == "test/3.png"
    assert split.groups == tuple(f"test {i // 4}" for i in range(3, 10))


def test_softmax_of_large_logits() -> None:
    p = softmax(np.array([[1000.0, 999.0], [-2000.0, 0.0]], np.float32))
    np.testing.assert_allclose(p, [[1 / (1 + np.exp(-1)), 1 / (1 + np.e)], [0, 1]])


def test_the_pages_of_a_file_are_pictures_of_their_own() -> None:
    labels, scores = np.zeros(3, np.int64), np.full((3, 2), 0.5)
    readings = ("page=0", "page=1", "page=1;intensity=minmax")
    pages = ScoredSplit("x", ("a",) * 3, labels, scores, None, ("", "", "0,0,4,4"), readings)
    assert pages.units is not None
    assert pages.units[0] != pages.units[1] == pages.units[2]
