"""What methods own beside the network: momentum network, queue, prototypes."""

import math

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.methods.moco import MoCo
from simclr_tf.methods.momentum import enqueue
from simclr_tf.methods.swav import SwAV
from simclr_tf.models.simclr import SimCLREncoder
from tests.simclr_tf.methods.trainer import Trainer


def weights(encoder: SimCLREncoder) -> list[np.ndarray]:
    return [v.numpy().astype(np.float64) for v in encoder.trainable_variables]


def test_a_full_queue_drops_the_oldest() -> None:
    queue = tf.constant([[1.0], [2.0], [3.0], [4.0]])
    queue = enqueue(queue, tf.constant([[5.0], [6.0]]))
    np.testing.assert_array_equal(queue, [[3], [4], [5], [6]])
    np.testing.assert_array_equal(enqueue(queue, tf.constant([[7.0]])), [[4], [5], [6], [7]])
    both = enqueue(tf.reshape(tf.range(6.0), [2, 3, 1]), tf.constant([[[8.0]], [[9.0]]]))
    np.testing.assert_array_equal(both[..., 0], [[1, 2, 8], [4, 5, 9]])


@pytest.mark.slow
@pytest.mark.parametrize(("method", "schedule"), [("byol", "cosine"), ("moco", "constant")])
def test_the_momentum_network_is_the_moving_average_of_the_online_one(
    method: str, schedule: str
) -> None:
    steps, base = 4, 0.9
    trainer = Trainer(method, train_steps=steps, target_momentum=base)
    momentum = trainer.parts.method._momentum  # type: ignore[attr-defined]
    target = momentum._target
    expected = weights(trainer.model.encoder)
    for mine, theirs in zip(weights(target), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for k in range(steps):
        trainer.train(k, 1)
        rise = (math.cos(math.pi * k / steps) + 1) / 2 if schedule == "cosine" else 1
        m = 1 - (1 - base) * rise
        online = weights(trainer.model.encoder)
        expected = [m * old + (1 - m) * new for old, new in zip(expected, online, strict=True)]
    assert any((a != b).any() for a, b in zip(weights(target), online, strict=True))
    for mine, average in zip(weights(target), expected, strict=True):
        np.testing.assert_allclose(mine, average, rtol=1e-5, atol=1e-7)
    means = [v.numpy() for v in target.resnet.variables if v.path.endswith("moving_mean")]
    assert len(means) == 21
    assert all(mean.any() for mean in means), "its statistics are of what it has seen itself"


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, pytest.param(2, marks=pytest.mark.thorough)])
def test_the_queue_holds_the_keys_of_the_last_batches_in_their_order(replicas: int) -> None:
    """With a momentum of 1 the keys of a batch stay what they are and can be made again."""
    trainer = Trainer("moco", replicas, target_momentum=1.0)
    method = trainer.parts.method
    assert isinstance(method, MoCo)
    random = method.queue.numpy()
    np.testing.assert_allclose(np.linalg.norm(random, axis=1), 1, rtol=1e-5)
    trainer.train(0, 4)
    target = method._momentum._target
    keys = []
    for step in (1, 2, 3):  # the queue holds three batches of eight
        images = tf.constant(trainer.inputs(step)[0][1])
        _, hiddens = target.hiddens(images, training=True, normalize_output=False)
        keys.append(tf.math.l2_normalize(hiddens[-1], 1).numpy())
    np.testing.assert_allclose(method.queue.numpy(), np.concatenate(keys), atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["byol", "simsiam"])
def test_the_predictor_learns_at_a_rate_of_its_own(method: str) -> None:
    def moved(rate: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        trainer = Trainer(method, predictor_rate=rate)
        predictor, network = trainer.extension.trainable_variables, weights(trainer.model.encoder)
        before = [v.numpy() for v in predictor]
        trainer.train(0, 1)
        after = weights(trainer.model.encoder)
        return (
            [v.numpy() - old for v, old in zip(predictor, before, strict=True)],
            [new - old for new, old in zip(after, network, strict=True)],
        )

    predictor, network = moved(1.0)
    faster, unchanged = moved(8.0)
    assert all(step.any() for step in predictor)
    for slow, fast in zip(predictor, faster, strict=True):
        np.testing.assert_allclose(fast, 8 * slow, rtol=1e-3, atol=2e-6)
    for one, other in zip(network, unchanged, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_prototypes_stay_as_long_as_told_and_always_have_unit_length() -> None:
    trainer = Trainer("swav", frozen_prototype_steps=2, optimizer="adam", weight_decay=0.1)
    method = trainer.parts.method
    assert isinstance(method, SwAV)
    kernel = method._prototypes.kernel
    first = kernel.numpy()
    trainer.train(0, 2)
    np.testing.assert_allclose(kernel.numpy(), first, atol=1e-6)
    trainer.train(2, 1)
    assert np.abs(kernel.numpy() - first).max() > 1e-3
    np.testing.assert_allclose(np.linalg.norm(kernel.numpy(), axis=1), 1, rtol=1e-5)


@pytest.mark.slow
def test_the_projections_of_three_batches_fill_swavs_queue_view_by_view() -> None:
    trainer = Trainer("swav", learning_rate=0.0, small_crops=0)
    method = trainer.parts.method
    assert isinstance(method, SwAV)
    assert method.queue is not None
    trainer.train(0, 1)
    assert not method.queue.numpy()[:, :16].any()
    trainer.train(1, 2)
    for view in range(2):
        for place, step in enumerate((0, 1, 2)):
            images = tf.constant(trainer.inputs(step)[0][view])
            _, hiddens = trainer.model.encoder.hiddens(images, True, normalize_output=False)
            rows = tf.math.l2_normalize(hiddens[-1], 1)
            stored = method.queue.numpy()[view, 8 * place : 8 * (place + 1)]
            np.testing.assert_allclose(stored, rows, atol=1e-4)


def test_a_queue_as_large_as_the_data_is_named_beforehand() -> None:
    method = Trainer("moco").parts.method
    assert isinstance(method, MoCo)
    (message,) = method.warnings(24)
    assert "the queue (24) is no smaller than the data (24 images)" in message
    assert method.warnings(25) == []
