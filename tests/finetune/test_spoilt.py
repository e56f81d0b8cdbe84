import logging

import numpy as np
import pytest

from finetune.train import SpoiltFeatures, guessing_loss


def test_guessing_costs_the_entropy_of_the_classes() -> None:
    assert guessing_loss(np.array([0, 1] * 5 + [-1])) == pytest.approx(np.log(2))
    assert guessing_loss(np.array([2, 2])) == 0


@pytest.mark.parametrize(
    ("losses", "frozen", "said"),
    [
        ([4.6, 0.9, 0.6, 0.5], False, "validation loss 4.60 after epoch 1"),
        ([14.0, 9.0], True, "the head's steps are too large"),
        ([0.7, 0.6, 0.5, 0.9], False, ""),  # late: overfitting
    ],
)
def test_a_loss_far_above_guessing_is_said_once_and_early(
    losses: list[float], frozen: bool, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    watch = SpoiltFeatures(np.array([0, 1] * 10), total_steps=40, frozen=frozen)
    with caplog.at_level(logging.WARNING):
        for epoch, loss in enumerate(losses):
            watch.on_epoch_end(epoch, {"step": 10 * (epoch + 1), "validation/loss": loss})
    assert said in caplog.text
    assert len(caplog.records) == bool(said)
