"""Every kind of backbone in training: exact resume, replicas, momentum networks, precision."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from simclr_tf.methods.byol import BYOL
from simclr_tf.models.weights import part_hashes
from tests.simclr_tf.backbones import FLAGS
from tests.simclr_tf.methods.trainer import Trainer, views

SMALL_VIEWS = {"vit_tiny": 16, "hybrid": 16, "keras:mobilenetv3small": 32}


class Sized(Trainer):
    """Trains a backbone on the smallest views that it takes."""

    def __init__(self, name: str, method: str = "simclr", replicas: int = 1, **values: Any) -> None:
        self.size = SMALL_VIEWS[name]
        flags = {"image_size": self.size, "learning_rate": 0.3, **FLAGS[name], **values}
        super().__init__(method, replicas, **flags)

    def inputs(self, step: int) -> list[np.ndarray]:
        batch = self.config.train.train_batch_size
        labels = np.arange(batch, dtype=np.int64) % 3
        return [views(step, batch, self.size), labels]


def weights(trainer: Trainer) -> list[np.ndarray]:
    return [v.value.numpy() for v in trainer.model.variables]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["vit_tiny", pytest.param("keras:mobilenetv3small", marks=pytest.mark.thorough)]
)
def test_a_run_that_goes_on_ends_with_the_same_weights_bit_by_bit(
    name: str, tmp_path: Path
) -> None:
    """BYOL: the twin's weights and its own statistics belong to the run."""
    through = Sized(name, "byol", batch_norm_decay=0.5)
    first = through.train(0, 2)
    assert np.isfinite([row["total_loss"] for row in first]).all()
    through.store(tmp_path).save(2)
    end = through.train(2, 2)
    again = Sized(name, "byol", batch_norm_decay=0.5, seed=1)
    assert part_hashes(again.model) != part_hashes(through.model)
    assert again.store(tmp_path).restore_latest() == 2
    assert again.train(2, 2) == end
    for mine, theirs in zip(weights(again), weights(through), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hybrid"])
def test_two_replicas_learn_what_one_learns(name: str) -> None:
    one, two = Sized(name), Sized(name, replicas=2)
    start = weights(one)
    for mine, theirs in zip(start, weights(two), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    alone, shared = one.train(0, 1)[0], two.train(0, 1)[0]
    assert shared["contrast_loss"] == pytest.approx(alone["contrast_loss"], rel=1e-4)
    steps = [np.concatenate([np.ravel(b - a) for a, b in zip(start, weights(t), strict=True)])
             for t in (one, two)]  # fmt: skip
    assert np.linalg.norm(steps[1] - steps[0]) < 0.02 * np.linalg.norm(steps[0])


@pytest.mark.slow
def test_a_momentum_network_shares_the_fixed_projection_of_patches() -> None:
    trainer = Sized("vit_tiny", "byol")
    method = trainer.parts.method
    assert isinstance(method, BYOL)
    target, online = method._momentum._target, trainer.model.encoder
    before = online.backbone().stem.kernel.value.numpy()
    trainer.train(0, 2)
    for network in (online, target):
        np.testing.assert_array_equal(network.backbone().stem.kernel.value.numpy(), before)
    mine, theirs = (n.backbone().block_groups[0].blocks[0].hidden.kernel for n in (online, target))
    assert 0 < np.abs(mine.value.numpy() - theirs.value.numpy()).max() < 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny", "hybrid"])
def test_half_precision_learns(name: str) -> None:
    trainer = Sized(name, precision="bfloat16", optimizer="adamw", learning_rate=0.05)
    assert trainer.model.compute_dtype == "bfloat16"
    losses = [row["contrast_loss"] for row in trainer.train(0, 12, every=1)]
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] - 0.1
