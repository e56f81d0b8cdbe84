"""Photometric operations of SimCLR's recipe, as pure functions of images and drawn numbers.

Images are float32 [..., H, W, C] in [0, 1]; with `axis=-3` they are [..., C, H, W], which is the
faster layout. Factors are scalars or have the images' leading shape [...]: one number an image.
Nothing is clipped unless said so: the recipe clips (Chen et al. 2020, appendix A).

Saturation and hue are those of `tf.image`, written as arithmetic on
value = max(R, G, B) and chroma = max - min instead of a detour through HSV, so that each image of
a batch can have its own number.

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

from data_prep.augment.config import ViewConfig
from data_prep.augment.draws import Draw

GRAY_WEIGHTS = (0.2989, 0.5870, 0.1140)  # ITU-R BT.601 luma, as in tf.image.rgb_to_grayscale
MAX_HUE_SHIFT = 1 / 3
_SPATIAL_AXES = {-1: (-3, -2), -3: (-2, -1)}


def brightness_v2(images: tf.Tensor, factor: tf.Tensor | float) -> tf.Tensor:
    """Multiplies the images by `factor` (SimCLRv2's brightness)."""
    return images * _per_image(factor)


def brightness_v1(images: tf.Tensor, delta: tf.Tensor | float) -> tf.Tensor:
    """Adds `delta` to the images (SimCLRv1's brightness)."""
    return images + _per_image(delta)


def contrast(images: tf.Tensor, factor: tf.Tensor | float, axis: int = -1) -> tf.Tensor:
    """Scales the distance of every pixel from its channel's mean over the image by `factor`."""
    mean = tf.reduce_mean(images, _SPATIAL_AXES[axis], keepdims=True)
    return (images - mean) * _per_image(factor) + mean


def saturation(images: tf.Tensor, factor: tf.Tensor | float, axis: int = -1) -> tf.Tensor:
    """Scales the saturation of RGB images by `factor` >= 0; a saturation above 1 becomes 1."""
    value, chroma = _value_and_chroma(tf.unstack(images, axis=axis))
    factor = tf.convert_to_tensor(factor)[..., None, None]
    # Saturation is chroma / value, and grey pixels (chroma 0) stay as they are.
    scale = tf.minimum(factor, tf.math.divide_no_nan(tf.nn.relu(value), chroma))
    scale = tf.where(chroma > 0, scale, 1.0)
    value = tf.expand_dims(value, axis)
    return value - (value - images) * tf.expand_dims(scale, axis)


def hue(images: tf.Tensor, delta: tf.Tensor | float, axis: int = -1) -> tf.Tensor:
    """Turns the hue of RGB images by `delta` of a full turn, |delta| <= MAX_HUE_SHIFT."""
    red, green, blue = tf.unstack(images, axis=axis)
    value, chroma = _value_and_chroma([red, green, blue])
    least = value - chroma
    # chroma * hue, hue in sixths of a turn from red: green at 2, blue at 4.
    turned = tf.where(
        tf.equal(value, red),
        green - blue,
        tf.where(tf.equal(value, green), blue - red + 2 * chroma, red - green + 4 * chroma),
    ) + chroma * (6 * tf.convert_to_tensor(delta)[..., None, None])

    def channel(center: float) -> tf.Tensor:
        # Full within a sixth of a turn of its own hue, none beyond two sixths, linear between;
        # the second term is the same ramp seen the other way round the circle.
        distance = tf.abs(turned - center * chroma)
        ramp = tf.maximum(2 * chroma - distance, distance - 4 * chroma)
        return least + tf.minimum(tf.nn.relu(ramp), chroma)

    return tf.stack([channel(0.0), channel(2.0), channel(4.0)], axis=axis)


def grayscale(images: tf.Tensor, keep_channels: bool = True, axis: int = -1) -> tf.Tensor:
    """Luma of RGB images, on all three channels or, with `keep_channels` off, on one."""
    channels = tf.unstack(images, axis=axis)
    gray = tf.add_n([c * w for c, w in zip(channels, GRAY_WEIGHTS, strict=True)])
    return tf.stack([gray] * (3 if keep_channels else 1), axis=axis)


def solarize(images: tf.Tensor, threshold: float = 0.5) -> tf.Tensor:
    """Inverts what is at or above the threshold (Grill et al. 2020, appendix B)."""
    return tf.where(images < threshold, images, 1 - images)


def blur_radius(kernel_size: int) -> int:
    """Taps on either side of the centre: a kernel of 22 has 23 taps, one below 2 does nothing."""
    return kernel_size // 2


def gaussian_kernel(sigma: tf.Tensor | float, radius: int) -> tf.Tensor:
    """Gaussian at -radius..radius, sum 1; shape [..., 2 * radius + 1] for sigma of shape [...]."""
    offset = tf.range(-radius, radius + 1, dtype=tf.float32)
    sigma = tf.convert_to_tensor(sigma, tf.float32)[..., None]
    kernel = tf.exp(-tf.square(offset) / (2.0 * tf.square(sigma)))
    return kernel / tf.reduce_sum(kernel, -1, keepdims=True)


def gaussian_blur(
    images: tf.Tensor, sigma: tf.Tensor | float, kernel_size: int, axis: int = -1
) -> tf.Tensor:
    """Separable Gaussian blur, zero beyond the edges (as a SAME convolution).

    Written as two products with a band matrix: each image may have its own sigma, which a
    convolution cannot, and accelerators multiply matrices fastest. (GPUs that do so in
    TensorFloat-32 are off by up to a quarter of an 8-bit level.)
    """
    radius = blur_radius(kernel_size)
    if radius == 0:
        return images
    if axis == -1:
        images = tf.transpose(images, _last_to_front(images.shape.rank))
    height, width = images.shape[-2:]
    kernel = gaussian_kernel(sigma, radius)[..., None, :]
    images = tf.matmul(_band_matrix(kernel, height, radius), images)
    images = tf.matmul(images, _band_matrix(kernel, width, radius))
    if axis == -1:
        images = tf.transpose(images, _front_to_last(images.shape.rank))
    return images


def gaussian_blur_along(
    image: tf.Tensor, sigma: tf.Tensor, kernel_size: int, axis: int
) -> tf.Tensor:
    """Half of `gaussian_blur`: along one axis of a [C, H, W] image, as a sum of shifted images.

    XLA fuses the sum into one loop over the image, several times faster on a CPU than a band
    matrix or a convolution. (Zeros are joined on, not padded: XLA would pad again in every term.)
    """
    radius = blur_radius(kernel_size)
    if radius == 0:
        return image
    edge_shape = image.shape.as_list()
    edge_shape[axis] = radius
    edge = tf.zeros(edge_shape)
    padded = tf.concat([edge, image, edge], axis)
    begin, terms = [0, 0, 0], []
    for shift, tap in enumerate(tf.unstack(gaussian_kernel(sigma, radius))):
        begin[axis] = shift
        terms.append(tf.slice(padded, begin, image.shape) * tap)
    return tf.add_n(terms)


def _band_matrix(kernel: tf.Tensor, size: int, radius: int) -> tf.Tensor:
    """Symmetric [..., size, size] matrix with kernel[..., radius + j - i] at (i, j)."""
    index = tf.range(size)
    offset = index[None, :] - index[:, None]
    band = tf.gather(kernel, tf.clip_by_value(offset + radius, 0, 2 * radius), axis=-1)
    return tf.where(tf.abs(offset) <= radius, band, 0.0)


def _value_and_chroma(channels: list[tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    red, green, blue = channels
    value = tf.maximum(tf.maximum(red, green), blue)
    return value, value - tf.minimum(tf.minimum(red, green), blue)


def _per_image(factor: tf.Tensor | float) -> tf.Tensor:
    return tf.convert_to_tensor(factor)[..., None, None, None]


def _last_to_front(rank: int) -> list[int]:
    return [*range(rank - 3), rank - 1, rank - 3, rank - 2]


def _front_to_last(rank: int) -> list[int]:
    return [*range(rank - 3), rank - 2, rank - 1, rank - 3]


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
    """Returns True if TensorFlow sees a GPU or TPU."""
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
        images = chosen(column[Draw.GRAY] > 0, grayscale(images, axis=_PLANAR), images)
    images = _clip(images)
    if config.blur_kernel_size:
        blurred = gaussian_blur(images, column[Draw.SIGMA], config.blur_kernel_size, axis=_PLANAR)
        images = chosen(column[Draw.BLUR] > 0, _clip(blurred), images)
    if config.solarize:
        images = chosen(column[Draw.SOLARIZE] > 0, solarize(images), images)
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
        image = tf.cond(draws[Draw.GRAY] > 0, lambda: grayscale(image, axis=_PLANAR), _same(image))
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
        image = tf.cond(draws[Draw.SOLARIZE] > 0, lambda: solarize(image), _same(image))
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
        change = brightness_v2 if config.jitter_impl == "simclrv2" else brightness_v1
        return _clip(change(images, draws[..., Draw.BRIGHTNESS]))
    if number == 1:
        return _clip(contrast(images, draws[..., Draw.CONTRAST], axis=_PLANAR))
    if config.channels != 3:
        return images
    if number == 2:
        return _clip(saturation(images, draws[..., Draw.SATURATION], axis=_PLANAR))
    return _clip(hue(images, draws[..., Draw.HUE], axis=_PLANAR))


def _branch(
    image: tf.Tensor, number: int, draws: tf.Tensor, config: ViewConfig
) -> Callable[[], tf.Tensor]:
    return lambda: jitter(image, number, draws, config)


def _blur_branch(
    image: tf.Tensor, axis: int, draws: tf.Tensor, config: ViewConfig
) -> Callable[[], tf.Tensor]:
    return lambda: gaussian_blur_along(image, draws[Draw.SIGMA], config.blur_kernel_size, axis)


def _same(image: tf.Tensor) -> Callable[[], tf.Tensor]:
    return lambda: image


def _clip(images: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(images, 0.0, 1.0)


@cache
def _compiled(config: ViewConfig) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    return tf.function(
        lambda views, draws: one_by_one(views, draws, config), jit_compile=True, autograph=False
    )
