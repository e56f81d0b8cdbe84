"""How the learning rates of depth networks go."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable(package="finetune")
class ConstantThenLinear(keras.optimizers.schedules.LearningRateSchedule):
    """Constant, then in a straight line to 0 (Zhu et al. 2017, "CycleGAN", section 4).

    Args:
        rate: Learning rate of the constant part.
        constant_steps: Updates with it.
        total_steps: Updates in all: the rate would be 0 at this one.
    """

    def __init__(self, rate: float, constant_steps: int, total_steps: int) -> None:
        self.rate = rate
        self.constant_steps = constant_steps
        self.total_steps = total_steps

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Learning rate before the update of step 0, 1, 2, ...; float32 scalar."""
        now = tf.cast(tf.convert_to_tensor(step), tf.float32)
        falling = max(self.total_steps - self.constant_steps, 1)
        left = (self.total_steps - now) / falling
        # With a constant rate throughout nothing falls, not even past the end.
        least = 1.0 if self.constant_steps >= self.total_steps else 0.0
        return self.rate * tf.clip_by_value(left, least, 1.0)

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        return {
            "rate": self.rate,
            "constant_steps": self.constant_steps,
            "total_steps": self.total_steps,
        }


def constant_then_linear(rate: float, decay_start: float, total_steps: int) -> ConstantThenLinear:
    """The schedule of an optimizer that is to make `total_steps` updates.

    Args:
        rate: Learning rate of the constant part.
        decay_start: Share of the updates with it.
        total_steps: Updates in all.
    """
    return ConstantThenLinear(rate, round(decay_start * total_steps), total_steps)
