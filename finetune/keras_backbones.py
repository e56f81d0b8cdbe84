"""The networks of `keras.applications` as backbones: weights, their own preprocessing, freezing.

    backbone = build_backbone("vgg16", image_size=400, weights="vgg16_notop.weights.h5")
    model = Classifier(backbone, 13, (400, 400, 3), hidden=(2048, 1024))
    unfreeze_after(backbone, "block4_pool")     # for a second stage at a lower rate

A backbone takes images in [0, 1], grey or colour. Its first step converts them to what the weights
expect (0 to 255, BGR less the mean, -1 to 1, ...), so this happens exactly once, in training and in
everything exported.

`StandardizeInput` can stand in place of that step. It standardizes images by the arguments of
ImageDataGenerator (`rescale`, normalisation by each image or by the training set), so that these
too are part of the model, whichever pipeline makes the images.
"""

import difflib
from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np

from data_prep.augment.image_data_generator import FeatureStatistics, SupervisedConfig, standardize
from data_prep.errors import UserError
from simclr_tf.models.keras_applications import IMAGENET, PreprocessInput, build_trunk

Pooling = Literal["avg", "max", "flatten"]

_MOST_NAMED = 6
_POOLS = {
    "avg": keras.layers.GlobalAveragePooling2D,
    "max": keras.layers.GlobalMaxPooling2D,
    "flatten": keras.layers.Flatten,
}


def build_backbone(
    name: str,
    *,
    image_size: int,
    channels: int = 3,
    weights: str = IMAGENET,
    cut_layer: str = "",
    pooling: Pooling = "avg",
    inputs: keras.layers.Layer | None = None,
) -> keras.Model:
    """A network without its classification head, frozen; under a strategy call it in its scope.

    Args:
        name: Of the network, such as `vgg16` or `resnet50`.
        image_size: Side S of the images in pixels.
        channels: Of the images: 3, or 1, which is repeated.
        weights: `imagenet` (downloaded by Keras on first use), `none` (drawn at random), or a file
            of weights without the classification head: `.weights.h5`, or Keras' older `.h5`.
        cut_layer: Layer whose output is handed on; empty = the last.
        pooling: How feature maps become a vector: `avg` or `max` over places, or `flatten`.
        inputs: Makes the network's input [B, S, S, 3] of the images; None = `PreprocessInput`.

    Returns:
        Functional model: [B, S, S, channels] in [0, 1] -> features [B, D]. `trunk_of` finds the
        network of `keras.applications` in it.

    Raises:
        UserError: No such network, layer, file or download, images too small for it or of other
            channels, or weights of another network.
    """
    if channels not in (1, 3):
        raise UserError(
            f"takes grey or colour images, these have {channels} channels",
            setting="backbone",
            value=name,
        )
    trunk = build_trunk(name, (image_size, image_size, 3), weights)
    if cut_layer:
        output = layer_of(trunk, cut_layer, "cut_layer").output
        if len(output.shape) != 4:
            raise UserError("puts out no feature maps", setting="cut_layer", value=cut_layer)
        trunk = keras.Model(trunk.input, output, name=trunk.name)
    images = keras.Input((image_size, image_size, channels), name="images")
    shown = (inputs or PreprocessInput(name, name="preprocess_input", dtype="float32"))(images)
    # A half-precision average over many places would lose what the float32 head can use.
    pool = _POOLS[pooling](name=pooling, dtype="float32")
    backbone = keras.Model(images, pool(trunk(shown)), name="backbone")
    backbone.trainable = False
    return backbone


def trunk_of(backbone: keras.Model) -> keras.Model:
    """The network of `keras.applications` inside a backbone."""
    (trunk,) = (layer for layer in backbone.layers if isinstance(layer, keras.Model))
    return trunk


def inputs_of(backbone: keras.Model) -> keras.layers.Layer:
    """The layer that makes the network's input of images in [0, 1]."""
    return backbone.layers[1]


def layer_of(trunk: keras.Model, name: str, flag: str) -> keras.layers.Layer:
    """A layer by its name.

    Args:
        trunk: The network.
        name: Of the layer.
        flag: Where the name comes from, for the message.

    Raises:
        UserError: There is no such layer.
    """
    names = [layer.name for layer in trunk.layers]
    if name in names:
        return trunk.get_layer(name)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {_some(names[1:])}"
    raise UserError(f"{trunk.name} has no such layer; {hint}", setting=flag, value=name)


def unfreeze_after(backbone: keras.Model, layer: str, *, batch_norm: bool = False) -> int:
    """Lets what comes after a layer train. Call it before the optimizer is built.

    Args:
        backbone: From `build_backbone`.
        layer: Last one that stays frozen.
        batch_norm: Also batch normalisation, which then normalises by the batch and moves its
            statistics; else it keeps them and normalises by them.

    Returns:
        How many weights (numbers) of the backbone train now.

    Raises:
        UserError: There is no such layer, or nothing after it has weights.
    """
    trunk = trunk_of(backbone)
    names = [each.name for each in trunk.layers]
    first = names.index(layer_of(trunk, layer, "unfreeze_after").name) + 1
    backbone.trainable = True
    for position, each in enumerate(trunk.layers):
        norm = isinstance(each, keras.layers.BatchNormalization)
        each.trainable = position >= first and (batch_norm or not norm)
    count = sum(int(keras.ops.size(v)) for v in backbone.trainable_variables)
    if not count:
        backbone.trainable = False
        raise UserError(
            "nothing behind it has weights to train", setting="unfreeze_after", value=layer
        )
    return count


def _some(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")


@keras.saving.register_keras_serializable(package="finetune")
class StandardizeInput(keras.layers.Layer):
    """Keras' `standardize` of images in [0, 1], which count as 0 to 255.

    Call: [B, H, W, 1 or 3] in [0, 1] -> [B, H, W, 3]; grey is repeated.

    Args:
        options: Arguments of ImageDataGenerator that standardize.
        mean: Of the training images, one per channel, after `rescale`; for `featurewise_center`.
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
        """The standardized images in three channels."""
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
