"""The operations that augmented copies on disk are made by, each with a name and explicit seeds.

Exact operations only move pixels: any type, any channels, bit for bit. Most others are layers of
Keras, each made anew with its own seed for one image, so that a copy depends on that seed alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_prep.errors import UserError

Range = tuple[float, float]

EXACT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "hflip": lambda pixels: pixels[:, ::-1],
    "vflip": lambda pixels: pixels[::-1],
    "rot90": lambda pixels: np.rot90(pixels, 1),
    "rot180": lambda pixels: np.rot90(pixels, 2),
    "rot270": lambda pixels: np.rot90(pixels, 3),
    "transpose": lambda pixels: pixels.swapaxes(0, 1),
}
"""Operations on [H, W, C] that leave every value as it is; turns are counter-clockwise."""


@dataclass(frozen=True)
class RandomOperation:
    """An operation with random numbers, on float32 [H, W, C] in units of the file.

    Attributes:
        meaning: A few words for help texts.
        apply: Pixels, seed, least and greatest value that may occur -> pixels.
        levels: Changes grey levels, so it must know which values are black and white.
        rgb: Only makes sense for RGB images.
        margin: Share of the sides that is mirrored around the image first and cut off after, where
            a layer would draw in black from beyond the edge.
    """

    meaning: str
    apply: Callable[[np.ndarray, int, Range], Any]
    levels: bool = False
    rgb: bool = False
    margin: float = 0.0


def _layer(name: str, *arguments: Any, ranged: bool = False, **options: Any) -> Callable[..., Any]:
    """A function that applies a layer of Keras."""

    def apply(pixels: np.ndarray, seed: int, value_range: Range) -> Any:
        import keras

        extra = {"value_range": value_range} if ranged else {}
        kind = getattr(keras.layers, name)
        return kind(*arguments, seed=seed, dtype="float32", **options, **extra)(
            pixels, training=True
        )

    return apply


def _affine(pixels: np.ndarray, seed: int, value_range: Range) -> Any:
    """All affine operations in one interpolation, which a chain of layers would repeat."""
    import tensorflow as tf

    from data_prep.augment.draws import example_seed
    from data_prep.augment.image_data_generator import SupervisedConfig, draw_parameters, transform

    del value_range
    config = SupervisedConfig(
        rotation_range=45,
        width_shift_range=0.0625,
        height_shift_range=0.0625,
        shear_range=10,
        zoom_range=0.2,
        fill_mode="reflect",
    )
    parameters = draw_parameters(example_seed(seed, 0, 0), pixels.shape[0], pixels.shape[1], config)
    return transform(tf.constant(pixels), parameters, config)


def _elastic(pixels: np.ndarray, seed: int, value_range: Range) -> Any:
    """Displaced by a smooth field through 5 x 5 random points.

    (`keras.layers.RandomElasticTransform` of Keras 3.15 moves all points along one diagonal, and
    so roughly that the picture folds over itself.)
    """
    import keras

    del value_range
    height, width, channels = pixels.shape
    field = 0.02 * min(height, width) * np.random.default_rng(seed).standard_normal((5, 5, 2))
    field = np.asarray(
        keras.ops.image.resize(field.astype(np.float32), (height, width), interpolation="bicubic")
    )
    positions = np.mgrid[:height, :width].astype(np.float32) + field.transpose(2, 0, 1)
    bands = [
        keras.ops.image.map_coordinates(pixels[..., band], positions, 1, fill_mode="reflect")
        for band in range(channels)
    ]
    return np.stack([np.asarray(band) for band in bands], axis=-1)


def _brightness(pixels: np.ndarray, seed: int, value_range: Range) -> Any:
    """Multiplies by a factor, as in SimCLRv2; adding a number would drown dark pictures."""
    del value_range
    return pixels * np.float32(np.random.default_rng(seed).uniform(0.7, 1.3))


def _noise(pixels: np.ndarray, seed: int, value_range: Range) -> Any:
    """Adds noise in proportion to the contrast, so that dark pictures are not drowned."""
    import keras

    del value_range
    spread = max(pixels.std(dtype=np.float64), 1e-6)  # the layer wants images of about this scale
    layer = keras.layers.GaussianNoise(0.15, seed=seed, dtype="float32")
    return layer(pixels / np.float32(spread), training=True) * np.float32(spread)


_ALWAYS = (1.0, 1.0)  # as the probability of layers that have one

RANDOM: dict[str, RandomOperation] = {
    "rotate": RandomOperation(
        "turned by any angle", _layer("RandomRotation", 0.5, fill_mode="reflect")
    ),
    "affine": RandomOperation(
        "turned by up to 45 degrees, shifted by 6 %, zoomed by 20 %, sheared by 10 degrees", _affine
    ),
    "perspective": RandomOperation(
        "corners moved by up to 10 %", _layer("RandomPerspective", _ALWAYS, 0.2), margin=0.2
    ),
    "elastic": RandomOperation("bent smoothly, by some 2 % of the side", _elastic),
    "brightness": RandomOperation("multiplied by 0.7 to 1.3", _brightness, levels=True),
    "contrast": RandomOperation(
        "distance from the mean changed by up to 30 %",
        _layer("RandomContrast", 0.3, ranged=True),
        levels=True,
    ),
    "hue": RandomOperation(
        "turned by up to 18 degrees",
        _layer("RandomHue", (0.0, 0.1), ranged=True),
        levels=True,
        rgb=True,
    ),
    "saturation": RandomOperation(
        "halved to doubled",
        _layer("RandomSaturation", (0.33, 0.67), ranged=True),
        levels=True,
        rgb=True,
    ),
    "blur": RandomOperation(
        "Gaussian, sigma 0.5 to 1.5 pixels",
        _layer("RandomGaussianBlur", _ALWAYS, 9, (0.5, 1.5), ranged=True),
        levels=True,
        margin=0.1,
    ),
    "sharpen": RandomOperation(
        "edges enhanced",
        _layer("RandomSharpness", (0.7, 1.0), ranged=True),
        levels=True,
        margin=0.1,
    ),
    "noise": RandomOperation("Gaussian, of 15 % of the contrast", _noise, levels=True),
    "erase": RandomOperation(
        "a box of 2 to 10 % of the image blackened",
        _layer("RandomErasing", _ALWAYS, (0.02, 0.1), fill_value=0, ranged=True),
        levels=True,
    ),
}

STRONGER = "stronger"
STRONGER_LIST: tuple[tuple[str, float], ...] = (
    ("hflip", 0.5),
    ("vflip", 0.5),
    ("rot90", 0.5),
    ("transpose", 0.5),
    ("affine", 0.75),
    ("perspective", 0.25),
    ("elastic", 0.25),
    ("brightness", 0.5),
    ("contrast", 0.5),
    ("hue", 0.5),
    ("saturation", 0.5),
    ("blur", 0.25),
    ("sharpen", 0.25),
    ("noise", 0.25),
    ("erase", 0.25),
)
"""Operations of `stronger`, in this order, each with its probability."""

OPERATIONS = (*EXACT, *RANDOM, STRONGER)


def is_exact(operation: str) -> bool:
    """Returns True if an operation only moves pixels, so that it can make just one copy."""
    return operation in EXACT


def check_operations(operations: tuple[str, ...]) -> None:
    """Raises UserError for unknown or repeated operations, or none."""
    unknown = [name for name in operations if name not in OPERATIONS]
    if unknown or not operations:
        what = f"no operation {unknown[0]!r}" if unknown else "no operation given"
        raise UserError(f"{what}; there are {', '.join(OPERATIONS)}")
    if len(set(operations)) < len(operations):
        raise UserError(f"an operation is named twice: {','.join(operations)}")


def apply_operation(
    pixels: np.ndarray, operation: str, generator: np.random.Generator
) -> np.ndarray:
    """Applies one operation to an image as it is stored.

    Args:
        pixels: [H, W, C] of any type; integers count over their full range, floating point
            numbers in [0, 1] for operations on grey levels.
        operation: One of `OPERATIONS`.
        generator: Source of all random numbers.

    Returns:
        [H', W', C] of the same type: bit for bit the same values after exact operations; else
        computed in float32, for integers rounded and clipped.

    Raises:
        UserError: The operation makes no sense of such pixels; a few words without a file name.
    """
    if operation == STRONGER:
        return _stronger(pixels, generator)
    if operation in EXACT:
        return np.ascontiguousarray(EXACT[operation](pixels))
    return _random(pixels, operation, int(generator.integers(2**31)))


def _stronger(pixels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Some operations of the list, one at least, those for RGB images only there."""
    fitting = [
        (name, probability)
        for name, probability in STRONGER_LIST
        if pixels.shape[-1] == 3 or not (name in RANDOM and RANDOM[name].rgb)
    ]
    happens = generator.random(len(fitting)) < [probability for _, probability in fitting]
    if not happens.any():
        happens[generator.integers(len(fitting))] = True
    for (name, _), chosen in zip(fitting, happens, strict=True):
        if chosen:
            pixels = apply_operation(pixels, name, generator)
    return pixels


def _random(pixels: np.ndarray, name: str, seed: int) -> np.ndarray:
    operation, kind = RANDOM[name], pixels.dtype
    if operation.rgb and pixels.shape[-1] != 3:
        raise UserError(f"{name} needs RGB images, not {pixels.shape[-1]} channels")
    value_range = _value_range(pixels, name, operation.levels)
    values = pixels.astype(np.float32)
    height, width = pixels.shape[:2]
    top, left = round(operation.margin * height), round(operation.margin * width)
    if operation.margin:
        values = np.pad(values, ((top, top), (left, left), (0, 0)), mode="symmetric")
    result = np.asarray(operation.apply(values, seed, value_range))
    result = result[top : top + height, left : left + width]
    if operation.levels or kind.kind == "u":
        result = np.clip(result, *value_range)
    return (np.rint(result) if kind.kind == "u" else result).astype(kind)


def _value_range(pixels: np.ndarray, name: str, levels: bool) -> Range:
    kind = pixels.dtype
    exact = ", ".join(EXACT)
    if kind in (np.uint8, np.uint16):
        return 0.0, float(np.iinfo(kind).max)
    if kind.kind != "f":
        raise UserError(f"{name} would not keep values of type {kind.name}; exact are only {exact}")
    if not np.isfinite(pixels).all():
        raise UserError(
            f"{name} would spread the values that are not finite (NaN or infinity); exact are"
            f" only {exact}"
        )
    low, high = float(pixels.min()), float(pixels.max())
    if not levels:
        return low, high
    if low < 0 or high > 1:
        raise UserError(
            f"{name} changes grey levels, and floating point values from {low:.4g} to {high:.4g}"
            " do not say which is black and white; take operations that move pixels, such as"
            " hflip, rotate, affine"
        )
    return 0.0, 1.0
