import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics as sk

from finetune.report.results import ClassificationResults, evaluate_classifier
from finetune.report.scored_split import ScoredSplit
from tests.finetune.scores import scored

NAMES = ("ant", "bee", "cat")


def evaluate(
    *splits: ScoredSplit, names: tuple[str, ...] = NAMES, **how: object
) -> ClassificationResults:
    how = {"resamples": 50, **how}
    return evaluate_classifier({s.split: s for s in splits}, names, **how)  # type: ignore[arg-type]


def two(split: str, **how: int) -> ScoredSplit:
    return scored(split, classes=2, **how)


def test_the_threshold_comes_from_validation_and_is_applied_to_test() -> None:
    validation, test = two("validation"), two("test")
    results = evaluate(test, validation, names=("no", "yes"))
    threshold = results.decision.threshold
    assert results.decision.chosen_on == "validation"
    assert threshold != 0.5
    predicted = test.scores[:, 1] >= threshold
    assert results.splits["test"].metrics["accuracy"].value == (predicted == test.labels).mean()
    assert any("chosen on validation" in remark for remark in results.remarks)


def test_test_scores_have_no_part_in_the_threshold() -> None:
    validation = two("validation")
    one = evaluate(validation, two("test", seed=1), names=("no", "yes"))
    other = evaluate(validation, two("test", seed=2), names=("no", "yes"))
    assert one.decision == other.decision


@pytest.mark.parametrize("validation", [[], [two("validation", n=1)]])
def test_without_validation_the_threshold_is_a_half_with_a_remark(
    validation: list[ScoredSplit],
) -> None:
    results = evaluate(two("train"), two("test"), *validation, names=("no", "yes"))
    assert results.decision.threshold == 0.5
    assert results.decision.chosen_on == ""
    assert any("threshold is 0.5" in remark for remark in results.remarks)


def test_the_criterion_the_positive_class_and_the_threshold_can_be_given() -> None:
    splits = two("validation"), two("test")
    yes = ("no", "yes")
    assert evaluate(*splits, names=yes, threshold=0.3).decision.threshold == 0.3
    assert evaluate(*splits, names=yes, criterion="fixed").decision.threshold == 0.5
    assert evaluate(*splits, names=yes, criterion="f1").decision.criterion == "f1"
    assert evaluate(*splits, names=yes, positive="no").decision.positive == 0


def test_more_than_two_classes_are_decided_by_the_highest_score() -> None:
    test = scored("test")
    results = evaluate(scored("validation"), test)
    assert results.decision.threshold is None
    hard = test.scores.argmax(axis=1)
    np.testing.assert_array_equal(
        results.splits["test"].confusion, sk.confusion_matrix(test.labels, hard)
    )


def test_images_without_a_label_count_nowhere() -> None:
    whole = scored("test", 60, unlabeled=12)
    part = whole.take(np.arange(12, 60))
    results, expected = evaluate(whole).splits["test"], evaluate(part).splits["test"]
    assert (results.images, results.unlabeled) == (48, 12)
    assert results.metrics == expected.metrics
    assert results.support == (16, 16, 16)


def test_a_split_without_labels_is_left_out_with_a_remark() -> None:
    results = evaluate(scored("test", 5, unlabeled=5), scored("validation"))
    assert list(results.splits) == ["validation"]
    assert any(remark.startswith("test: no image has a label") for remark in results.remarks)
    with pytest.raises(ValueError, match="nothing can be measured"):
        evaluate(scored("test", 5, unlabeled=5))


def test_groups_are_resampled_whole() -> None:
    alone = evaluate(scored("test")).splits["test"]
    grouped = evaluate(scored("test", groups=True)).splits["test"]
    assert (alone.units, alone.grouped) == (60, False)
    assert (grouped.units, grouped.grouped) == (15, True)
    assert alone.metrics["accuracy"].value == grouped.metrics["accuracy"].value
    assert alone.metrics["accuracy"] != grouped.metrics["accuracy"]


def test_perfect_answers_come_with_a_word_on_their_number() -> None:
    results = evaluate(scored("test", 12, skill=50.0))
    # 12 right of 12: Wilson's interval begins at 1 / (1 + 1.96^2 / 12).
    assert results.splits["test"].metrics["accuracy"].low == pytest.approx(0.7575, abs=1e-4)
    assert any("reaches down to 0.758" in remark for remark in results.remarks)


def test_absent_and_rare_classes_are_named() -> None:
    split = scored("test", 60)
    split = split.take(np.flatnonzero((split.labels == 0) | (np.arange(60) < 6)))
    split = split.take(np.flatnonzero(split.labels != 2))
    remarks = " ".join(evaluate(split).remarks)
    assert "no images of cat" in remarks
    assert "very few images of bee (2)" in remarks


def test_splits_are_in_order_whatever_the_order_given() -> None:
    results = evaluate(*map(scored, ("zoo", "test", "art", "train", "validation")))
    assert list(results.splits) == ["train", "validation", "test", "art", "zoo"]


@pytest.mark.parametrize(
    ("names", "how", "message"),
    [
        (("a", "b"), {}, "scores of 3 classes"),
        (NAMES, {"threshold": 0.4}, "needs two classes"),
        (NAMES, {"positive": "ant"}, "needs two classes"),
    ],
)
def test_what_does_not_fit_is_refused(names: tuple[str, ...], how: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(scored("test"), names=names, **how)


def test_an_unknown_positive_class_is_refused() -> None:
    with pytest.raises(ValueError, match="'maybe' is none of no, yes"):
        evaluate(two("test"), names=("no", "yes"), positive="maybe")


def test_json_holds_everything_and_nothing_that_json_lacks() -> None:
    split = scored("test", 60)
    results = evaluate(split.take(np.flatnonzero(split.labels != 2)), scored("validation"))
    text = json.dumps(results.to_json(), allow_nan=False)
    back = ClassificationResults.from_json(json.loads(text))
    assert back.to_json() == results.to_json()
    assert json.loads(text)["splits"]["test"]["per_class"][2]["recall"]["value"] is None
    np.testing.assert_array_equal(back.splits["test"].confusion, results.splits["test"].confusion)
    assert replace(back, splits={}) == replace(results, splits={})
    binary = evaluate(two("test"), two("validation"), names=("no", "yes"))
    assert ClassificationResults.from_json(binary.to_json()).decision == binary.decision


def test_the_same_scores_and_seed_give_the_same_numbers() -> None:
    splits = scored("test"), scored("validation")
    assert evaluate(*splits).to_json() == evaluate(*splits).to_json()
    other = evaluate(*splits, seed=1).to_json()
    assert evaluate(*splits).to_json() != other
