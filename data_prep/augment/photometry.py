"""Colour and blur of views, from numbers drawn before: deterministic, and batched.

Every view has its own order of the four jitter operations, so a batch cannot simply run them one
after the other. Accelerators compute all four at each step and select. On a CPU, where that would
be four times the work, XLA compiles the recipe of one view, branches included, and the batch is a
loop over it: five times as fast as the same loop without XLA, whose operations each pass over
memory, for a second of compilation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import tensorflow as tf

from data_prep.augment import color
from data_prep.augment.config import ViewConfig
from data_prep.augment.draws import Draw

_PLANAR = -3  # channel axis: [..., C, H, W]


def photometry(views: tf.Tensor, draws: tf.Tensor, config: ViewConfig) -> tf.Tensor:
    """Jitter, grey, blur and solarizing of views, after Chen et al. 2020, appendix A.

    Args:
        views: [N, S, S, C], uint8 or float32 in [0, 1] (with the overshoot of bicubic resizing).
        draws: [N, len(Draw)] float32.
        config: The recipe.

    Returns:
        [N, S, S, C] float32 in [0, 1].
    """
    if not (config.jitter or config.gray or config.blur_kernel_size or config.solarize):
        return tf.clip_by_value(to_float(views), 0.0, 1.0)
    if has_accelerator():
        return all_at_once(views, draws, config)
    return _compiled(config)(views, draws)


def has_accelerator() -> bool:
    """Whether TensorFlow sees a GPU or TPU."""
    return any(tf.config.list_logical_devices(kind) for kind in ("GPU", "TPU"))


def to_float(views: tf.Tensor) -> tf.Tensor:
    """Views as float32 in [0, 1]."""
    if views.dtype == tf.uint8:
        return tf.cast(views, tf.float32) * (1 / 255)
    return views


def all_at_once(views: tf.Tensor, draws: tf.Tensor, config: ViewConfig) -> tf.Tensor:
    """The photometry of a batch by computing all and selecting."""
    images = to_float(tf.transpose(views, [0, 3, 1, 2]))
    column = tf.unstack(draws, axis=1)

    def chosen(flag: tf.Tensor, yes: tf.Tensor, no: tf.Tensor) -> tf.Tensor:
        return tf.where(flag[:, None, None, None], yes, no)

    if config.jitter:
        for slot in (Draw.SLOT_0, Draw.SLOT_1, Draw.SLOT_2, Draw.SLOT_3):
            before = images
            for number in range(4):
                flag = (column[Draw.JITTER] > 0) & tf.equal(column[slot], number)
                images = chosen(flag, jitter(before, number, draws, config), images)
    if config.gray:
        images = chosen(column[Draw.GRAY] > 0, color.grayscale(images, axis=_PLANAR), images)
    images = _clip(images)
    if config.blur_kernel_size:
        blurred = color.gaussian_blur(
            images, column[Draw.SIGMA], config.blur_kernel_size, axis=_PLANAR
        )
        images = chosen(column[Draw.BLUR] > 0, _clip(blurred), images)
    if config.solarize:
        images = chosen(column[Draw.SOLARIZE] > 0, color.solarize(images), images)
    return tf.transpose(images, [0, 2, 3, 1])


def one_by_one(views: tf.Tensor, draws: tf.Tensor, config: ViewConfig) -> tf.Tensor:
    """The photometry of a batch as a loop over its views, each taking only its own branches."""
    return tf.map_fn(
        lambda row: _one(row[0], row[1], config),
        (views, draws),
        fn_output_signature=tf.TensorSpec(views.shape[1:], tf.float32),
    )


def _one(view: tf.Tensor, draws: tf.Tensor, config: ViewConfig) -> tf.Tensor:
    image = to_float(tf.transpose(view, [2, 0, 1]))
    if config.jitter:
        order = tf.cast(draws[Draw.SLOT_0 : Draw.SLOT_3 + 1], tf.int32)
        steps = tf.where(draws[Draw.JITTER] > 0, 4, 0)

        def step(slot: tf.Tensor, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            branches = [_branch(image, number, draws, config) for number in range(4)]
            return slot + 1, tf.switch_case(order[slot], branches)

        _, image = tf.while_loop(lambda slot, _: slot < steps, step, [0, image])
    if config.gray:
        image = tf.cond(
            draws[Draw.GRAY] > 0, lambda: color.grayscale(image, axis=_PLANAR), _same(image)
        )
    image = _clip(image)
    if config.blur_kernel_size:
        # Two branches, not one: XLA would fuse both sums and compute the first anew for each
        # term of the second.
        for axis in (1, 2):
            image = tf.cond(
                draws[Draw.BLUR] > 0, _blur_branch(image, axis, draws, config), _same(image)
            )
        image = _clip(image)
    if config.solarize:
        image = tf.cond(draws[Draw.SOLARIZE] > 0, lambda: color.solarize(image), _same(image))
    return tf.transpose(image, [1, 2, 0])


def jitter(images: tf.Tensor, number: int, draws: tf.Tensor, config: ViewConfig) -> tf.Tensor:
    """One of the four jitter operations, clipped to [0, 1].

    Args:
        images: [..., C, H, W] float32.
        number: 0 brightness, 1 contrast, 2 saturation, 3 hue.
        draws: [..., len(Draw)].
        config: The recipe; saturation and hue leave images that are not RGB alone.
    """
    if number == 0:
        change = color.brightness_v2 if config.jitter_impl == "simclrv2" else color.brightness_v1
        return _clip(change(images, draws[..., Draw.BRIGHTNESS]))
    if number == 1:
        return _clip(color.contrast(images, draws[..., Draw.CONTRAST], axis=_PLANAR))
    if config.channels != 3:
        return images
    if number == 2:
        return _clip(color.saturation(images, draws[..., Draw.SATURATION], axis=_PLANAR))
    return _clip(color.hue(images, draws[..., Draw.HUE], axis=_PLANAR))


def _branch(
    image: tf.Tensor, number: int, draws: tf.Tensor, config: ViewConfig
) -> Callable[[], tf.Tensor]:
    return lambda: jitter(image, number, draws, config)


def _blur_branch(
    image: tf.Tensor, axis: int, draws: tf.Tensor, config: ViewConfig
) -> Callable[[], tf.Tensor]:
    return lambda: color.gaussian_blur_along(
        image, draws[Draw.SIGMA], config.blur_kernel_size, axis
    )


def _same(image: tf.Tensor) -> Callable[[], tf.Tensor]:
    return lambda: image


def _clip(images: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(images, 0.0, 1.0)


@cache
def _compiled(config: ViewConfig) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    return tf.function(
        lambda views, draws: one_by_one(views, draws, config), jit_compile=True, autograph=False
    )
