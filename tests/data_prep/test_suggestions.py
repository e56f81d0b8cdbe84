import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from data_prep.statistics import class_weights, suggest_finetuning, suggest_pretraining


@given(st.lists(st.integers(1, 500), min_size=1, max_size=6))
def test_class_weights_are_those_of_scikit_learn(counts: list[int]) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=labels)
    found = class_weights({str(name): count for name, count in enumerate(counts)})
    np.testing.assert_allclose(list(found.values()), expected)


def test_a_class_without_images_has_no_weight() -> None:
    assert class_weights({"a": 2, "b": 0, "c": 6}) == {"a": 2.0, "c": 2 / 3}


@pytest.mark.parametrize(
    ("images", "batch", "epochs"),
    [(12_827, 512, 200), (2158, 128, 297), (420, 32, 381), (40, 32, 1000), (10**6, 512, 100)],
)
def test_pretraining_makes_enough_updates(images: int, batch: int, epochs: int) -> None:
    plan = suggest_pretraining(images)
    assert (plan.batch_size, plan.epochs) == (batch, epochs)


@given(st.integers(1, 10**7))
def test_suggestions_stay_within_their_bounds(images: int) -> None:
    pretrain, finetune = suggest_pretraining(images), suggest_finetuning(images)
    assert pretrain.batch_size <= images
    assert finetune.batch_size <= min(64, images)
    assert 100 <= pretrain.epochs <= 1000
    assert 25 <= finetune.epochs <= 200
    for plan in (pretrain, finetune):
        assert plan.batch_size & (plan.batch_size - 1) == 0
        assert plan.updates == images * plan.epochs // plan.batch_size + 1
    if images >= 160:
        assert pretrain.updates >= 5000
