"""The settings of views, every operation a switch and every range a number; views of papers.

A run of `simclr-run` has SimCLR's views whatever its method, unless flags say otherwise.
`PAPER_VIEWS` are the flags that give it the views of the method's paper (`--preset=moco_views`
and so on).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal

from data_prep.errors import UserError
from data_prep.settings import setting

JITTER_IMPLS = ("simclrv2", "simclrv1")
MIN_OBJECT_COVERED = (
    0.1  # of the full-image box: crops are never smaller, whatever `crop_area` says
)
DEFAULT_GRAY_PROBABILITY = 0.2
MAX_JITTER_STRENGTH = 1.25  # 1 - 0.8 * strength, the lowest contrast factor, must not be negative


@dataclass(frozen=True)
class ViewConfig:
    """Recipe of the training views of one image (SimCLR, Chen et al. 2020, appendix A).

    The defaults are SimCLR's pretraining recipe. The views are square; nothing but the random
    crop and `whole_image` ever changes an image's aspect.

    Attributes:
        image_size: Side of a view in pixels.
        channels: Channels of the images, 1 or more.
        num_views: Views made of each image.
        random_crop: Crop a random box and resize it. Off: the largest central square is resized.
        crop_area: Least and greatest area of the crop as a fraction of the image. Crops below a
            tenth of the image are never taken (the reference's `min_object_covered`).
        crop_aspect: Least and greatest width / height of the crop.
        horizontal_flip: Mirror left to right with probability 0.5.
        vertical_flip: Mirror top to bottom with probability 0.5.
        right_angle_rotation: Turn by 0, 90, 180 or 270 degrees, equally likely.
        rotation_degrees: Turn by an angle drawn from +- this many degrees; 0 is off. Pixels are
            then interpolated bilinearly, once, straight from the image; what lies beyond the
            image's edge is mirrored.
        central_crop: Side of the central square that is kept before anything else, as a fraction
            of the image's shorter side, in training and evaluation; 0 is off.
        whole_image: Where the central square would be taken, squeeze all of the image into the
            view: in evaluation, and in training without random crop.
        color_jitter_strength: 0 (off) to 1.25: brightness, contrast and saturation factors within
            1 +- 0.8 * strength, hue shifts within +- 0.2 * strength of a turn.
        color_jitter_probability: Share of views that are jittered.
        saturation_share: Range of the saturation relative to that of brightness and contrast, 0 to
            1; 0.5 in BYOL.
        jitter_impl: `simclrv2` multiplies the brightness, `simclrv1` adds to it.
        gray_probability: Share of views turned grey. None: 0.2, but 0 without colour jitter, as
            in the reference.
        blur: Gaussian blur, kernel of a tenth of `image_size`, sigma 0.1 to 2 pixels.
        blur_probability: Share of views blurred; or a share for each view, in turn.
        solarize_probability: Share of views solarized, after the blur (Grill et al. 2020, appendix
            B); or a share for each view, in turn.
    """

    image_size: int
    channels: int
    num_views: int = 2
    random_crop: bool = True
    crop_area: tuple[float, float] = (0.08, 1.0)
    crop_aspect: tuple[float, float] = (3 / 4, 4 / 3)
    horizontal_flip: bool = True
    vertical_flip: bool = False
    right_angle_rotation: bool = False
    rotation_degrees: float = 0.0
    central_crop: float = 0.0
    whole_image: bool = False
    color_jitter_strength: float = 1.0
    color_jitter_probability: float = 0.8
    saturation_share: float = 1.0
    jitter_impl: str = "simclrv2"
    gray_probability: float | None = None
    blur: bool = True
    blur_probability: float | tuple[float, ...] = 0.5
    solarize_probability: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        for name in ("blur_probability", "solarize_probability"):
            value = getattr(self, name)
            if not isinstance(value, int | float):
                object.__setattr__(self, name, tuple(value))
        object.__setattr__(self, "crop_area", pair("crop_area", self.crop_area))
        object.__setattr__(self, "crop_aspect", pair("crop_aspect", self.crop_aspect))
        self.validate()

    def validate(self) -> None:
        """Raises UserError, in one line, for a value that makes no views."""
        for name in ("image_size", "channels", "num_views"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} must be a whole number of at least 1, not {value!r}")
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise UserError(f"crop_area must be 0 < least <= greatest <= 1, not {low:g},{high:g}")
        if high < MIN_OBJECT_COVERED:
            raise UserError(
                f"crop_area's greatest value must be at least {MIN_OBJECT_COVERED:g} "
                f"(smaller crops are never taken), not {high:g}"
            )
        low, high = self.crop_aspect
        if not (0 < low <= high and math.isfinite(high)):
            raise UserError(f"crop_aspect must be 0 < least <= greatest, not {low:g},{high:g}")
        strength = self.color_jitter_strength
        if not 0 <= strength <= MAX_JITTER_STRENGTH:
            raise UserError(
                f"color_jitter_strength must lie in 0 to {MAX_JITTER_STRENGTH:g} (above, contrast "
                f"and saturation factors turn negative), not {strength:g}"
            )
        if not 0 <= self.rotation_degrees <= 180:
            raise UserError(f"rotation_degrees must lie in 0 to 180, not {self.rotation_degrees:g}")
        for name in ("central_crop", "color_jitter_probability", "saturation_share"):
            _check_fraction(name, getattr(self, name))
        for name in ("blur_probability", "solarize_probability"):
            for share in shares(getattr(self, name)):
                _check_fraction(name, share)
        if self.gray_probability is not None:
            _check_fraction("gray_probability", self.gray_probability)
        self._check_choices()

    def _check_choices(self) -> None:
        if self.whole_image and self.central_crop:
            raise UserError(
                f"whole_image and central_crop={self.central_crop:g} contradict one another: give"
                " one of them"
            )
        if self.jitter_impl not in JITTER_IMPLS:
            raise UserError(
                f"jitter_impl must be one of {', '.join(JITTER_IMPLS)}, not {self.jitter_impl!r}"
            )

    @property
    def jitter(self) -> bool:
        """True if any view is jittered."""
        return self.color_jitter_strength > 0 and self.color_jitter_probability > 0

    @property
    def gray(self) -> float:
        """Share of views that are turned grey; 0 for images that are not RGB."""
        if self.channels != 3:
            return 0.0
        if self.gray_probability is not None:
            return self.gray_probability
        return DEFAULT_GRAY_PROBABILITY if self.color_jitter_strength > 0 else 0.0

    @property
    def blur_kernel_size(self) -> int:
        """Size of the blur's kernel in pixels, 0 when no view is blurred."""
        blurred = self.blur and any(shares(self.blur_probability))
        return self.image_size // 10 if blurred else 0

    @property
    def solarize(self) -> bool:
        """True if any view is solarized."""
        return any(shares(self.solarize_probability))

    @property
    def kinds_of_views(self) -> int:
        """Number of views after which `blur_probability` and `solarize_probability` repeat."""
        probabilities = (self.blur_probability, self.solarize_probability)
        return math.lcm(*(len(shares(probability)) for probability in probabilities))

    def for_finetuning(self) -> ViewConfig:
        """The same geometry as one view without colour or blur: SimCLR's fine-tuning recipe."""
        return dataclasses.replace(
            self,
            num_views=1,
            color_jitter_strength=0.0,
            gray_probability=0.0,
            blur=False,
            solarize_probability=0.0,
        )

    def to_dict(self) -> dict[str, Any]:
        """All values, ready for JSON."""
        values = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ViewConfig:
        """The inverse of `to_dict`; UserError names keys that are unknown or missing."""
        fields = dataclasses.fields(cls)
        unknown = sorted(set(values) - {f.name for f in fields})
        if unknown:
            raise UserError(f"unknown setting of views: {', '.join(unknown)}")
        missing = [n for n in ("image_size", "channels") if n not in values]
        if missing:
            raise UserError(f"views need {' and '.join(missing)}")
        return cls(**values)


def skipped_for_channels(config: ViewConfig) -> list[str]:
    """Operations that are switched on but left out, because they only make sense for RGB images."""
    if config.channels == 3:
        return []
    skipped = ["saturation", "hue"] if config.jitter else []
    wants_gray = config.gray_probability
    if wants_gray is None:
        wants_gray = DEFAULT_GRAY_PROBABILITY if config.color_jitter_strength > 0 else 0.0
    return [*skipped, "grayscale"] if wants_gray > 0 else skipped


def pair(name: str, value: Any) -> tuple[float, float]:
    """Two numbers; UserError says so if the setting `name` is anything else."""
    try:
        low, high = (float(v) for v in value)
    except (TypeError, ValueError):
        raise UserError(f"{name} must be two numbers, least and greatest, not {value!r}") from None
    return low, high


def shares(value: float | tuple[float, ...]) -> tuple[float, ...]:
    """A share of all views, or one for each in turn, as a tuple."""
    return value if isinstance(value, tuple) else (value,)


def parse_shares(flag: str, text: str) -> float | tuple[float, ...]:
    """A share of views, or one for each of the two views, as a flag gives it: `0.5` or `1,0.1`.

    Raises:
        UserError: Other than one or two numbers from 0 to 1.
    """
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 2) or not all(0 <= number <= 1 for number in numbers):
        raise UserError(
            "give a share from 0 to 1, or two, of either view: A,B", setting=flag, value=text
        )
    return numbers if len(numbers) == 2 else numbers[0]


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{name} must lie in 0 to 1, not {value:g}")


@dataclass(frozen=True)
class ViewSettings:
    """Augmentation."""

    image_size: int = setting(224, "Side of the network's input in pixels.", low=8)
    color_jitter_strength: float = setting(
        1.0, "Strength of colour jitter; 0 turns jitter and grey off.", low=0, high=1.25
    )
    use_blur: bool = setting(True, "Gaussian blur in pretraining (kernel = height // 10).")
    random_crop: bool = setting(True, "Random crop and resize.")
    min_crop_area: float = setting(
        0.08, "Smallest share of the image's area that a crop may have.", low=0.001, high=1
    )
    min_crop_aspect: float = setting(
        0.75, "Narrowest aspect of a crop; 1 keeps the aspect (lattices).", low=0.1, high=1
    )
    horizontal_flip: bool = setting(True, "Random left-right flip.")
    vertical_flip: bool = setting(False, "Random up-down flip.")
    right_angle_rotation: bool = setting(False, "Random rotation by 0, 90, 180 or 270 degrees.")
    rotation_degrees: float = setting(
        0.0, "Random free rotation up to this many degrees either way.", low=0, high=180
    )
    central_crop: float = setting(
        0.0,
        "Keep only this central share of the shorter side before anything else; 0 = off.",
        low=0,
        high=1,
    )
    whole_image: bool = setting(
        False,
        "Squeeze all of an image into the square, in scoring and without random crop, instead of "
        "taking its central square: for images of one shape whose edges count.",
    )
    jitter_impl: Literal["simclrv2", "simclrv1"] = setting(
        "simclrv2", "Brightness: multiplied (simclrv2) or added (simclrv1)."
    )
    gray_probability: float = setting(0.2, "Probability of dropping the colour.", low=0, high=1)
    saturation_share: float = setting(
        1.0, "Jitter of the saturation relative to brightness and contrast.", low=0, high=1
    )
    blur_probability: str = setting(
        "0.5", "Share of views blurred; A,B: of the first and of the second view."
    )
    solarize_probability: str = setting(
        "0",
        "Share of views solarized in pretraining; A,B: of the first and of the second view (BYOL, "
        "Grill et al. 2020, appendix B, has 0,0.2 with --blur_probability=1,0.1).",
    )

    def view_config(self, channels: int, num_views: int = 2, least_area: float = 0.0) -> ViewConfig:
        """The recipe of the views that the settings ask for.

        Args:
            channels: Of the images.
            num_views: Views of each image.
            least_area: Smallest share of the area that a crop has in any case.

        Raises:
            UserError: A value that makes no views.
        """
        return ViewConfig(
            image_size=self.image_size,
            channels=channels,
            num_views=num_views,
            random_crop=self.random_crop,
            crop_area=(max(self.min_crop_area, least_area), 1.0),
            crop_aspect=(self.min_crop_aspect, 1 / self.min_crop_aspect),
            horizontal_flip=self.horizontal_flip,
            vertical_flip=self.vertical_flip,
            right_angle_rotation=self.right_angle_rotation,
            rotation_degrees=self.rotation_degrees,
            central_crop=self.central_crop,
            whole_image=self.whole_image,
            color_jitter_strength=self.color_jitter_strength,
            saturation_share=self.saturation_share,
            jitter_impl=self.jitter_impl,
            gray_probability=self.share_of_gray(),
            blur=self.use_blur,
            blur_probability=parse_shares("blur_probability", self.blur_probability),
            solarize_probability=parse_shares("solarize_probability", self.solarize_probability),
        )

    def share_of_gray(self) -> float | None:
        """Share of views that lose their colour: none without colour jitter, as in SimCLR."""
        return self.gray_probability if self.color_jitter_strength > 0 else 0.0


PAPER_VIEWS: dict[str, dict[str, Any]] = {
    # MoCo v2 (Chen et al. 2020, arXiv:2003.04297): brightness, contrast and saturation 0.4, hue 0.1
    # with probability 0.8; grey 0.2; blur 0.5. Crops of a fifth at least as in the authors' code.
    "moco": {"color_jitter_strength": 0.5, "min_crop_area": 0.2},
    # BYOL (Grill et al. 2020, appendix B): the same but for a saturation of 0.2, and not the same
    # for both views.
    "byol": {
        "color_jitter_strength": 0.5,
        "saturation_share": 0.5,
        "blur_probability": "1,0.1",
        "solarize_probability": "0,0.2",
    },
    # SwAV (Caron et al. 2020, appendix A): SimCLR's colours. That crops have 0.14 of the image at
    # least, and the small crops beside them, the method brings along.
    "swav": {},
}
