"""ImageDataGenerator's standardization as a layer of the model, for backbones without their own.

What a model was trained on (`rescale`, normalisation by each image or by the training set) is then
a part of it: it happens once, whichever pipeline makes the images, and in everything exported.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from data_prep.augment.image_data_generator import FeatureStatistics, SupervisedConfig, standardize


@keras.saving.register_keras_serializable(package="finetune")
class StandardizeInput(keras.layers.Layer):
    """Keras' `standardize` of images in [0, 1], which count as 0 to 255.

    Call: [B, H, W, 1 or 3] in [0, 1] -> [B, H, W, 3]; grey is repeated.

    Args:
        options: Arguments of ImageDataGenerator that standardize.
        mean: Of the training images, one a channel, after `rescale`; for `featurewise_center`.
        std: Their standard deviation, likewise.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(
        self,
        options: dict[str, Any],
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.options = dict(options)
        self.mean, self.std = list(mean), list(std)
        self._config = SupervisedConfig(**self.options)

    def call(self, images: Any) -> Any:
        """What the network is shown."""
        known = FeatureStatistics(np.array(self.mean), np.array(self.std)) if self.mean else None
        shown = standardize(images * 255.0, self._config, known)
        return keras.ops.repeat(shown, 3, axis=-1) if shown.shape[-1] == 1 else shown

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """[B, H, W, 3]."""
        return (*input_shape[:-1], 3)

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        own = {"options": self.options, "mean": self.mean, "std": self.std}
        return {**super().get_config(), **own}
