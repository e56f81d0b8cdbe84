"""Encoded image bytes to pixels inside the TensorFlow graph.

JPEGs are decoded with the accurate inverse DCT: the same pixels as Pillow's, at the speed of
TensorFlow's default. As everywhere here, EXIF orientation is not applied.
"""

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from data_prep.headers import Decoder
from data_prep.readers import read_image

_LUMA = (0.299, 0.587, 0.114)


def decode_bytes(
    contents: tf.Tensor,
    decoder: tf.Tensor,
    present: Sequence[int],
    channels: int,
    dtype: tf.DType,
) -> tf.Tensor:
    """Decodes one image.

    Args:
        contents: The encoded file, string scalar.
        decoder: Which `headers.Decoder` it takes, integer scalar; not looked at if only one can be.
        present: The decoders that occur at all; only these get into the graph.
        channels: Wanted channels: 1 or 3 (grey is repeated, colour reduced to luma), or those of
            the file.
        dtype: tf.uint8 (8-bit files only) or tf.float32 in [0, 1].

    Returns:
        [H, W, channels] of `dtype`.
    """
    kinds = sorted(set(present))
    branches = [_branch(Decoder(kind), contents, channels, dtype) for kind in kinds]
    if len(kinds) == 1:
        image = branches[0]()
    else:
        branch = tf.reduce_sum(tf.cast(tf.cast(decoder, tf.int32) > kinds[:-1], tf.int32))
        image = tf.switch_case(branch, branches)
    image.set_shape([None, None, channels])
    return image


def _branch(
    decoder: Decoder, contents: tf.Tensor, channels: int, dtype: tf.DType
) -> Callable[[], tf.Tensor]:
    def raster() -> tf.Tensor:
        # The op also reads PNG, and goes by the content, not by its name.
        image = tf.io.decode_jpeg(contents, channels=channels, dct_method="INTEGER_ACCURATE")
        return _to_dtype(image, dtype)

    def png16() -> tf.Tensor:
        image = tf.io.decode_png(contents, channels=channels, dtype=tf.uint16)
        return tf.cast(image, tf.float32) / 65535.0

    def gif() -> tf.Tensor:
        image = tf.io.decode_image(contents, channels=3, expand_animations=False)
        return _to_dtype(_to_channels(image, 3, channels), dtype)

    def bmp() -> tf.Tensor:
        image = tf.io.decode_bmp(contents)
        grey = tf.equal(tf.shape(image)[-1], 1)
        image = tf.cond(grey, lambda: tf.repeat(image, 3, axis=-1), lambda: image)
        return _to_dtype(_to_channels(image, 3, channels), dtype)

    def python() -> tf.Tensor:
        def read(encoded: bytes | np.ndarray) -> np.ndarray:
            # Bytes in a graph; an array of one object when run eagerly.
            held = encoded.item() if isinstance(encoded, np.ndarray) else encoded
            image = read_image(held, channels)
            if image.dtype == np.uint8 and dtype == tf.float32:
                return image.astype(np.float32) / np.float32(255)
            return image

        image = tf.numpy_function(read, [contents], dtype, stateful=False)
        image.set_shape([None, None, channels])
        return image

    return {
        Decoder.RASTER: raster,
        Decoder.PNG16: png16,
        Decoder.GIF: gif,
        Decoder.BMP: bmp,
        Decoder.PYTHON: python,
    }[decoder]


def _to_dtype(image: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return image if dtype == tf.uint8 else tf.cast(image, tf.float32) / 255.0


def _to_channels(image: tf.Tensor, present: int, wanted: int) -> tf.Tensor:
    if present == wanted:
        return image
    grey = tf.tensordot(tf.cast(image, tf.float32), tf.constant(_LUMA), axes=1)
    return tf.cast(tf.round(grey), tf.uint8)[..., tf.newaxis]
