"""Focal loss, label smoothing and class weights against a plain loop over examples."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_class_weight

from simclr_tf.losses.supervised import (
    balanced_weights,
    classification_loss,
    supervised_loss,
)

LOGITS = np.random.default_rng(0).normal(0, 2, (12, 4)).astype("float32")
LABELS = np.array([0, 1, 2, 3, 3, 3, 3, -1, 2, 0, -1, 1])
WEIGHTS = [2.0, 0.5, 1.0, 0.25]


def by_loop(smoothing: float, gamma: float, weights: list[float] | None) -> float:
    total, count = 0.0, 0
    for row, label in zip(LOGITS.astype(np.float64), LABELS, strict=True):
        if label < 0:
            continue
        p = np.exp(row - row.max())
        p /= p.sum()
        loss = 0.0
        for k in range(4):
            target = (1 - smoothing) * (k == label) + smoothing / 4
            loss -= target * (1 - p[k]) ** gamma * np.log(p[k])
        total += loss * (weights[label] if weights else 1)
        count += 1
    return total / count


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_the_loss_is_that_of_a_loop(
    smoothing: float, gamma: float, weights: list[float] | None
) -> None:
    found = classification_loss(
        tf.constant(LOGITS),
        tf.constant(LABELS),
        label_smoothing=smoothing,
        focal_gamma=gamma,
        class_weights=weights,
    )
    assert float(found) == pytest.approx(by_loop(smoothing, gamma, weights), rel=1e-5)


def test_without_options_it_is_the_plain_cross_entropy() -> None:
    plain = supervised_loss(tf.constant(LOGITS), tf.constant(LABELS))
    found = classification_loss(tf.constant(LOGITS), tf.constant(LABELS))
    assert float(found) == pytest.approx(float(plain), rel=1e-6)


def test_it_agrees_with_keras_on_focal_loss_with_smoothing() -> None:
    known = LABELS >= 0
    theirs = keras.losses.CategoricalFocalCrossentropy(
        alpha=1.0, gamma=2.0, from_logits=True, label_smoothing=0.1
    )(np.eye(4)[LABELS[known]].astype("float32"), LOGITS[known])
    found = classification_loss(
        tf.constant(LOGITS), tf.constant(LABELS), label_smoothing=0.1, focal_gamma=2.0
    )
    assert float(found) == pytest.approx(float(theirs), rel=1e-4)


def test_the_gradient_stays_finite_where_the_network_is_certain() -> None:
    logits = tf.constant([[200.0, -200.0], [-200.0, 200.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = classification_loss(
            logits, tf.constant([0, 0]), focal_gamma=2.0, label_smoothing=0.1
        )
    assert np.isfinite(tape.gradient(loss, logits)).all()
    assert np.isfinite(loss)


def test_balanced_weights_are_those_of_scikit_learn_and_leave_the_mean_weight_at_one() -> None:
    labels = np.array([0] * 6 + [1] * 2 + [2] + [-1] * 3)
    known = labels[labels >= 0]
    theirs = compute_class_weight("balanced", classes=np.arange(3), y=known)
    weights = balanced_weights(labels, 4)
    np.testing.assert_allclose(weights, [*theirs, 0.0])
    assert np.mean(np.array(weights)[known]) == pytest.approx(1)
