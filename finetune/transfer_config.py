"""The settings of `simclr-transfer`, and those of three published runs on STEM lattices."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from data_prep.errors import UserError
from data_prep.settings import preset_values, setting
from finetune.config import AugmentSettings, ClassifierConfig, HeadSettings
from finetune.former_settings import published

STANDARDIZING = (
    "rescale", "samplewise_center", "samplewise_std_normalization", "featurewise_center",
    "featurewise_std_normalization", "zca_whitening",
)  # fmt: skip
"""Arguments of ImageDataGenerator that change the scale of images."""

_GENERATOR = (
    "rotation_range", "width_shift_range", "height_shift_range", "brightness_range", "shear_range",
    "zoom_range", "channel_shift_range", "horizontal_flip", "vertical_flip",
)  # fmt: skip


def check_scaled_once(arguments: Mapping[str, Any], preprocesses: bool, remedy: str) -> None:
    """Refuses to scale images by `preprocess_input` and by an argument of ImageDataGenerator.

    Args:
        arguments: Name -> value.
        preprocesses: Whether a `preprocess_input` is applied as well.
        remedy: Advice to the user.

    Raises:
        UserError: The images would be scaled twice.
    """
    scaling = [name for name in STANDARDIZING if arguments.get(name)]
    if preprocesses and scaling:
        raise UserError(
            f"{scaling[0]} and a preprocess_input would scale the images twice; {remedy}"
        )


@dataclass(frozen=True)
class TransferAugment(AugmentSettings):
    """Input and augmentation."""

    horizontal_flip: bool = setting(False, "Random left-right flip.")
    augment: Literal["auto", "none", "views", "generator"] = setting(
        "auto",
        "generator: what Keras' ImageDataGenerator has; views: crop, flips and what else SimCLR "
        "has; none: training images are cropped as in evaluation. auto: generator if any of its "
        "flags is given, else none.",
    )
    pipeline: Literal["tf_data", "image_data_generator"] = setting(
        "tf_data",
        "What makes training images: tf.data, or Keras' ImageDataGenerator itself (slower; its "
        "height_shift_range moves images sideways, its width_shift_range up and down).",
    )
    interpolation_order: int = setting(
        1, "--pipeline=image_data_generator: of its spline interpolation.", low=0, high=5
    )
    preprocess: Literal["auto", "none"] = setting(
        "auto",
        "auto: the backbone's own preprocess_input, inside the model; none: images in 0 to 255, "
        "changed by the flags below alone, also inside the model.",
    )
    rescale: float = setting(0.0, "--preprocess=none: factor, such as 0.003922; 0 = none.", low=0)
    samplewise_center: bool = setting(False, "--preprocess=none: subtract each image's mean.")
    samplewise_std_normalization: bool = setting(
        False, "--preprocess=none: divide by each image's deviation; centres too."
    )
    featurewise_center: bool = setting(
        False, "--preprocess=none: subtract the training images' mean of each channel."
    )
    featurewise_std_normalization: bool = setting(
        False, "--preprocess=none: divide by their deviation; centres too."
    )

    def chosen_augment(self) -> str:
        """`none`, `views` or `generator`."""
        if self.augment != "auto":
            return self.augment
        asked = any(getattr(self, name) for name in _GENERATOR)
        return "generator" if asked or self.pipeline == "image_data_generator" else "none"

    def standardizing(self) -> dict[str, Any]:
        """The arguments of ImageDataGenerator that standardize, where they are given."""
        values = {name: getattr(self, name, 0) for name in STANDARDIZING}
        return {name: value for name, value in values.items() if value}


@dataclass(frozen=True)
class BackboneSettings:
    """Backbone."""

    backbone: str = setting(
        "vgg16", "Network of keras.applications, such as vgg16, vgg19, resnet50, efficientnetb0."
    )
    weights: str = setting(
        "imagenet",
        "imagenet (Keras downloads them), none (drawn at random), or a file of weights without "
        "the classification head.",
    )
    cut_layer: str = setting(
        "", "Layer of the backbone that the head sits on, such as block4_pool; empty = the last."
    )
    pooling: Literal["avg", "max", "flatten"] = setting(
        "avg",
        "How feature maps become a vector; flatten keeps every place, and makes heads of hundreds "
        "of millions of weights.",
    )
    preset: str = setting(
        "",
        "Settings of published runs on STEM lattices, for all flags that are not given: "
        "vgg16_generator, vgg16_tfdata, resnet50_tfdata, vgg16_block4.",
    )


@dataclass(frozen=True)
class TransferHead(HeadSettings):
    """Head."""

    feature_scaling: bool = setting(
        True,
        "Standardize the features on the training images before the head, inside the network.",
    )


@dataclass(frozen=True)
class UnfreezeSettings:
    """Second stage."""

    unfreeze_after: str = setting(
        "", "Then also train the backbone behind this layer, such as block4_pool; empty = never."
    )
    unfreeze_epochs: int = setting(10, "Epochs of the second stage.", low=1, only="unfreeze_after")
    unfreeze_learning_rate: float = setting(
        1e-5, "Its learning rate.", low=0, only="unfreeze_after"
    )
    train_batch_norm: bool = setting(
        False,
        "Let batch normalisation train too in the second stage; else it keeps its statistics and "
        "normalises by them.",
    )


@dataclass(frozen=True)
class LookSettings:
    """Looking inside."""

    feature_maps: str = setting(
        "", "Layers whose maps are drawn, such as block1_conv1,block3_conv3; empty = none."
    )
    feature_map_images: str = setting(
        "4",
        "Of which images: so many held-out ones, or paths separated by commas (FILE:PAGE for one "
        "page of a file).",
    )
    grad_cam: str = setting(
        "6", "Where evidence lies (Grad-CAM), in so many held-out images or these paths; 0 = none."
    )
    grad_cam_layer: str = setting("", "Its layer; empty = the last one before pooling.")

    def layers(self) -> tuple[str, ...]:
        """Layers whose maps are drawn."""
        return tuple(name.strip() for name in self.feature_maps.split(",") if name.strip())


@dataclass(frozen=True)
class TransferConfig(ClassifierConfig):
    """All settings of `simclr-transfer`."""

    augment: TransferAugment = field(default_factory=TransferAugment)
    head: TransferHead = field(default_factory=TransferHead)
    start: BackboneSettings = field(default_factory=BackboneSettings)
    unfreeze: UnfreezeSettings = field(default_factory=UnfreezeSettings)
    look: LookSettings = field(default_factory=LookSettings)

    def deciding_value(self, name: str) -> Any:
        """The value of a setting that others depend on; augmentation as it is chosen."""
        return self.augment.chosen_augment() if name == "augment" else super().deciding_value(name)

    def validate(self) -> None:
        """Checks every setting, and what only fits together."""
        super().validate()
        augment = self.augment
        generator = augment.pipeline == "image_data_generator"
        if generator and augment.chosen_augment() != "generator":
            raise UserError(
                f"--pipeline=image_data_generator goes with --augment=generator, not with "
                f"--augment={augment.augment}"
            )
        if augment.interpolation_order != 1 and not generator:
            raise UserError("--interpolation_order is for --pipeline=image_data_generator")
        check_scaled_once(
            augment.standardizing(),
            augment.preprocess == "auto",
            "leave it away, or add --preprocess=none",
        )
        preset_values(self.start.preset, PRESETS)


# github.com/AliBaghizadeh: VGG16 and ResNet50 on grey STEM images of 13 lattices. A frozen base,
# Adam, the best epoch by validation accuracy; early stopping went by the training loss there and
# goes by validation here.
_STEM: dict[str, Any] = published(
    {
        "feature_scaling": False,
        "backbone": "vgg16",
        "pooling": "flatten",
        "head": "2048,1024",
        "dropout": 0.2,
        "optimizer": "adam",
        "learning_rate": 1e-4,
        "schedule": "constant",
        "weight_decay": 0.0,
        "train_epochs": 15,
        "monitor": "accuracy",
        "early_stopping_patience": 3,
    }
)
_GENERATOR_RUN = {"pipeline": "image_data_generator", "image_size": 400, "train_batch_size": 16,
                  "rotation_range": 30.0}  # fmt: skip
# A tenth of a turn either way, as keras.layers.RandomRotation(0.1) does.
_TF_DATA_RUN = {"pipeline": "tf_data", "image_size": 600, "train_batch_size": 32,
                "rotation_range": 36.0, "fill_mode": "reflect"}  # fmt: skip

PRESETS: dict[str, dict[str, Any]] = {
    "vgg16_generator": {**_STEM, **_GENERATOR_RUN},
    "vgg16_tfdata": {**_STEM, **_TF_DATA_RUN},
    "resnet50_tfdata": {
        **_STEM, **_TF_DATA_RUN, "backbone": "resnet50", "head": "1024,512", "train_batch_size": 16,
    },
    "vgg16_block4": {**_STEM, **_GENERATOR_RUN, "cut_layer": "block4_pool", "head": "1024"},
}  # fmt: skip
