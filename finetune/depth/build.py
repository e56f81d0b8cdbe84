"""From settings to the parts of a training: networks, optimizers, losses, rates."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import tensorflow as tf

from finetune.depth.cyclegan import CycleNetworks, CycleState, CycleStep, ImagePool, l1, l2
from finetune.depth.networks import (
    autoencoder,
    encoder_unet,
    gray_encoder,
    patch_discriminator,
    resnet_generator,
    unet,
)
from finetune.depth.settings import AUTOENCODER, CYCLEGAN, DepthConfig
from simclr_tf.losses.weight_decay import WeightDecay
from simclr_tf.methods.base import StepOutputs
from simclr_tf.training import distribution
from simclr_tf.training.step import TrainStep

Loss = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


class DepthRegression:
    """The `Method` of autoencoder and U-Net.

    Args:
        network: Images [b, H, W, 1] in [0, 1] -> normalised depth, likewise.
        loss: Scalar of predicted and true depth.
    """

    def __init__(self, network: keras.Model, loss: Loss) -> None:
        self._network, self._loss = network, loss

    def __call__(self, images: tf.Tensor, labels: tf.Tensor) -> StepOutputs:
        """The loss of pairs [1, b, H, W, 2]: image, then normalised depth; labels do not count."""
        image, depth = images[0, ..., :1], images[0, ..., 1:]
        loss = self._loss(self._network(image, training=True), depth)
        return StepOutputs(loss, {"depth_loss": loss})


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


_BETA_1 = 0.5  # of a GAN's Adam (Zhu et al. 2017)


@dataclass(frozen=True)
class Training:
    """The networks of a run and what trains them.

    Attributes:
        generator: From images to the goal.
        step: A training step.
        optimizer: Of the generators.
        networks: All by the name under which checkpoints know them.
        extra: Further variables of a checkpoint, by their keys.
        reverse: From the goal to images, if there is one.
    """

    generator: keras.Model
    step: TrainStep
    optimizer: keras.optimizers.Optimizer
    networks: dict[str, keras.Model]
    extra: dict[str, tf.Variable] = field(default_factory=dict)
    reverse: keras.Model | None = None

    def checkpoint_variables(self) -> dict[str, tf.Variable]:
        """Everything but the optimizer by its key in a checkpoint."""
        named = {
            f"{name}/{i}": variable.value
            for name, network in self.networks.items()
            for i, variable in enumerate(network.variables)
        }
        return {**named, **self.extra}


def images_per_step(config: DepthConfig) -> int:
    """Images that a step sees: a batch for each update of the discriminators."""
    updates = config.gan.critic_updates if config.network.model == CYCLEGAN else 1
    return config.train.train_batch_size * updates


def build_generator(config: DepthConfig, size: tuple[int, int]) -> keras.Model:
    """The network from images to the goal, with fresh weights in the current precision.

    Args:
        config: Which network.
        size: Height and width.
    """
    network = config.network
    widths = network.widths()
    if network.model == AUTOENCODER:
        return autoencoder(size, widths, network.bottleneck)
    if network.model == CYCLEGAN:
        return resnet_generator(size, widths, network.residual_blocks)
    if network.encoder:
        encoder = gray_encoder(network.encoder)
        return encoder_unet(size, encoder, widths, frozen=network.freeze_encoder)
    return unet(size, widths)


def build_training(
    config: DepthConfig,
    size: tuple[int, int],
    devices: distribution.Devices,
    precision: str,
    total_steps: int,
) -> Training:
    """The networks of a run, under its strategy, in its precision, from its seed.

    Args:
        config: All settings.
        size: Height and width of images.
        devices: The devices of the run.
        precision: Keras dtype policy.
        total_steps: Of the whole run, which the learning rates go by.
    """
    keras.utils.set_random_seed(config.machine.seed)
    keras.config.set_dtype_policy(precision)
    try:
        with devices.strategy.scope():
            build = _cycle if config.network.model == CYCLEGAN else _regression
            return build(config, size, devices, total_steps)
    finally:
        keras.config.set_dtype_policy("float32")


def _regression(
    config: DepthConfig, size: tuple[int, int], devices: distribution.Devices, steps: int
) -> Training:
    network = build_generator(config, size)
    optimizer = _adam(config.learning_rate, config, steps, network.trainable_variables)
    step = TrainStep(
        network,
        DepthRegression(network, {"l1": l1, "l2": l2}[config.optimizer.regression_loss]),
        optimizer,
        WeightDecay([], 0.0),
        None,
        devices,
        distribution.choose_jit(config.machine.jit_compile, devices),
    )
    return Training(network, step, optimizer, {"generator": network})


def _cycle(
    config: DepthConfig, size: tuple[int, int], devices: distribution.Devices, steps: int
) -> Training:
    judges = config.network.discriminator_widths()
    networks = CycleNetworks(
        to_b=build_generator(config, size),
        to_a=build_generator(config, size),
        judge_a=patch_discriminator(size, judges),
        judge_b=patch_discriminator(size, judges),
    )
    seed, gan = config.machine.seed, config.gan
    critic_rate = gan.discriminator_learning_rate or config.learning_rate
    generators = _adam(
        config.learning_rate, config, steps, networks.generator_variables, beta_1=_BETA_1
    )
    discriminators = _adam(
        critic_rate,
        config,
        steps * gan.critic_updates,
        networks.discriminator_variables,
        beta_1=_BETA_1,
    )
    state = CycleState(
        generators,
        discriminators,
        ImagePool(gan.pool_size, (*size, 1), seed),
        ImagePool(gan.pool_size, (*size, 1), seed),
    )
    named = {
        "generator": networks.to_b,
        "reverse": networks.to_a,
        "discriminator_a": networks.judge_a,
        "discriminator_b": networks.judge_b,
    }
    step = CycleStep(networks, state, gan, devices, seed)
    extra = state.checkpoint_variables()
    return Training(networks.to_b, step, generators, named, extra, networks.to_a)


def _adam(
    rate: float,
    config: DepthConfig,
    updates: int,
    variables: list[keras.Variable],
    beta_1: float = 0.9,
) -> keras.optimizers.Optimizer:
    schedule = constant_then_linear(rate, config.optimizer.decay_start, updates)
    optimizer = keras.optimizers.Adam(schedule, beta_1=beta_1)
    optimizer.build(variables)
    return optimizer
