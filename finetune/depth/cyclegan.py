"""CycleGAN (Zhu et al. 2017): two generators and two discriminators, trained in one step.

"a" are the images that are translated, "b" those of the goal. With `guided_weight` above 0 the
images of a batch are pairs, and their translations are also compared pixel by pixel.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import keras
import tensorflow as tf

from finetune.depth.settings import WGAN_GP, CycleSettings
from simclr_tf.losses.replicas import gather_rows
from simclr_tf.losses.weight_decay import WeightDecay
from simclr_tf.methods.base import Extension, StepOutputs, assign_all
from simclr_tf.training.batches import Batch
from simclr_tf.training.distribution import Devices
from simclr_tf.training.step import TrainStep


def exchange(
    pool: tf.Tensor, count: tf.Tensor, images: tf.Tensor, swap: tf.Tensor, slot: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Puts images into a pool, one after the other, and takes as many out.

    While the pool is not full an image goes in and comes out as well. Then it goes in only if
    `swap` says so, and the one that was in its slot comes out instead; otherwise it comes out
    itself.

    Args:
        pool: Images [S, D].
        count: How many of them are filled, int32 scalar.
        images: The new ones, [n, D].
        swap: [n], bool.
        slot: [n], int32 in [0, S).

    Returns:
        What comes out, [n, D]; the pool and its count after that.
    """
    size = tf.shape(pool)[0]

    def one(
        i: tf.Tensor, pool: tf.Tensor, count: tf.Tensor, out: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray]:
        filling = count < size
        place = tf.where(filling, count, slot[i])
        goes_in = tf.logical_or(filling, swap[i])
        older = pool[tf.minimum(place, size - 1)]
        out = out.write(i, tf.where(tf.logical_and(goes_in, ~filling), older, images[i]))
        kept = tf.where(goes_in, images[i], older)
        pool = tf.tensor_scatter_nd_update(pool, [[place]], kept[tf.newaxis])
        return i + 1, pool, count + tf.cast(filling, tf.int32), out

    number = tf.shape(images)[0]
    out = tf.TensorArray(images.dtype, number, element_shape=images.shape[1:])
    _, pool, count, out = tf.while_loop(
        lambda i, *_: i < number, one, (tf.constant(0), pool, count, out)
    )
    return out.stack(), pool, count


class ImagePool:
    """A pool that all replicas keep alike; create it in the strategy's scope.

    Args:
        size: Images in it; 0 = none, so that images come out as they go in.
        image_shape: [H, W, C].
        seed: Of the draws, which also depend on the count of updates.
    """

    def __init__(self, size: int, image_shape: Sequence[int], seed: int) -> None:
        self._size, self._shape, self._seed = size, tuple(image_shape), seed
        pixels = self._shape[0] * self._shape[1] * self._shape[2]
        self.images = self._state((max(size, 1), pixels), "float32", "images")
        self.count = self._state((), "int32", "count")

    def _state(self, shape: tuple[int, ...], dtype: str, name: str) -> keras.Variable:
        return keras.Variable(
            "zeros", shape=shape, dtype=dtype, trainable=False, autocast=False, name=name
        )

    @property
    def state(self) -> dict[str, keras.Variable]:
        """The variables to keep in a checkpoint."""
        return {"images": self.images, "count": self.count}

    def query(self, images: tf.Tensor, update: tf.Tensor) -> tf.Tensor:
        """Takes new images in and returns those to show a discriminator; call it in every replica.

        Args:
            images: Just made, [b, H, W, C] of this replica.
            update: Number of the update, int64 scalar: another one, other draws.

        Returns:
            [b, H, W, C].
        """
        if not self._size:
            return images
        batch = images.shape[0]
        rows, first = gather_rows(tf.reshape(images, [batch, -1]))
        number = rows.shape[0]
        seed = tf.stack([tf.constant(self._seed, tf.int64), tf.cast(update, tf.int64)])
        draws = tf.random.stateless_uniform([2, number], seed)
        slot = tf.minimum(tf.cast(draws[1] * self._size, tf.int32), self._size - 1)
        shown, pool, count = exchange(
            tf.convert_to_tensor(self.images), tf.convert_to_tensor(self.count), rows,
            draws[0] < 0.5, slot,
        )  # fmt: skip
        assign_all([self.images, self.count], [pool, count])
        return tf.reshape(shown[first : first + batch], [batch, *self._shape])


Critic = Callable[[tf.Tensor], tf.Tensor]

_TINY = 1e-12  # under the root of a norm, whose gradient is infinite at 0


def l1(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Mean absolute difference over everything; scalar."""
    return tf.reduce_mean(tf.abs(one - other))


def l2(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Mean squared difference over everything; scalar."""
    return tf.reduce_mean(tf.square(one - other))


def lsgan_discriminator(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """Least squares (Mao et al. 2017, equation 9): real patches are to score 1, made ones 0.

    Args:
        real: Scores of real images, any shape.
        fake: Scores of made images.

    Returns:
        Half the sum of both means; scalar.
    """
    return 0.5 * (tf.reduce_mean(tf.square(real - 1)) + tf.reduce_mean(tf.square(fake)))


def lsgan_generator(fake: tf.Tensor) -> tf.Tensor:
    """Least squares: made images are to score 1; scalar."""
    return tf.reduce_mean(tf.square(fake - 1))


def wgan_critic(real: tf.Tensor, fake: tf.Tensor) -> tf.Tensor:
    """Wasserstein (Arjovsky et al. 2017): made images are to score less than real ones; scalar."""
    return tf.reduce_mean(fake) - tf.reduce_mean(real)


def wgan_generator(fake: tf.Tensor) -> tf.Tensor:
    """Wasserstein: made images are to score high; scalar."""
    return -tf.reduce_mean(fake)


def gradient_penalty(
    critic: Critic, real: tf.Tensor, fake: tf.Tensor, share: tf.Tensor
) -> tf.Tensor:
    """Mean of (|gradient| - 1)^2 between real and made images (Gulrajani et al. 2017, section 4).

    The gradient is that of an image's score, the mean of its patches' scores, by its pixels.

    Args:
        critic: Scores [b, h, w, 1] of images.
        real: Images [b, H, W, C].
        fake: Made images [b, H, W, C].
        share: Of the real image in the one between, [b] in [0, 1].
    """
    share = share[:, tf.newaxis, tf.newaxis, tf.newaxis]
    between = share * real + (1 - share) * fake
    with tf.GradientTape() as tape:
        tape.watch(between)
        scores = tf.reduce_sum(tf.reduce_mean(critic(between), [1, 2, 3]))
    gradients = tape.gradient(scores, between)
    norms = tf.sqrt(tf.reduce_sum(tf.square(gradients), [1, 2, 3]) + _TINY)
    return tf.reduce_mean(tf.square(norms - 1))


Scalars = dict[str, tf.Tensor]

_SHARES = 0x5EED  # the draws of the gradient penalty


@dataclass(frozen=True)
class CycleNetworks:
    """The four networks.

    Attributes:
        to_b: Generator from a to b.
        to_a: Generator from b to a.
        judge_a: Discriminator of images of a.
        judge_b: Discriminator of images of b.
    """

    to_b: keras.Model
    to_a: keras.Model
    judge_a: keras.Model
    judge_b: keras.Model

    @property
    def generator_variables(self) -> list[keras.Variable]:
        """The variables that the generators' optimizer updates."""
        return [*self.to_b.trainable_variables, *self.to_a.trainable_variables]

    @property
    def discriminator_variables(self) -> list[keras.Variable]:
        """The variables that the discriminators' optimizer updates."""
        return [*self.judge_a.trainable_variables, *self.judge_b.trainable_variables]


@dataclass(frozen=True)
class CycleState:
    """Optimizers and image pools of a training; create it in the strategy's scope.

    Attributes:
        generators: Optimizer, built.
        discriminators: Optimizer, built.
        pool_a: Translations to a that discriminators are shown.
        pool_b: Translations to b.
    """

    generators: keras.optimizers.Optimizer
    discriminators: keras.optimizers.Optimizer
    pool_a: ImagePool
    pool_b: ImagePool

    def checkpoint_variables(self) -> dict[str, tf.Variable]:
        """Variables to add to a checkpoint: the discriminators' optimizer and the pools."""
        slots = {f"critic/{i}": v.value for i, v in enumerate(self.discriminators.variables)}
        pools: Mapping[str, ImagePool] = {"pool_a": self.pool_a, "pool_b": self.pool_b}
        return slots | {
            f"{name}/{key}": variable.value
            for name, pool in pools.items()
            for key, variable in pool.state.items()
        }


class CycleLosses(Extension):
    """The `Method` of the generators; that from b to a trains along with the other.

    Args:
        networks: Built.
        settings: Weights and kinds of losses.
    """

    def __init__(self, networks: CycleNetworks, settings: CycleSettings) -> None:
        self._networks, self._settings = networks, settings

    @property
    def layers(self) -> Sequence[keras.layers.Layer]:
        """The generator from b to a."""
        return (self._networks.to_a,)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor) -> StepOutputs:
        """The losses of pairs [1, n, H, W, 2]; labels do not count."""
        losses = self.generator_losses(images[0, ..., :1], images[0, ..., 1:])
        return StepOutputs(tf.add_n(list(losses.values())), losses)

    def generator_losses(self, a: tf.Tensor, b: tf.Tensor) -> Scalars:
        """The losses of both generators, times their weights, on one replica.

        Args:
            a: Images [n, H, W, 1].
            b: Those of the goal; of `a` itself, row by row, if the loss is guided.
        """
        networks, s = self._networks, self._settings
        adversarial = wgan_generator if s.gan_loss == WGAN_GP else lsgan_generator
        if s.identity_weight:
            made_b, same_b = _both(networks.to_b, a, b)
            made_a, same_a = _both(networks.to_a, b, a)
        else:
            made_b, made_a = networks.to_b(a, training=True), networks.to_a(b, training=True)
        losses = {
            "adversarial": adversarial(networks.judge_b(made_b, training=True))
            + adversarial(networks.judge_a(made_a, training=True))
        }
        if s.cycle_weight:
            back_a = networks.to_a(made_b, training=True)
            back_b = networks.to_b(made_a, training=True)
            losses["cycle"] = s.cycle_weight * (l1(back_a, a) + l1(back_b, b))
        if s.identity_weight:
            losses["identity"] = s.identity_weight * (l1(same_b, b) + l1(same_a, a))
        if s.guided_weight:
            losses["guided"] = s.guided_weight * (l1(made_b, b) + l1(made_a, a))
        return losses


class CycleStep(TrainStep):
    """Updates of the discriminators, each on other images, then one update of the generators.

    A batch holds [k * b, H, W, 2] pairs for k updates of the discriminators; rows j, j + k, ... are
    those of update j, and the generators learn from the last ones. Losses are means over the images
    of all replicas.

    Args:
        networks: Built.
        state: Optimizers and pools.
        settings: Weights and kinds of losses.
        devices: The devices of the run.
        seed: The run's.
    """

    def __init__(
        self,
        networks: CycleNetworks,
        state: CycleState,
        settings: CycleSettings,
        devices: Devices,
        seed: int,
    ) -> None:
        self.generator_method = CycleLosses(networks, settings)
        super().__init__(
            networks.to_b,
            self.generator_method,
            state.generators,
            WeightDecay([], 0.0),
            None,
            devices,
        )
        self._networks, self._state = networks, state
        self._settings, self._seed, self._replicas = settings, seed, devices.num_replicas

    def _from_batch(self, batch: Batch) -> Scalars:
        updates, networks = self._settings.critic_updates, self._networks
        pairs = batch["image"]
        a, b = pairs[..., :1], pairs[..., 1:]
        # The generators stay as they are while the discriminators learn.
        made_a, made_b = networks.to_a(b, training=True), networks.to_b(a, training=True)
        every = tf.concat([a, b, made_a, made_b], -1)
        parts = tf.reshape(every, [-1, updates, *every.shape[1:]])
        for number in range(updates):
            part = tf.split(parts[:, number], 4, -1)
            judged = self._update_discriminators(*part)
        pair = tf.concat(part[:2], -1)
        return {**judged, **self.replica_step(pair[tf.newaxis], batch["label"])}

    def _update_discriminators(
        self, a: tf.Tensor, b: tf.Tensor, made_a: tf.Tensor, made_b: tf.Tensor
    ) -> Scalars:
        networks, optimizer = self._networks, self._state.discriminators
        update = tf.cast(optimizer.iterations, tf.int64)
        made_a = self._state.pool_a.query(made_a, 2 * update)
        made_b = self._state.pool_b.query(made_b, 2 * update + 1)
        variables = networks.discriminator_variables
        with tf.GradientTape() as tape:
            losses = self.discriminator_losses(a, b, made_a, made_b, update)
            total = tf.add_n(list(losses.values()))
            scaled = total / self._replicas
        rate = tf.convert_to_tensor(optimizer.learning_rate)
        optimizer.apply(tape.gradient(scaled, [v.value for v in variables]), variables)
        return {"discriminator_loss": total, "discriminator_rate": rate, **losses}

    def discriminator_losses(
        self, a: tf.Tensor, b: tf.Tensor, made_a: tf.Tensor, made_b: tf.Tensor, update: tf.Tensor
    ) -> Scalars:
        """The losses of both discriminators on one replica.

        Args:
            a: Images [n, H, W, 1].
            b: Those of the goal.
            made_a: Translations to a.
            made_b: Translations to b.
            update: Number of the update, which the draws of the gradient penalty depend on.
        """
        networks, s = self._networks, self._settings
        loss = wgan_critic if s.gan_loss == WGAN_GP else lsgan_discriminator
        losses: Scalars = {}
        sides = {"a": (networks.judge_a, a, made_a), "b": (networks.judge_b, b, made_b)}
        for place, (name, (judge, real, made)) in enumerate(sides.items()):
            losses[f"discriminator_{name}"] = loss(*_both(judge, real, made))
            if s.gan_loss == WGAN_GP:
                share = self._shares(real.shape[0], 2 * update + place)
                critic = partial(judge, training=True)
                penalty = gradient_penalty(critic, real, made, share)
                losses[f"penalty_{name}"] = s.gradient_penalty * penalty
        return losses

    def _shares(self, batch: int, number: tf.Tensor) -> tf.Tensor:
        """This replica's rows of uniform draws for the whole batch."""
        context = tf.distribute.get_replica_context()
        replicas = self._replicas
        own = context.replica_id_in_sync_group if replicas > 1 else 0
        seed = tf.stack([tf.constant(self._seed ^ _SHARES, tf.int64), number])
        draws = tf.random.stateless_uniform([replicas, batch], seed)
        return draws[own]


def _both(network: keras.Model, one: tf.Tensor, other: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Applies a network to two batches in one pass, as no layer mixes images."""
    first, second = tf.split(network(tf.concat([one, other], 0), training=True), 2)
    return first, second
