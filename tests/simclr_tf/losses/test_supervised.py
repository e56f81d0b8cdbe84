"""The supervised loss equals the recorded values."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.losses.supervised import accuracy, supervised_loss
from tests import golden

CASES = {
    case["name"]: case
    for case in golden.load_json("loss/loss")["cases"]
    if case["name"].startswith("sup")
}


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("one_hot", [False, True])
def test_recorded_values(name: str, one_hot: bool) -> None:
    case, stored = CASES[name], golden.load_arrays("loss/loss")
    logits, labels = tf.constant(stored[f"{name}/logits"]), stored[f"{name}/labels"]
    target = tf.one_hot(labels, case["classes"]) if one_hot else tf.constant(labels)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = supervised_loss(logits, target)
    np.testing.assert_allclose(loss, case["loss"], rtol=1e-5)
    expected = stored[f"{name}/grad"]
    gradient = tape.gradient(loss, logits)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", list(CASES))
def test_accuracies(name: str) -> None:
    case, stored = CASES[name], golden.load_arrays("loss/loss")
    logits, labels = tf.constant(stored[f"{name}/logits"]), tf.constant(stored[f"{name}/labels"])
    assert float(accuracy(logits, labels)) == pytest.approx(case["train_acc"])
    assert float(accuracy(logits, labels)) == pytest.approx(case["eval_top1"])
    assert float(accuracy(logits, labels, top=5)) == pytest.approx(case["eval_top5"])


def test_half_precision_and_double_keep_their_digits() -> None:
    logits = golden.rng("sup").standard_normal((5, 3))
    labels = tf.constant([0, 1, 2, 0, 1])
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    expected = -log_p[np.arange(5), labels.numpy()].mean()
    np.testing.assert_allclose(supervised_loss(tf.constant(logits), labels), expected, rtol=1e-12)
    half = supervised_loss(tf.constant(logits, tf.bfloat16), labels)
    assert half.dtype == tf.float32
    np.testing.assert_allclose(half, expected, rtol=2e-2)
