"""Length of a run in steps, and schedules of its learning rate."""

import math
from typing import Any, Literal

import keras
import tensorflow as tf

from data_prep.errors import UserError

Scaling = Literal["linear", "sqrt"]


def train_steps(num_examples: int, batch_size: int, epochs: int, steps: int = 0) -> int:
    """Number of training steps: `steps` if given, else examples x epochs // batch + 1."""
    return steps or num_examples * epochs // batch_size + 1


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Examples / batch, rounded (half to even), at least 1."""
    return max(1, round(num_examples / batch_size))


def checkpoint_interval(
    num_examples: int, batch_size: int, checkpoint_epochs: int = 1, checkpoint_steps: int = 0
) -> int:
    """Steps between checkpoints: `checkpoint_steps` if given, else those of some epochs."""
    return checkpoint_steps or checkpoint_epochs * steps_per_epoch(num_examples, batch_size)


def run_steps(total_steps: int, interval: int) -> int:
    """Steps that are in fact taken: `total_steps` up to the next multiple of the interval."""
    return -(-total_steps // interval) * interval


def scaled_learning_rate(base: float, batch_size: int, scaling: Scaling) -> float:
    """Peak learning rate: base x batch / 256 (linear) or base x sqrt(batch) (sqrt).

    Raises:
        UserError: for another scaling.
    """
    if scaling == "linear":
        return base * batch_size / 256.0
    if scaling == "sqrt":
        return base * math.sqrt(batch_size)
    raise UserError(f"learning_rate_scaling is {scaling!r}; it must be linear or sqrt")


def warmup_steps(num_examples: int, batch_size: int, warmup_epochs: float) -> int:
    """Steps of the warm-up, rounded down."""
    return round(warmup_epochs * num_examples // batch_size)


@keras.saving.register_keras_serializable(package="simclr_tf")
class WarmUpAndConstant(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then always the same.

    Args:
        peak: learning rate after the warm-up.
        warmup: steps of the warm-up, see `warmup_steps`.
    """

    def __init__(self, peak: float, warmup: int) -> None:
        self.peak = peak
        self.warmup = warmup

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Learning rate before the update of step 0, 1, 2, ...; float32 scalar."""
        share = tf.cast(tf.convert_to_tensor(step), tf.float32) / max(self.warmup, 1)
        return self.peak * (tf.minimum(share, 1.0) if self.warmup else tf.ones_like(share))

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        return {"peak": self.peak, "warmup": self.warmup}


@keras.saving.register_keras_serializable(package="simclr_tf")
class WarmUpAndCosineDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up from 0, then cosine decay to 0 (SimCLR, section 2.1), in float32.

    Step 0 of a warm-up has rate 0. From `total_steps` on the rate stays 0.

    Args:
        peak: learning rate at the end of the warm-up, see `scaled_learning_rate`.
        warmup: steps of the warm-up, see `warmup_steps`.
        total_steps: steps of the run, see `train_steps`.
    """

    def __init__(self, peak: float, warmup: int, total_steps: int) -> None:
        self.peak = peak
        self.warmup = warmup
        self.total_steps = total_steps

    def __call__(self, step: tf.Tensor | int) -> tf.Tensor:
        """Learning rate before the update of step 0, 1, 2, ...; float32 scalar."""
        # In float32 the cosine loses digits near the end, where 1 + cos is a small difference.
        now = tf.cast(tf.convert_to_tensor(step), tf.float64)
        decay_steps = max(self.total_steps - self.warmup, 1)
        progress = tf.clip_by_value((now - self.warmup) / decay_steps, 0.0, 1.0)
        rate = self.peak * (0.5 * (1.0 + tf.cos(math.pi * progress)))
        if self.warmup:
            rate = tf.where(now < self.warmup, now / self.warmup * self.peak, rate)
        return tf.cast(rate, tf.float32)

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        return {"peak": self.peak, "warmup": self.warmup, "total_steps": self.total_steps}
