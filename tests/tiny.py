"""A backbone of five convolutions, for tests in which the network is not the subject.

Tracing a ResNet-18 takes longer than all the steps of a short run. Processes that tests start know
it by `SIMCLR_TF_EXTENSIONS=tests.tiny`.
"""

from dataclasses import dataclass
from typing import Any

from data_prep.cli.runtime import import_tensorflow

import_tensorflow()  # else it complains of a missing graphics card where this module is the first

import keras
import tensorflow as tf

from simclr_tf.models.architectures import DescribedArchitecture
from simclr_tf.models.backbone import DescribedBackbone
from simclr_tf.models.batch_norm import BatchNorm
from simclr_tf.models.registry import register_backbone

NAME = "tiny"


@dataclass(frozen=True)
class TinyArchitecture(DescribedArchitecture):
    """The numbers of the network; `width_multiplier` is a flag."""

    backbone: str = NAME
    width_multiplier: float = 1.0
    image_channels: int = 3

    def filters(self, stage: int) -> int:
        """Channels behind the stem (0) and the block groups (1 to 4)."""
        return max(4, round((8, 8, 16, 16, 32)[stage] * self.width_multiplier))

    @property
    def feature_dim(self) -> int:
        return self.filters(4)


@keras.saving.register_keras_serializable(package="tests_tiny")
class Tiny(DescribedBackbone):
    """A stem and four groups of one convolution each, the last three strided."""

    architecture_type = TinyArchitecture

    def __init__(
        self,
        architecture: TinyArchitecture,
        batch_norm_decay: float = 0.9,
        global_bn: bool = True,
        trainability: dict[str, bool] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainability, **kwargs)
        self.architecture = architecture
        self.batch_norm_decay, self.global_bn = batch_norm_decay, global_bn
        self.stem, *self.block_groups = [self._stage(number) for number in range(5)]

    def _stage(self, number: int) -> keras.Sequential:
        own = {"dtype": self.dtype_policy}
        filters, stride = self.architecture.filters(number), 2 if number > 1 else 1
        layers = [
            keras.layers.Conv2D(filters, 3, stride, "same", use_bias=False, **own),
            BatchNorm(momentum=self.batch_norm_decay, sync=self.global_bn, **own),
            keras.layers.ReLU(**own),
        ]
        return keras.Sequential(layers, name=f"block_group{number}" if number else "stem")

    def build_stages(self) -> None:
        channels = self.architecture.image_channels
        for number, stage in self.stages.items():
            stage.build((None, None, None, channels))
            channels = self.architecture.filters(number)

    def run_stem(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        images = tf.ensure_shape(images, (None, None, None, self.image_channels))
        x = self.stem(images, training=training)
        return x, x

    def get_config(self) -> dict[str, Any]:
        own = {"batch_norm_decay": self.batch_norm_decay, "global_bn": self.global_bn}
        return {**super().get_config(), **own}


register_backbone(NAME, TinyArchitecture, Tiny)
