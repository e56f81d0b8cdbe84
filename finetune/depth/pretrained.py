"""A SimCLR encoder as the contracting path of a U-Net."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from data_prep.errors import UserError
from finetune.depth.networks import Size, closing, double_convolution, expanding_path
from simclr_tf.checkpoints.load import convert, open_checkpoint
from simclr_tf.models.resnet import ResNet
from simclr_tf.models.simclr import SimCLREncoder

layers = keras.layers

_ENDS = ("initial_conv", "block_group1", "block_group2", "block_group3", "block_group4")


@keras.saving.register_keras_serializable(package="finetune")
class EncoderPyramid(keras.layers.Layer):
    """The intermediate features of a SimCLR ResNet.

    Call: images [B, H, W, 1] in [0, 1] -> the outputs of the first convolution (before
    normalisation) and of the four block groups, the shallowest first; of equally large ones only
    the deepest.

    Args:
        resnet: The network.
        **kwargs: Of `keras.layers.Layer`; the dtype is the network's.
    """

    def __init__(self, resnet: ResNet, **kwargs: Any) -> None:
        super().__init__(**{"dtype": resnet.dtype_policy, **kwargs})
        self.resnet = resnet

    def build(self, input_shape: Any) -> None:
        """Creates all weights."""
        self.resnet.build()
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> list[tf.Tensor]:
        """The features."""
        ends = self.resnet.endpoints(inputs, training=training)
        levels: list[tf.Tensor] = []
        for name in _ENDS:
            if levels and levels[-1].shape[1:3] == ends[name].shape[1:3]:
                levels.pop()
            levels.append(ends[name])
        return levels

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        resnet = keras.saving.serialize_keras_object(self.resnet)
        return {**super().get_config(), "resnet": resnet}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "EncoderPyramid":
        """The layer of a `get_config()`, with new weights."""
        resnet = keras.saving.deserialize_keras_object(config["resnet"])
        return cls(**{**config, "resnet": resnet})


def grey_encoder(path: str) -> SimCLREncoder:
    """A SimCLR encoder for images of one channel, with the weights of any checkpoint.

    Args:
        path: See `simclr_tf.checkpoints.find`.

    Raises:
        UserError: There is no such checkpoint, it is damaged, or of another network.
    """
    model, _ = convert(open_checkpoint(path), channels=1)
    return model.encoder


def encoder_unet(
    size: Size,
    encoder: SimCLREncoder,
    filters: Sequence[int] = (16, 32, 64, 128),
    *,
    frozen: bool = False,
) -> keras.Model:
    """A U-Net whose contracting path is a SimCLR encoder.

    Args:
        size: Height and width.
        encoder: For images of one channel; its weights are copied, in the precision of now.
        filters: Of the expanding path, as those of `unet`: the first at the images' resolution.
            Deeper levels than there are numbers have the last.
        frozen: Keep the encoder's weights and statistics as they are.

    Raises:
        UserError: Its backbone is no ResNet.
    """
    source = encoder.backbone()
    if not isinstance(source, ResNet):
        raise UserError("--encoder: the contracting path must be a SimCLRv2 ResNet")
    config = {**source.get_config(), "dtype": keras.config.dtype_policy()}
    resnet = ResNet.from_config({**config, "trainability": {}, "name": "encoder"})
    resnet.build()
    for target, value in zip(resnet.variables, source.variables, strict=True):
        target.assign(value.value.numpy())
    resnet.trainable = not frozen
    images = keras.Input((*size, 1), name="images")
    levels = EncoderPyramid(resnet, name="pyramid")(images)
    shallow = layers.Rescaling(2.0, -1.0)(images)
    x, skips = levels[-1], list(levels[:-1])
    if tuple(levels[0].shape[1:3]) != size:
        skips.insert(0, double_convolution(shallow, filters[0]))
    widths = [filters[min(i, len(filters) - 1)] for i in range(len(skips))]
    x = expanding_path(x, skips, widths[::-1])
    return keras.Model(images, closing(layers.Conv2D(1, 1)(x)), name="unet")
