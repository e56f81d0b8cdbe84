"""The losses of depth networks and CycleGANs: pure functions of float32 tensors."""

from collections.abc import Callable

import tensorflow as tf

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
