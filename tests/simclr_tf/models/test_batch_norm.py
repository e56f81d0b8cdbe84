"""Batch normalisation equals a NumPy one, fused or not, on one and several replicas."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.models.batch_norm import BatchNorm
from tests import golden
from tests.replicas import mirrored, per_replica

EPSILON = 1e-5


def layer(channels: int, **options: object) -> BatchNorm:
    """A layer with uneven parameters and statistics."""
    norm = BatchNorm(**options)
    norm.build((None, None, None, channels))
    for variable in norm.weights:
        name = f"bn/{variable.name}"
        variable.assign(golden.fill(name, tuple(variable.shape)))
    return norm


def expected_training(x: np.ndarray, norm: BatchNorm) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Output and new moving statistics, in float64."""
    x = x.astype(np.float64)
    axes = tuple(range(x.ndim - 1))
    mean, variance = x.mean(axes), x.var(axes)
    gamma = norm.gamma.numpy().astype(np.float64)
    beta = 0.0 if norm.beta is None else norm.beta.numpy().astype(np.float64)
    y = (x - mean) / np.sqrt(variance + EPSILON) * gamma + beta
    old_mean, old_variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
    momentum = norm.momentum
    return (
        y,
        momentum * old_mean.astype(np.float64) + (1 - momentum) * mean,
        momentum * old_variance.astype(np.float64) + (1 - momentum) * variance,
    )


def inputs(shape: tuple[int, ...]) -> np.ndarray:
    return golden.rng(f"bn/{shape}").standard_normal(shape) * 2 + 0.5


SHAPES = [(4, 5, 3, 6), (2, 1, 1, 3), (1, 2, 2, 8), (7, 6)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize(
    ("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-12), ("mixed_bfloat16", 2e-2)]
)
def test_training(shape: tuple[int, ...], center: bool, dtype: str, rtol: float) -> None:
    norm = layer(shape[-1], center=center, dtype=dtype)
    x = tf.cast(inputs(shape), norm.compute_dtype)
    y, mean, variance = expected_training(tf.cast(x, tf.float64).numpy(), norm)
    out = norm(x, training=True)
    assert out.dtype == norm.compute_dtype
    np.testing.assert_allclose(tf.cast(out, tf.float64), y, rtol, rtol * np.abs(y).max())
    exact = min(rtol, 1e-5)
    np.testing.assert_allclose(norm.moving_mean.numpy(), mean, exact, exact)
    np.testing.assert_allclose(norm.moving_variance.numpy(), variance, exact, exact)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("trainable", [True, False])
@pytest.mark.parametrize(
    ("dtype", "rtol"), [("float32", 1e-5), ("float64", 1e-12), ("mixed_bfloat16", 2e-2)]
)
def test_stored_statistics(
    shape: tuple[int, ...], trainable: bool, dtype: str, rtol: float
) -> None:
    norm = layer(shape[-1], dtype=dtype)
    norm.trainable = trainable
    gamma, beta, mean, variance = (v.numpy().astype(np.float64) for v in norm.variables)
    x = tf.cast(inputs(shape), norm.compute_dtype)
    y = (tf.cast(x, tf.float64) - mean) / np.sqrt(variance + EPSILON) * gamma + beta
    # A frozen layer ignores `training`.
    out = norm(x, training=not trainable)
    np.testing.assert_allclose(tf.cast(out, tf.float64), y, rtol, rtol * np.abs(y).max())
    np.testing.assert_array_equal(
        norm.moving_mean.numpy(), golden.fill("bn/moving_mean", (shape[-1],))
    )


def test_frozen_statistics_move_if_told_so() -> None:
    norm = layer(3, frozen_statistics_move=True)
    norm.trainable = False
    x = inputs((4, 5, 5, 3)).astype(np.float32)
    y, mean, variance = expected_training(x, norm)
    np.testing.assert_allclose(norm(x, training=True), y, 1e-5, 1e-5)
    np.testing.assert_allclose(norm.moving_mean.numpy(), mean, 1e-5, 1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), variance, 1e-5, 1e-5)
    assert norm.trainable_variables == []


def test_one_pixel_has_no_variance() -> None:
    norm = layer(3)
    old = norm.moving_variance.numpy()
    out = norm(inputs((1, 1, 1, 3)).astype(np.float32), training=True)
    np.testing.assert_allclose(out[0, 0, 0], norm.beta.numpy(), atol=1e-6)
    np.testing.assert_allclose(norm.moving_variance.numpy(), 0.9 * old, rtol=1e-6)


def gradients(norm: BatchNorm, x: np.ndarray, training: bool) -> list[np.ndarray]:
    x = tf.cast(x, norm.compute_dtype)
    weights = tf.cast(golden.rng("bn/cotangent").standard_normal(x.shape), x.dtype)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = tf.reduce_sum(norm(x, training=training) * weights)
    return [g.numpy() for g in tape.gradient(value, [x, norm.gamma.value, norm.beta.value])]


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_the_fused_kernel(training: bool) -> None:
    x = inputs((4, 5, 3, 6))
    fused = gradients(layer(6, dtype="float32"), x, training)
    exact = gradients(layer(6, dtype="float64"), x, training)
    for a, b in zip(fused, exact, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max())


def test_gradients_equal_finite_differences() -> None:
    norm = layer(2, dtype="float64")
    x = inputs((3, 2, 2, 2))
    weights = golden.rng("bn/cotangent").standard_normal(x.shape)
    analytic = gradients(norm, x, training=True)[0]

    def value(z: np.ndarray) -> float:
        return float(tf.reduce_sum(norm(tf.constant(z), training=True) * weights))

    step = 1e-6
    for index in [(0, 0, 0, 0), (1, 1, 0, 1), (2, 0, 1, 0)]:
        bump = np.zeros_like(x)
        bump[index] = step
        slope = (value(x + bump) - value(x - bump)) / (2 * step)
        assert analytic[index] == pytest.approx(slope, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("shape", [(8, 5, 3, 4), (8, 4)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_synchronised_replicas_are_one_batch(shape: tuple[int, ...], dtype: str) -> None:
    x = inputs(shape)
    weights = golden.rng("bn/cotangent").standard_normal(x.shape)
    alone = layer(shape[-1], dtype=dtype)
    single = gradients(alone, x, training=True)
    strategy = mirrored(2)
    with strategy.scope():
        norm = layer(shape[-1], dtype=dtype)

    @tf.function
    def step(own: tf.Tensor, cotangent: tf.Tensor) -> tuple[tf.Tensor, ...]:
        with tf.GradientTape() as tape:
            tape.watch(own)
            value = tf.reduce_sum(norm(own, training=True) * cotangent)
        grads = tape.gradient(value, [own, norm.gamma.value, norm.beta.value])
        return tuple(grads)

    parts = [per_replica(strategy, tf.split(tf.constant(a, dtype), 2)) for a in (x, weights)]
    results = strategy.run(step, tuple(parts))
    local = [strategy.experimental_local_results(r) for r in results]
    tolerance = 1e-5 if dtype == "float32" else 1e-11
    combined = [np.concatenate(local[0]), sum(local[1]), sum(local[2])]
    for a, b in zip(combined, single, strict=True):
        np.testing.assert_allclose(a, b, tolerance, tolerance * 10 * np.abs(b).max())
    for a, b in zip(norm.variables, alone.variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), tolerance, tolerance)


@pytest.mark.parametrize("shape", [(12, 5, 3, 4), (24, 4)], ids=str)
def test_replicas_lose_no_digits_of_a_small_variance_far_from_zero(shape: tuple[int, ...]) -> None:
    """The difference of mean square and squared mean is wrong by several percent here."""
    # A deviation of 1 at 1,000, where float32 has steps of 6e-5: that much may be lost, no more.
    x = (1000 + golden.rng(f"bn/far/{shape}").standard_normal(shape)).astype(np.float32)
    strategy = mirrored(3)
    with strategy.scope():
        norm = layer(shape[-1])
    y, mean, variance = expected_training(x, norm)
    parts = [tf.constant(part) for part in np.split(x, 3)]
    out = strategy.run(norm, (per_replica(strategy, parts),), {"training": True})
    together = np.concatenate([part.numpy() for part in strategy.experimental_local_results(out)])
    np.testing.assert_allclose(together, y, rtol=0, atol=3e-4)
    np.testing.assert_allclose(norm.moving_mean.numpy(), mean, rtol=1e-6)
    np.testing.assert_allclose(norm.moving_variance.numpy(), variance, rtol=1e-4)


@pytest.mark.parametrize("shape", [(8, 5, 3, 4), (8, 4)], ids=str)
def test_separate_replicas_share_the_mean_of_their_statistics(shape: tuple[int, ...]) -> None:
    x = inputs(shape).astype(np.float32)
    halves = np.split(x, 2)
    strategy = mirrored(2)
    with strategy.scope():
        norm = layer(shape[-1], sync=False)
    expected = [expected_training(half, layer(shape[-1])) for half in halves]
    step = tf.function(lambda own: norm(own, training=True))
    result = strategy.run(step, (per_replica(strategy, [tf.constant(h) for h in halves]),))
    for out, (y, _, _) in zip(strategy.experimental_local_results(result), expected, strict=True):
        np.testing.assert_allclose(out, y, 1e-5, 1e-5)
    mean = (expected[0][1] + expected[1][1]) / 2
    variance = (expected[0][2] + expected[1][2]) / 2
    np.testing.assert_allclose(norm.moving_mean.numpy(), mean, 1e-5, 1e-5)
    np.testing.assert_allclose(norm.moving_variance.numpy(), variance, 1e-5, 1e-5)


def test_survives_its_config() -> None:
    norm = BatchNorm(
        momentum=0.8,
        center=False,
        zero_gamma=True,
        sync=False,
        frozen_statistics_move=True,
        epsilon=1e-3,
        dtype="mixed_bfloat16",
        name="n",
    )
    copy = keras.layers.deserialize(keras.layers.serialize(norm))
    assert copy.get_config() == norm.get_config()
    copy.build((None, 4))
    np.testing.assert_array_equal(copy.gamma.numpy(), 0.0)
    assert len(copy.weights) == 3
