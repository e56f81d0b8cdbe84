"""NT-Xent equals the recorded values and a loop over pairs, on one and several replicas."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.losses.nt_xent import contrastive_accuracy, contrastive_entropy, nt_xent
from tests import golden
from tests.replicas import mirrored, per_replica
from tests.simclr_tf.losses.common import numeric_gradient, on_replicas, rows

CASES = {case["name"]: case for case in golden.load_json("loss/loss")["cases"]}
SINGLE = [name for name in CASES if name.startswith("single")]
MULTI = [name for name in CASES if name.startswith("multi")]


def arrays(name: str) -> dict[str, np.ndarray]:
    prefix = f"{name}/"
    stored = golden.load_arrays("loss/loss")
    return {key.removeprefix(prefix): v for key, v in stored.items() if key.startswith(prefix)}


def loop_loss(
    hidden: np.ndarray, temperature: float, hidden_norm: bool, decoupled: bool = False
) -> float:
    """Equation 1 of the SimCLR paper, or 6 of DCL's, a pair at a time; both sides are summed."""
    z = hidden.astype(np.float64)
    if hidden_norm:
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
    n = len(z) // 2
    total = 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        left_out = (i, j) if decoupled else (i,)
        exponents = [z[i] @ z[k] / temperature for k in range(2 * n) if k not in left_out]
        top = max(exponents)
        log_sum = top + np.log(sum(np.exp(e - top) for e in exponents))
        total += log_sum - z[i] @ z[j] / temperature
    return total / n


@pytest.mark.parametrize("name", SINGLE)
def test_single_device(name: str) -> None:
    case, stored = CASES[name], arrays(name)
    hidden = tf.constant(stored["hidden"])
    with tf.GradientTape() as tape:
        tape.watch(hidden)
        result = nt_xent(hidden, case["temperature"], case["hidden_norm"])
    np.testing.assert_allclose(result.loss, case["loss"], rtol=1e-5)
    np.testing.assert_allclose(result.logits_ab, stored["logits_ab"], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(result.labels, stored["labels"])
    gradient = tape.gradient(result.loss, hidden)
    atol = 1e-5 * np.abs(stored["grad"]).max()
    np.testing.assert_allclose(gradient, stored["grad"], rtol=1e-5, atol=atol)
    accuracy = contrastive_accuracy(result.logits_ab, result.labels)
    np.testing.assert_allclose(accuracy, case["contrast_acc"], rtol=1e-5)
    entropy = contrastive_entropy(result.logits_ab)
    np.testing.assert_allclose(entropy, case["contrast_entropy"], rtol=1e-5, atol=1e-7)


def run_on_replicas(case: dict[str, Any], hidden: np.ndarray) -> list[dict[str, np.ndarray]]:
    strategy = mirrored(case["replicas"])
    values = per_replica(strategy, [tf.constant(h) for h in hidden])

    @tf.function
    def step(own: tf.Tensor) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(own)
            result = nt_xent(own, case["temperature"], case["hidden_norm"])
            scaled = result.loss / case["replicas"]
        return {
            "loss": result.loss,
            "logits_ab": result.logits_ab,
            "labels": result.labels,
            "grad": tape.gradient(scaled, own),
            "accuracy": contrastive_accuracy(result.logits_ab, result.labels),
            "entropy": contrastive_entropy(result.logits_ab),
        }

    results = strategy.run(step, (values,))
    local = {k: strategy.experimental_local_results(v) for k, v in results.items()}
    return [{k: v[r].numpy() for k, v in local.items()} for r in range(case["replicas"])]


@pytest.mark.parametrize("name", MULTI)
def test_negatives_of_all_replicas(name: str) -> None:
    case, stored = CASES[name], arrays(name)
    for r, result in enumerate(run_on_replicas(case, stored["hidden"])):
        np.testing.assert_allclose(result["loss"], case["per_replica_loss"][r], rtol=1e-5)
        np.testing.assert_allclose(result["logits_ab"], stored["logits_ab"][r], 1e-5, 1e-5)
        np.testing.assert_array_equal(result["labels"], stored["labels"][r])
        expected = stored["grad_of_loss_over_R"][r]
        atol = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(result["grad"], expected, rtol=1e-5, atol=atol)
        np.testing.assert_allclose(result["accuracy"], case["contrast_acc"][r], rtol=1e-5)
        np.testing.assert_allclose(result["entropy"], case["contrast_entropy"][r], rtol=1e-5)


@pytest.mark.parametrize("name", MULTI)
def test_mean_over_replicas_is_the_loss_of_the_whole_batch(name: str) -> None:
    case, stored = CASES[name], arrays(name)
    views = np.stack(np.split(stored["hidden"], 2, axis=1))
    whole = views.reshape(-1, views.shape[-1])
    loss = nt_xent(tf.constant(whole), case["temperature"], case["hidden_norm"]).loss
    np.testing.assert_allclose(loss, case["single_replica_loss_on_global_batch"], rtol=1e-5)
    np.testing.assert_allclose(loss, case["mean_loss"], rtol=1e-5)


@pytest.mark.parametrize("hidden_norm", [True, False])
@pytest.mark.parametrize(("batch", "dim", "temperature"), [(2, 3, 1.0), (7, 5, 0.1), (16, 8, 0.5)])
def test_equals_a_loop_over_pairs(
    batch: int, dim: int, temperature: float, hidden_norm: bool
) -> None:
    hidden = golden.rng(f"loop/{batch}").standard_normal((2 * batch, dim))
    loss = nt_xent(tf.constant(hidden), temperature, hidden_norm).loss
    assert loss.dtype == tf.float64
    np.testing.assert_allclose(loss, loop_loss(hidden, temperature, hidden_norm), rtol=1e-10)


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("hidden_norm", [True, False])
def test_decoupled_equals_a_loop_over_pairs(replicas: int, hidden_norm: bool) -> None:
    views = [rows(0, 4, 5), rows(1, 4, 5)]

    def by_loop(a: np.ndarray, b: np.ndarray) -> float:
        return loop_loss(np.concatenate([a, b]), 0.5, hidden_norm, decoupled=True)

    value, gradients = on_replicas(
        lambda a, b: nt_xent(tf.concat([a, b], 0), 0.5, hidden_norm, decoupled=True).loss,
        views,
        replicas,
    )
    assert value == pytest.approx(by_loop(*views), rel=1e-10)
    for which in (0, 1):
        expected = numeric_gradient(by_loop, views, which)
        np.testing.assert_allclose(gradients[which], expected, atol=1e-7)


def test_one_example_has_no_negatives() -> None:
    hidden = tf.constant(golden.rng("one").standard_normal((2, 8)), tf.float32)
    assert float(nt_xent(hidden, 0.5).loss) == 0.0


@pytest.mark.parametrize(("n", "total"), [(128, 11.08), (256, 12.47), (512, 13.86)])
def test_chance_is_ln_2n_minus_1_a_side(n: int, total: float) -> None:
    alike = tf.ones([2 * n, 4])
    loss = float(nt_xent(alike, 0.5).loss)
    assert loss == pytest.approx(2 * np.log(2 * n - 1), rel=1e-5)
    assert round(loss, 2) == total


def test_half_precision_is_computed_in_float32() -> None:
    hidden = tf.constant(golden.rng("half").standard_normal((16, 8)), tf.bfloat16)
    result = nt_xent(hidden, 0.1)
    assert result.loss.dtype == tf.float32
    exact = loop_loss(tf.cast(hidden, tf.float64).numpy(), 0.1, True)
    np.testing.assert_allclose(result.loss, exact, rtol=1e-5)


def test_unknown_batch_size_in_a_graph() -> None:
    signature = [tf.TensorSpec([None, 4], tf.float32)]
    compiled = tf.function(lambda h: nt_xent(h, 0.5).loss, input_signature=signature)
    hidden = golden.rng("graph").standard_normal((6, 4)).astype(np.float32)
    np.testing.assert_allclose(compiled(hidden), loop_loss(hidden, 0.5, True), rtol=1e-5)
