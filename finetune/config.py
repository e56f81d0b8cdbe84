"""The settings of training a classifier on labels, each declared once; presets.

Those of `simclr-run` keep their names and meanings. `ClassifierConfig` is what the engine needs;
`FinetuneConfig` adds what `simclr-finetune` starts from.
"""

import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

from data_prep.augment.config import ViewSettings
from data_prep.augment.image_data_generator_config import SupervisedConfig
from data_prep.errors import UserError
from data_prep.manifest.read_options import Declaration
from data_prep.settings import Config, same_setting, setting
from data_prep.statistics import suggest_finetuning
from finetune.former_settings import published, with_former_settings
from simclr_tf.config.sections import (
    DataSettings,
    GivenImages,
    MachineSettings,
    ModelSettings,
    OptimizerSettings,
    StartSettings,
    TrainSettings,
)
from simclr_tf.models.architectures import PARTS

_SHIFT = "--augment=generator: shift {} by up to this share (below 1) or so many pixels (from 1)."


@dataclass(frozen=True)
class AugmentSettings(ViewSettings):
    """Input and augmentation."""

    # As in pretraining, but for what a classifier's training usually leaves out. An image's label
    # holds for most of it, not for a tenth, and may not hold for a stretched one.
    min_crop_area: float = same_setting(ViewSettings, "min_crop_area", default=0.5)
    min_crop_aspect: float = same_setting(ViewSettings, "min_crop_aspect", default=1.0)
    color_jitter_strength: float = same_setting(
        ViewSettings,
        "color_jitter_strength",
        "--augment=views: strength of colour jitter.",
        default=0.0,
    )
    use_blur: bool = same_setting(
        ViewSettings,
        "use_blur",
        "--augment=views: Gaussian blur of half the images.",
        default=False,
    )
    gray_probability: float = same_setting(
        ViewSettings,
        "gray_probability",
        "--augment=views: probability of dropping the colour.",
        default=0.0,
    )
    augment: Literal["auto", "none", "views", "generator"] = setting(
        "auto",
        "views: crop, flips and what else SimCLR has; generator: what Keras' ImageDataGenerator "
        "has; none: training images are cropped as in evaluation. auto: none where no part of "
        "the encoder trains, else views.",
    )
    rotation_range: float = setting(
        0.0,
        "--augment=generator: turn by up to so many degrees.",
        low=0,
        high=180,
        only="augment=generator",
    )
    width_shift_range: float = setting(
        0.0, _SHIFT.format("sideways"), low=0, only="augment=generator"
    )
    height_shift_range: float = setting(
        0.0, _SHIFT.format("up and down"), low=0, only="augment=generator"
    )
    brightness_range: str = setting(
        "", "--augment=generator: LOW,HIGH, factor of the brightness.", only="augment=generator"
    )
    shear_range: float = setting(
        0.0,
        "--augment=generator: shear by up to so many degrees.",
        low=0,
        high=89,
        only="augment=generator",
    )
    zoom_range: str = setting(
        "", "--augment=generator: LOW,HIGH, or Z for 1-Z,1+Z.", only="augment=generator"
    )
    channel_shift_range: float = setting(
        0.0,
        "--augment=generator: add up to so many of 255 levels.",
        low=0,
        high=255,
        only="augment=generator",
    )
    fill_mode: Literal["nearest", "reflect", "wrap", "constant"] = setting(
        "nearest",
        "--augment=generator: what lies beyond the image's edge.",
        only="augment=generator",
    )
    cval: float = setting(
        0.0,
        "--augment=generator: the value there for constant, of 255.",
        low=0,
        only="augment=generator",
    )

    def share_of_gray(self) -> float:
        """Share of views that lose their colour, with colour jitter or without."""
        return self.gray_probability

    def generator(self) -> SupervisedConfig:
        """The augmentation of `--augment=generator`.

        Raises:
            UserError: An invalid range.
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
        raise UserError("give numbers, such as 0.8,1.2", setting=name, value=text) from None


@dataclass(frozen=True)
class LabeledImages(GivenImages):
    """Images and labels."""

    image_dir: str = same_setting(
        DataSettings,
        "image_dir",
        "Folder of images: train/validation/test sub-folders with class folders, or class folders. "
        "With --manifest: where its images lie now.",
    )
    manifest: str = same_setting(DataSettings, "manifest")
    train_split: str = same_setting(DataSettings, "train_split")
    split_ratios: str = same_setting(DataSettings, "split_ratios")
    split_seed: int = same_setting(DataSettings, "split_seed")
    label_fraction: float = setting(
        1.0, "Train on this share of the labelled images; smaller ones are part of larger.",
        low=0.0, high=1.0,
    )  # fmt: skip
    labels_per_class: int = same_setting(
        DataSettings, "labels_per_class", "Or on so many of every class; 0 = all."
    )
    label_seed: int = same_setting(DataSettings, "label_seed", "Which images these are.")
    image_channels: str = same_setting(DataSettings, "image_channels")
    cache_dataset: Literal["auto", "true", "false"] = same_setting(DataSettings, "cache_dataset")
    skip_unreadable: bool = same_setting(DataSettings, "skip_unreadable")


@dataclass(frozen=True)
class HeadSettings:
    """Head."""

    head: str = setting("", "Widths of the head's hidden layers, such as 512,256; empty = linear.")
    dropout: float = setting(
        0.0, "Share of hidden units (of the features, without any) dropped in training.",
        low=0, high=0.95,
    )  # fmt: skip

    head_start: Literal["auto", "probe", "random"] = setting(
        "auto",
        "Weights that a linear head starts with. probe: those of a logistic regression on the "
        "training images' features, its regularization chosen by --monitor on held-out folds of "
        "them; random: drawn at random; auto: probe, where the network under it is pretrained.",
    )

    def widths(self) -> tuple[int, ...]:
        """The hidden layers.

        Raises:
            UserError: Not numbers from 1.
        """
        texts = [text.strip() for text in self.head.split(",") if text.strip()]
        if not all(text.isdigit() and int(text) > 0 for text in texts):
            raise UserError(
                "give widths such as 512,256, or nothing", setting="head", value=self.head
            )
        return tuple(map(int, texts))


@dataclass(frozen=True)
class LossSettings:
    """Loss and balance of classes."""

    class_weights: Literal["none", "balanced"] = setting(
        "none", "Weigh images so that every class counts the same in the loss."
    )
    sampling: Literal["natural", "balanced"] = setting(
        "natural", "Or show every class equally often: images of rare ones come again sooner."
    )
    focal_gamma: float = setting(
        0.0, "Above 0: the focal loss, to which easy images count less; 2 is usual.", low=0, high=10
    )
    label_smoothing: float = setting(
        0.0, "Share of the target spread over all classes; 0.1 is usual.", low=0, high=0.9
    )


@dataclass(frozen=True)
class OptimizationSettings:
    """Optimisation."""

    optimizer: Literal["adamw", "adam", "momentum", "lars"] = setting("adamw", "Optimizer.")
    learning_rate: float = setting(
        0.0,
        "Learning rate, whatever the batch; 0 = 0.001, or 0.00003 for a linear head that begins as "
        "a logistic regression on features that nothing changes.",
        low=0,
    )
    schedule: Literal["cosine", "constant"] = setting(
        "cosine", "How the learning rate goes on after the warm-up: down to 0, or not at all."
    )
    warmup_epochs: float = setting(
        -1.0, "Epochs of linear warm-up; below 0 = a tenth of all.", low=-1
    )
    momentum: float = same_setting(OptimizerSettings, "momentum")
    weight_decay: float = setting(1e-4, "Weight decay, of all but biases and normalisation.", low=0)
    layer_decay: float = setting(
        1.0,
        "Every block group learns at this factor of the rate of the next one; the head has the "
        "whole rate. 0.75 or less protects a good encoder.",
        low=0.01,
        high=1,
    )


@dataclass(frozen=True)
class FitSettings:
    """Training and choice of the best epoch."""

    train_batch_size: int = setting(
        0,
        "Images in a batch over all replicas; 0 = 8 to 64, as simclr-stats suggests for so many "
        "images.",
        low=0,
    )
    train_epochs: int = setting(
        0,
        "Epochs to train; 0 = 25 to 200, so as to make 1,000 updates, as simclr-stats suggests.",
        low=0,
    )
    train_steps: int = same_setting(TrainSettings, "train_steps")
    eval_batch_size: int = same_setting(TrainSettings, "eval_batch_size")
    eval_crops: int = same_setting(
        TrainSettings,
        "eval_crops",
        "Above 1: score the mean over a grid of this many crops along each side, which covers the "
        "whole image, also of one that is not square; 1 = the central crop alone.",
    )
    monitor: Literal["accuracy", "balanced_accuracy", "roc_auc", "loss"] = setting(
        "accuracy",
        "What is best on validation in the epoch whose weights are kept; of equals the one with "
        "the smaller loss.",
    )
    early_stopping_patience: int = setting(
        0, "Stop after this many epochs without a better validation; 0 = never.", low=0
    )
    score_train: bool = setting(True, "Also score the whole training set after every epoch.")
    cache_features: Literal["auto", "true", "false"] = setting(
        "auto",
        "Compute the features of a wholly frozen backbone once. auto: whenever nothing augments.",
    )
    keep_checkpoint_max: int = setting(2, "Checkpoints to keep beside the best.", low=1)


@dataclass(frozen=True)
class ReportSettings:
    """Measurement."""

    threshold: str = setting(
        "youden",
        "Two classes: decision threshold on the positive class, youden or f1 (chosen on "
        "validation), or a number.",
    )
    positive: str = setting("", "Two classes: the positive one; empty = the second by name.")
    bootstrap: int = setting(2000, "Resamples behind every confidence interval.", low=100)

    floors: bool = same_setting(
        TrainSettings,
        "floors",
        "Put beside the network what the most frequent class, raw pixels and untrained features "
        "reach on the same images.",
    )

    def fixed_threshold(self) -> float | None:
        """The threshold if it is a number.

        Raises:
            UserError: Neither a rule nor a number in [0, 1].
        """
        if self.threshold in ("youden", "f1"):
            return None
        try:
            value = float(self.threshold)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1:
            raise UserError(
                "give youden, f1 or a number in [0, 1]", setting="threshold", value=self.threshold
            )
        return value


@dataclass(frozen=True)
class OutputSettings:
    """Output."""

    output: str = setting("", "Folder of the run; the same command goes on from there.")
    overwrite: bool = setting(
        False, "Start anew in an --output that holds another run, whose files are deleted."
    )


@dataclass(frozen=True)
class ClassifierConfig(Config):
    """The settings that all commands share which train a classifier."""

    data: LabeledImages = field(default_factory=LabeledImages)
    reading: Declaration = field(default_factory=Declaration)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    head: HeadSettings = field(default_factory=HeadSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimizer: OptimizationSettings = field(default_factory=OptimizationSettings)
    train: FitSettings = field(default_factory=FitSettings)
    measure: ReportSettings = field(default_factory=ReportSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)
    run: OutputSettings = field(default_factory=OutputSettings)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote, of this version or of one before.

        Raises:
            UserError: Unknown or wrong entries.
        """
        values = {name: value for part in json.loads(text).values() for name, value in part.items()}
        return cls.from_values(with_former_settings(values, {s.name for s in cls.settings()}))

    def suited(self, images: int) -> Self:
        """The settings with what is left open chosen for a number of training images."""
        from simclr_tf.optim.schedules import steps_per_epoch  # with TensorFlow: not for --help

        t, schedule = self.train, suggest_finetuning(images)
        batch = t.train_batch_size or schedule.batch_size
        per_epoch = steps_per_epoch(images, batch)
        # As many updates, also with a batch that was given.
        epochs = t.train_epochs or min(200, max(25, -(-1000 // per_epoch)))
        warmup = self.optimizer.warmup_epochs
        if warmup < 0:
            warmup = round((t.train_steps / per_epoch if t.train_steps else epochs) / 10, 3)
        return replace(
            self,
            train=replace(t, train_batch_size=batch, train_epochs=epochs),
            optimizer=replace(self.optimizer, warmup_epochs=warmup),
        )

    def validate(self) -> None:
        """Checks every setting, and what only fits together."""
        super().validate()
        self.reading.reading()
        self.head.widths()
        self.measure.fixed_threshold()
        generator: SupervisedConfig = self.augment.generator()
        generator.validate()
        if self.head.head_start == "probe" and self.head.widths():
            raise UserError(
                f"a head with hidden layers (--head={self.head.head}) has no "
                "linear probe; leave one of them out",
                setting="head_start",
                value="probe",
            )
        channels = self.data.image_channels
        if channels != "auto" and not (channels.isdigit() and int(channels) > 0):
            raise UserError(
                "give auto or a positive number", setting="image_channels", value=channels
            )
        if not self.data.label_fraction > 0:
            raise UserError(
                "leaves no labels; give a share above 0", setting="label_fraction", value=0
            )
        if self.data.label_fraction < 1 and self.data.labels_per_class:
            raise UserError("--label_fraction and --labels_per_class: give one of them")
        if self.loss.class_weights != "none" and self.loss.sampling != "natural":
            raise UserError(
                "--class_weights=balanced and --sampling=balanced make up for the same thing twice;"
                " give one of them"
            )
        if self.train.cache_features == "true" and self.augment.augment in ("views", "generator"):
            raise UserError(
                "augmented images differ every epoch; add --augment=none",
                setting="cache_features",
                value="true",
            )


@dataclass(frozen=True)
class EncoderSettings:
    """Encoder."""

    encoder: str = setting(
        "",
        "What to start from: a run's folder or checkpoint, a SavedModel, a .keras file, a public "
        "checkpoint by path or by the name that simclr-zoo lists.",
    )
    ema: bool = same_setting(StartSettings, "ema")
    stem_adapt: Literal["sum", "mean", "repeat"] = same_setting(
        StartSettings, "stem_adapt", "How the first kernel is made for images of other channels."
    )
    fresh_weights: bool = setting(
        False, "Take the encoder's architecture alone: training from scratch, to compare with."
    )
    ft_proj_selector: int = same_setting(
        ModelSettings,
        "ft_proj_selector",
        "Layer of the projection head that the classifier sits on: 0 = its input, -1 = its output.",
    )
    train_blocks: str = same_setting(
        StartSettings,
        "train_blocks",
        "Train only these parts (and the head): any of stem,1,2,3,4,head, where head is the "
        "projection head; empty = all.",
    )
    head_only: bool = setting(False, "Train the classifier's head and nothing else.")
    preset: str = setting(
        "", "Settings of a published work, for all flags that are not given: him003, him003_binary."
    )

    def trained_parts(self) -> tuple[str | int, ...] | None:
        """The parts of the encoder that train; None = all.

        Raises:
            UserError: There is no such part, or both flags say something.
        """
        named = [part.strip() for part in self.train_blocks.split(",") if part.strip()]
        if self.head_only and named:
            raise UserError(
                f"--head_only and --train_blocks={self.train_blocks} say different things; give "
                "one of them"
            )
        parts = tuple(int(part) if part.isdigit() else part for part in named)
        if wrong := [part for part in parts if part not in PARTS]:
            raise UserError(
                f"{wrong[0]} is none of {', '.join(map(str, PARTS))}",
                setting="train_blocks",
                value=self.train_blocks,
            )
        return () if self.head_only else parts or None


@dataclass(frozen=True)
class FinetuneConfig(ClassifierConfig):
    """All settings of `simclr-finetune`."""

    start: EncoderSettings = field(default_factory=EncoderSettings)

    def validate(self) -> None:
        """Checks every setting, and what only fits together."""
        super().validate()
        if self.train.cache_features == "true" and self.start.trained_parts() != ():
            raise UserError(
                "the encoder trains; add --head_only", setting="cache_features", value="true"
            )
        self.start.trained_parts()


# github.com/HIM003/simclr_core_disturbance, fine_tune/TF2_finetuning*.py: a dense layer on the
# `final_avg_pool` of a SavedModel that stays as it is; LARS of rate 0.1 and momentum 0.9, which the
# layer's name ("head_supervised_new") excludes from adaptation and decay; batches of 64; every
# image, of training too, cropped as in evaluation (the central 0.875). The scripts report every
# epoch; the best is the one with the highest validation accuracy.
_HIM003: dict[str, Any] = published(
    {
        "head_only": True,
        "head": "",
        "ft_proj_selector": 0,
        "augment": "none",
        "optimizer": "lars",
        "learning_rate": 0.1,
        "schedule": "constant",
        "warmup_epochs": 0.0,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "train_batch_size": 64,
        "train_epochs": 25,
        "monitor": "accuracy",
    }
)

PRESETS: dict[str, dict[str, Any]] = {
    "him003": _HIM003,
    "him003_binary": {**_HIM003, "train_epochs": 15},
}
