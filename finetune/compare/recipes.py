"""Settings of pretraining and recipes of classifiers, for the encoders of a comparison."""

from pathlib import Path
from typing import Any

import keras

from data_prep.errors import UserError, setting_renamed
from finetune.classifier import Classifier
from finetune.compare.budget import Sizes
from finetune.compare.strategies import CompareSettings, Encoder
from finetune.config import ClassifierConfig, FinetuneConfig
from finetune.finetune import recipe as encoder_recipe
from finetune.keras_backbones import build_backbone, trunk_of, unfreeze_after
from finetune.session import ClassifierJob
from finetune.transfer import Transfer
from finetune.transfer_config import TransferConfig
from simclr_tf.checkpoints import zoo
from simclr_tf.checkpoints.download import is_complete
from simclr_tf.checkpoints.load import Checkpoints
from simclr_tf.checkpoints.preprocessing import Preprocessing
from simclr_tf.checkpoints.write import export_keras
from simclr_tf.config.run_config import RunConfig
from simclr_tf.models.keras_applications import IMAGENET, NONE
from simclr_tf.training.build import build_model
from simclr_tf.training.from_checkpoint import adopt_checkpoint, open_origins

# Those of the demonstration, found on lattice images and kept for all data: the strategies are
# compared with their usual settings, not each at its best. Fits are short, so rates are high.
_SCRATCH_RATE, _FINETUNE_RATE, _IMAGENET_RATE = 0.004, 0.004, 1e-4
_LAYER_DECAY = 0.75
_SCORED_AT_ONCE = 64  # small: the last batch is filled up
_PRETRAIN_RATE = 0.016  # of Adam, times batch / 256
_FURTHER_RATE = 0.0016  # from a checkpoint on: a tenth


def encoder_folder(output: Path, encoder: Encoder) -> Path:
    """The folder of an encoder's pretraining, in the folder of a comparison."""
    return output / "encoders" / encoder.slug


class Networks:
    """Makes settings and recipes of the strategies.

    Args:
        settings: Of the comparison.
        sizes: As planned.
        channels: Of the images.
        images: Number of images for self-supervision.
        output: Folder of the comparison.
        checkpoints: Those that the comparison starts from, each opened once.
    """

    def __init__(
        self,
        settings: CompareSettings,
        sizes: Sizes,
        channels: int,
        images: int,
        output: Path,
        checkpoints: Checkpoints,
    ) -> None:
        self._settings, self._sizes = settings, sizes
        self._channels, self._images, self._output = channels, images, output
        self.checkpoints = checkpoints

    def folder(self, encoder: Encoder) -> Path:
        """The folder of an encoder's pretraining."""
        return encoder_folder(self._output, encoder)

    def _views(self, size: int) -> dict[str, Any]:
        s = self._settings
        return {
            "image_size": size,
            "min_crop_area": s.augment.min_crop_area,
            "min_crop_aspect": 1.0,
            "vertical_flip": s.augment.vertical_flip,
            "right_angle_rotation": s.augment.right_angle_rotation,
            "central_crop": s.augment.central_crop,
            "seed": s.design.seed,
        }

    def pretraining(self, encoder: Encoder, manifest: Path, images: int) -> RunConfig:
        """Settings of self-supervision on one's own images.

        Args:
            encoder: With a method.
            manifest: Of the images, without labels.
            images: Their number.
        """
        s, sizes = self._settings, self._sizes
        batch, steps = sizes.pretrain_batch, sizes.pretrain_steps
        public = encoder.network != "own"
        values = {
            **self._views(sizes.imagenet_image_size if public else sizes.image_size),
            "manifest": str(manifest),
            "model_dir": str(self.folder(encoder)),
            "train_batch_size": batch,
            "train_steps": steps,
            "checkpoint_steps": max(1, -(-steps // 5)),
            "keep_checkpoint_max": 1,
            "optimizer": "adam",
            "learning_rate": _FURTHER_RATE if public else _PRETRAIN_RATE,
            # A tenth of the run at most, however few images there are.
            "warmup_epochs": min(5.0, 0.1 * steps * batch / images),
            "temperature": 0.2,
            "color_jitter_strength": s.augment.color_jitter_strength,
            "lineareval_while_pretraining": False,
            "method": encoder.method,
            # A queue of most of the images would hold the positives themselves.
            "queue_size": max(batch, min(4096, images // 2 // batch * batch)),
            "prototypes": max(16, min(512, images // 4)),
            "frozen_prototype_steps": min(313, steps // 10),
            "small_crops": 4 if self._small_crops(sizes.image_size) else 0,
        }
        if not public:
            values |= {
                "resnet_depth": s.sizes.resnet_depth, "width_multiplier": sizes.width_multiplier,
            }  # fmt: skip
            return RunConfig.from_values(values)
        start = {"checkpoint": self.checkpoint(), "fine_tune_after_block": s.design.frozen_blocks}
        config = RunConfig.from_values({**values, **start})
        origins = open_origins(config, self.checkpoints)
        return adopt_checkpoint(config, {*values, *start}, origins)

    @staticmethod
    def _small_crops(size: int) -> bool:
        return round(size * 3 / 7) >= 16

    def checkpoint(self) -> str:
        """The public checkpoint."""
        return self._settings.design.imagenet_checkpoint

    def random_encoder(self) -> Path:
        """A file with the architecture of one's own network, written on first use."""
        file = self._output / "encoders" / "untrained.keras"
        if not file.exists():
            values = self._views(self._sizes.image_size) | {
                "resnet_depth": self._settings.sizes.resnet_depth,
                "width_multiplier": self._sizes.width_multiplier,
            }
            m = RunConfig.from_values(values)
            keras.utils.set_random_seed(self._settings.design.seed)
            encoder = build_model(m, self._channels, num_classes=0).encoder
            encoder.preprocessing = Preprocessing(
                self._sizes.image_size, self._channels, central_crop=m.views.central_crop
            ).record()
            file.parent.mkdir(parents=True, exist_ok=True)
            export_keras(encoder, file)
        return file

    def classifier(self, encoder: Encoder) -> tuple[ClassifierConfig, ClassifierJob]:
        """Returns settings and recipe of a classifier on an encoder.

        Args:
            encoder: Pretrained, if it has to be.
        """
        if encoder.network == "imagenet_supervised":
            return self._transfer()
        sizes, start = self._sizes, self.checkpoint()
        if encoder.random:
            start = str(self.random_encoder())
        elif encoder.method:
            start = str(self.folder(encoder) / "encoder.keras")
        values = {
            **self._views(
                sizes.image_size if encoder.network == "own" else sizes.imagenet_image_size
            ),
            **self._fit(_SCRATCH_RATE if encoder.random else _FINETUNE_RATE),
            "encoder": start,
            "augment": "views",
            "fresh_weights": encoder.random,
            "layer_decay": 1.0 if encoder.random else _LAYER_DECAY,
        }
        config = FinetuneConfig.from_values(values)
        return config, encoder_recipe(config, self.checkpoints.open(start))

    def _fit(self, rate: float) -> dict[str, Any]:
        return {
            "train_batch_size": self._sizes.finetune_batch,
            "eval_batch_size": _SCORED_AT_ONCE,
            "train_steps": self._sizes.finetune_steps,
            "optimizer": "adamw",
            "learning_rate": rate,
            "weight_decay": 1e-4,
            "warmup_epochs": 0.0,
        }

    def _transfer(self) -> tuple[ClassifierConfig, ClassifierJob]:
        d = self._settings.design
        values = {
            **self._views(self._sizes.imagenet_image_size),
            **self._fit(_IMAGENET_RATE),
            "horizontal_flip": True,
            "augment": "views",
            "backbone": d.backbone,
            "weights": d.imagenet_weights or (IMAGENET if d.download else NONE),
        }
        config = TransferConfig.from_values(values)
        size = config.augment.image_size

        def build(channels: int, classes: int) -> Classifier:
            backbone = build_backbone(
                d.backbone, image_size=size, channels=channels, weights=config.start.weights
            )
            model = Classifier(backbone, classes, (size, size, channels))
            model.build()
            # All of it but normalisation, whose statistics a few labels would only spoil.
            unfreeze_after(model.backbone, trunk_of(model.backbone).layers[0].name)
            return model

        return config, Transfer(config).recipe(build=build)


def missing_weights(settings: CompareSettings, encoder: Encoder, checkpoints: Checkpoints) -> str:
    """The reason why an encoder is not available, in a sentence; "" if it is.

    Args:
        settings: Of the comparison.
        encoder: Of a strategy.
        checkpoints: Where the public checkpoint is opened.
    """
    d = settings.design
    if encoder.network == "imagenet_supervised":
        if d.imagenet_weights and not Path(d.imagenet_weights).is_file():
            return f"--imagenet_weights={d.imagenet_weights} is no file"
        if not d.imagenet_weights and not d.download:
            return (
                f"the ImageNet weights of {d.backbone} are not here; give --imagenet_weights=FILE,"
                " or --download to let Keras fetch them"
            )
    if encoder.network == "imagenet_simclr":
        if not d.imagenet_checkpoint:
            return "no public checkpoint was named; give --imagenet_checkpoint=PATH"
        if not d.download and not _is_here(d.imagenet_checkpoint):
            return f"{d.imagenet_checkpoint} is not on this machine; --download fetches it"
        try:
            with setting_renamed(checkpoint="imagenet_checkpoint"):
                checkpoints.open(d.imagenet_checkpoint)
        except UserError as error:
            return str(error)
    return ""


def _is_here(path: str) -> bool:
    """Returns True if a checkpoint can be opened without a download."""
    if path.startswith(("gs://", "https://", "http://")):
        return False
    entry = zoo.find(path)
    return entry is None or Path(path).exists() or is_complete(zoo.cache_dir() / entry.name)
