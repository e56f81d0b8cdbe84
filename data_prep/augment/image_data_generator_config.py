"""The arguments of Keras' ImageDataGenerator, checked; and the two recipes of the STEM lattices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from data_prep.augment.config import pair
from data_prep.errors import UserError

FillMode = Literal["nearest", "reflect", "wrap", "constant"]
FILL_MODES: tuple[str, ...] = get_args(FillMode)

Shift = float | int | tuple[float, ...]


@dataclass(frozen=True)
class SupervisedConfig:
    """Arguments of `ImageDataGenerator`, under its names and with its defaults: all off.

    Attributes:
        rotation_range: Turn by up to this many degrees either way, 0 to 180.
        width_shift_range: Shift sideways. A fraction below 1: up to this share of the width either
            way; a number from 1: up to so many pixels; a whole number n: whole pixels below n;
            several numbers: one of them, as pixels or (all below 1) shares, either way.
        height_shift_range: The same up and down.
        brightness_range: Least and greatest factor of the brightness.
        shear_range: Shear by up to this many degrees either way.
        zoom_range: Least and greatest zoom, of width and height each on its own; one number z
            stands for 1 - z, 1 + z. Above 1 the picture shrinks.
        channel_shift_range: Add up to this many of 255 levels, either way, to all channels.
        fill_mode: What lies beyond the image: nearest, reflect, wrap, constant.
        cval: The value for constant, of 255 levels.
        horizontal_flip: Mirror left to right with probability 0.5.
        vertical_flip: Mirror top to bottom with probability 0.5.
        rescale: Factor on all values after the augmentation.
        samplewise_center: Subtract each image's mean.
        samplewise_std_normalization: Divide by each image's deviation; centres too.
        featurewise_center: Subtract the training images' mean of each channel.
        featurewise_std_normalization: Divide by their deviation; centres too.
    """

    rotation_range: float = 0.0
    width_shift_range: Shift = 0.0
    height_shift_range: Shift = 0.0
    brightness_range: tuple[float, float] | None = None
    shear_range: float = 0.0
    zoom_range: float | tuple[float, float] = 0.0
    channel_shift_range: float = 0.0
    fill_mode: FillMode = "nearest"
    cval: float = 0.0
    horizontal_flip: bool = False
    vertical_flip: bool = False
    rescale: float | None = None
    samplewise_center: bool = False
    samplewise_std_normalization: bool = False
    featurewise_center: bool = False
    featurewise_std_normalization: bool = False

    def __post_init__(self) -> None:
        for name in ("width_shift_range", "height_shift_range", "zoom_range", "brightness_range"):
            value = getattr(self, name)
            if isinstance(value, Sequence):
                object.__setattr__(self, name, tuple(value))
        for which in ("samplewise", "featurewise"):
            if getattr(self, f"{which}_std_normalization"):
                object.__setattr__(self, f"{which}_center", True)
        self.validate()

    def validate(self) -> None:
        """Raises UserError, in one line, for a value that makes no images."""
        for name, most in (("rotation_range", 180), ("shear_range", 89)):
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"{name} must lie in 0 to {most}, not {getattr(self, name):g}")
        if not 0 <= self.channel_shift_range <= 255:
            raise UserError(
                f"channel_shift_range must lie in 0 to 255, not {self.channel_shift_range:g}"
            )
        for name in ("width_shift_range", "height_shift_range"):
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not numbers or not all(0 <= n < math.inf for n in numbers):
                raise UserError(f"{name} must be numbers from 0, not {value}")
        low, high = pair("zoom_range", self.zoom)
        if not 0 < low <= high < math.inf:
            raise UserError(f"zoom_range must be 0 < least <= greatest, not {low:g},{high:g}")
        if self.brightness_range is not None:
            low, high = pair("brightness_range", self.brightness_range)
            if not 0 <= low <= high < math.inf or high == 0:
                raise UserError(
                    f"brightness_range must be 0 <= least <= greatest, not {low:g},{high:g}"
                )
        if self.fill_mode not in FILL_MODES:
            raise UserError(
                f"fill_mode must be one of {', '.join(FILL_MODES)}, not {self.fill_mode!r}"
            )

    @property
    def zoom(self) -> tuple[float, float]:
        """Least and greatest zoom."""
        if isinstance(self.zoom_range, tuple):
            return self.zoom_range  # its length is checked where it is used
        return 1 - self.zoom_range, 1 + self.zoom_range

    def for_scoring(self) -> SupervisedConfig:
        """The same standardization without any augmentation, for validation and test."""
        kept = {
            name: getattr(self, name)
            for name in (
                "rescale",
                "samplewise_center",
                "samplewise_std_normalization",
                "featurewise_center",
                "featurewise_std_normalization",
            )
        }
        return SupervisedConfig(**kept)

    def to_dict(self) -> dict[str, Any]:
        """All values, ready for JSON."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


GENERATOR_RECIPE = SupervisedConfig(rotation_range=30)
"""VGG16 with ImageDataGenerator on the STEM lattices: up to 30 degrees, edges drawn out."""

TURN_RECIPE = SupervisedConfig(rotation_range=36, fill_mode="reflect")
"""VGG16 and ResNet50 with tf.data: `keras.layers.RandomRotation(0.1)`, a tenth of a turn."""


def shift_candidates(value: Shift) -> tuple[float, ...] | None:
    """The shifts that are drawn from, each with either sign; None: any up to `value`."""
    if isinstance(value, tuple):
        return value
    return tuple(range(value)) if isinstance(value, int) else None
