"""The networks that make depth maps of images, and the discriminators that judge them.

All are `keras.Model`s of images [B, H, W, 1] in [0, 1]. Generators give [B, H, W, 1] in float32 on
the same scale; in depth maps 0 is the least depth of the training set and 1 the greatest. Heights
and widths that a network cannot halve often enough are padded inside and cut off again.
`encoder_unet` begins with the weights of a SimCLR encoder.

The sizes of Samsung's 3D metrology entry (72 x 48 pixels) are `autoencoder(size, (64, 128, 256),
2048)` with 57,378,049 parameters, `resnet_generator(size)` with 270,465 and
`patch_discriminator(size)` with 179,665.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data_prep.errors import UserError, setting_renamed
from simclr_tf.checkpoints.load import convert, open_checkpoint
from simclr_tf.models.batch_norm import BatchNorm
from simclr_tf.models.resnet import ResNet
from simclr_tf.models.simclr import SimCLREncoder

layers = keras.layers

Size = tuple[int, int]
Padding = tuple[tuple[int, int], tuple[int, int]]  # rows above and below, columns before and after
NO_PADDING: Padding = ((0, 0), (0, 0))

_LEAK = 0.2
_GAN_SPREAD = 0.02  # of initial weights (Zhu et al. 2017, section 7.1)


def autoencoder(
    size: Size, filters: Sequence[int] = (64, 128, 256), bottleneck: int = 2048
) -> keras.Model:
    """Strided convolutions to a dense bottleneck, and the mirror image of it.

    Args:
        size: Height and width.
        filters: Of the 3 x 3 convolutions, each of stride 2.
        bottleneck: Units of the dense layer in the middle.
    """
    images, x, cut = _entry(size, 2 ** len(filters))
    for number in filters:
        x = layers.Conv2D(number, 3, 2, "same", activation="relu")(x)
    shape = x.shape[1:]
    x = layers.Flatten()(x)
    x = layers.Dense(bottleneck, activation="relu")(x)
    x = layers.Dense(int(np.prod(shape)), activation="relu")(x)
    x = layers.Reshape(shape)(x)
    for number in reversed(filters[:-1]):
        x = layers.Conv2DTranspose(number, 3, 2, "same", activation="relu")(x)
    x = layers.Conv2DTranspose(1, 3, 2, "same")(x)
    return keras.Model(images, closing(x, cut), name="autoencoder")


def unet(size: Size, filters: Sequence[int] = (16, 32, 64, 128)) -> keras.Model:
    """A U-Net (Ronneberger et al. 2015) with batch normalisation.

    Args:
        size: Height and width.
        filters: Of the two 3 x 3 convolutions of every level.
    """
    images, x, cut = _entry(size, 2 ** (len(filters) - 1))
    skips = []
    for number in filters[:-1]:
        x = double_convolution(x, number)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = double_convolution(x, filters[-1])
    x = expanding_path(x, skips, filters[-2::-1])
    return keras.Model(images, closing(layers.Conv2D(1, 1)(x), cut), name="unet")


def expanding_path(x: Any, skips: Sequence[Any], filters: Sequence[int]) -> Any:
    """The half of a U-Net that goes up again.

    Args:
        x: The deepest features [B, h, w, c].
        skips: Of the levels above, each of twice the size (one less where that was odd), the
            shallowest first.
        filters: Of every level, the deepest first.
    """
    for skip, number in zip(reversed(skips), filters, strict=True):
        x = layers.UpSampling2D(interpolation="bilinear")(x)
        extra = [x.shape[axis] - skip.shape[axis] for axis in (1, 2)]
        if any(extra):
            x = layers.Cropping2D(((0, extra[0]), (0, extra[1])))(x)
        x = double_convolution(layers.Concatenate()([skip, x]), number)
    return x


def resnet_generator(
    size: Size, filters: Sequence[int] = (16, 32, 64), residual_blocks: int = 3
) -> keras.Model:
    """The generator of CycleGAN (Zhu et al. 2017, section 7.2; Johnson et al. 2016).

    Args:
        size: Height and width.
        filters: Of the 7 x 7 convolution at the beginning and of each 3 x 3 one of stride 2.
        residual_blocks: Of two 3 x 3 convolutions, at the lowest resolution.
    """
    images, x, cut = _entry(size, 2 ** (len(filters) - 1))
    x = _normalized(_gan_convolution(filters[0], 7)(x))
    for number in filters[1:]:
        x = _normalized(_gan_convolution(number, 3, 2)(x))
    for _ in range(residual_blocks):
        y = _normalized(_gan_convolution(filters[-1], 3)(x))
        y = _normalized(_gan_convolution(filters[-1], 3)(y), activate=False)
        x = layers.Add()([x, y])
    for number in reversed(filters[:-1]):
        up = layers.Conv2DTranspose(number, 3, 2, "same", kernel_initializer=_gan_weights())
        x = _normalized(up(x))
    return keras.Model(images, closing(_gan_convolution(1, 7)(x), cut, "sigmoid"), name="generator")


def patch_discriminator(size: Size, filters: Sequence[int] = (16, 16, 32, 64, 128)) -> keras.Model:
    """A PatchGAN discriminator (Isola et al. 2017, section 3.2.2): a score for every patch.

    A 7 x 7 convolution, then 4 x 4 ones, of stride 2 but for the last two; no normalisation on the
    first two. Scores [B, h, w, 1] in float32, without activation.

    Args:
        size: Height and width.
        filters: Of all convolutions but the last, which has one.
    """
    images, x, _ = _entry(size, 1)
    last = len(filters) - 1
    for place, number in enumerate(filters):
        kernel, stride = (4, 2) if 0 < place < last else (4, 1)
        x = _gan_convolution(number, kernel if place else 7, stride)(x)
        if place > 1:
            x = layers.GroupNormalization(-1)(x)
        x = layers.LeakyReLU(_LEAK)(x)
    scores = _gan_convolution(1, 4)(x)
    return keras.Model(images, closing(scores), name="discriminator")


def _entry(size: Size, multiple: int) -> tuple[Any, Any, Padding]:
    """Input, the same on [-1, 1] and padded to a multiple of pixels, and the padding."""
    images = keras.Input((*size, 1), name="images")
    x = layers.Rescaling(2.0, -1.0)(images)
    missing = [-side % multiple for side in size]
    rows, columns = ((extra // 2, extra - extra // 2) for extra in missing)
    if any(missing):
        x = layers.ZeroPadding2D((rows, columns))(x)
    return images, x, (rows, columns)


def closing(x: Any, cut: Padding = NO_PADDING, activation: str = "linear") -> Any:
    """The padding cut off again, the activation in float32."""
    if cut != NO_PADDING:
        x = layers.Cropping2D(cut)(x)
    return layers.Activation(activation, dtype="float32")(x)


def double_convolution(x: Any, filters: int) -> Any:
    """Two 3 x 3 convolutions, each with batch normalisation and ReLU."""
    for _ in range(2):
        x = layers.Conv2D(
            filters, 3, padding="same", use_bias=False, kernel_initializer="he_normal"
        )(x)
        x = layers.ReLU()(BatchNorm()(x))
    return x


def _gan_weights() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=_GAN_SPREAD)


def _gan_convolution(filters: int, kernel: int, stride: int = 1) -> keras.layers.Layer:
    return layers.Conv2D(filters, kernel, stride, "same", kernel_initializer=_gan_weights())


def _normalized(x: Any, *, activate: bool = True) -> Any:
    """Instance normalisation (Ulyanov et al. 2016), as groups of one channel; then ReLU."""
    x = layers.GroupNormalization(-1)(x)
    return layers.ReLU()(x) if activate else x


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


def gray_encoder(path: str) -> SimCLREncoder:
    """A SimCLR encoder for images of one channel, with the weights of any checkpoint.

    Args:
        path: See `simclr_tf.checkpoints.find`.

    Raises:
        UserError: There is no such checkpoint, it is damaged, or of another network.
    """
    with setting_renamed(checkpoint="encoder"):
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
        encoder: For images of one channel; its weights are copied, in the current precision.
        filters: Of the expanding path, as those of `unet`: the first at the images' resolution.
            Deeper levels than there are numbers have the last.
        frozen: Keep the encoder's weights and statistics as they are.

    Raises:
        UserError: Its backbone is no ResNet.
    """
    source = encoder.backbone()
    if not isinstance(source, ResNet):
        raise UserError("the contracting path must be a SimCLRv2 ResNet", setting="encoder")
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
