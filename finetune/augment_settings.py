"""How training images are augmented: SimCLR's views, or the arguments of ImageDataGenerator."""

from dataclasses import dataclass
from typing import Any, Literal

from data_prep.augment.config import ViewConfig
from data_prep.augment.image_data_generator_config import SupervisedConfig
from data_prep.errors import UserError
from simclr_tf.config.sections import ViewSettings
from simclr_tf.config.settings import setting

_SHIFT = "--augment=generator: shift {} by up to this share (below 1) or so many pixels (from 1)."


@dataclass(frozen=True)
class AugmentSettings(ViewSettings):
    """Input and augmentation."""

    # As in pretraining, but for what a classifier's training usually leaves out.
    color_jitter_strength: float = setting(
        0.0, "--augment=views: strength of colour jitter.", low=0, high=1.25
    )
    use_blur: bool = setting(False, "--augment=views: Gaussian blur of half the images.")
    gray_probability: float = setting(
        0.0, "--augment=views: probability of dropping the colour.", low=0, high=1
    )
    augment: Literal["auto", "none", "views", "generator"] = setting(
        "auto",
        "views: crop, flips and what else SimCLR has; generator: what Keras' ImageDataGenerator "
        "has; none: training images are cropped as in evaluation. auto: none where no part of "
        "the encoder trains, else views.",
    )
    rotation_range: float = setting(
        0.0, "--augment=generator: turn by up to so many degrees.", low=0, high=180
    )
    width_shift_range: float = setting(0.0, _SHIFT.format("sideways"), low=0)
    height_shift_range: float = setting(0.0, _SHIFT.format("up and down"), low=0)
    brightness_range: str = setting("", "--augment=generator: LOW,HIGH, factor of the brightness.")
    shear_range: float = setting(
        0.0, "--augment=generator: shear by up to so many degrees.", low=0, high=89
    )
    zoom_range: str = setting("", "--augment=generator: LOW,HIGH, or Z for 1-Z,1+Z.")
    channel_shift_range: float = setting(
        0.0, "--augment=generator: add up to so many of 255 levels.", low=0, high=255
    )
    fill_mode: Literal["nearest", "reflect", "wrap", "constant"] = setting(
        "nearest", "--augment=generator: what lies beyond the image's edge."
    )
    cval: float = setting(0.0, "--augment=generator: the value there for constant, of 255.", low=0)

    def view_config(self, channels: int) -> ViewConfig:
        """The views of `--augment=views`; size and central crop count in any case."""
        return ViewConfig(
            image_size=self.image_size,
            channels=channels,
            num_views=1,
            random_crop=self.random_crop,
            crop_area=(self.min_crop_area, 1.0),
            crop_aspect=(self.min_crop_aspect, 1 / self.min_crop_aspect),
            horizontal_flip=self.horizontal_flip,
            vertical_flip=self.vertical_flip,
            right_angle_rotation=self.right_angle_rotation,
            rotation_degrees=self.rotation_degrees,
            central_crop=self.central_crop,
            whole_image=self.whole_image,
            color_jitter_strength=self.color_jitter_strength,
            jitter_impl=self.jitter_impl,
            gray_probability=self.gray_probability,
            blur=self.use_blur,
        )

    def generator(self) -> SupervisedConfig:
        """The augmentation of `--augment=generator`.

        Raises:
            UserError: A range that is none.
        """
        zoom: Any = _numbers("zoom_range", self.zoom_range) or (0.0,)
        return SupervisedConfig(
            rotation_range=self.rotation_range,
            width_shift_range=self.width_shift_range,
            height_shift_range=self.height_shift_range,
            brightness_range=_numbers("brightness_range", self.brightness_range) or None,  # type: ignore[arg-type]
            shear_range=self.shear_range,
            zoom_range=zoom if len(zoom) > 1 else zoom[0],
            channel_shift_range=self.channel_shift_range,
            fill_mode=self.fill_mode,
            cval=self.cval,
            horizontal_flip=self.horizontal_flip,
            vertical_flip=self.vertical_flip,
        )


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",")) if text else ()
    except ValueError:
        raise UserError(f"--{name}={text}: give numbers, such as 0.8,1.2") from None
