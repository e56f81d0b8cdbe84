"""Encoded images to pixels inside the TensorFlow graph, and decoded ones kept in memory.

JPEGs are decoded with the accurate inverse DCT: the same pixels as Pillow's, at the speed of
TensorFlow's default. Turned ones (EXIF) have decoders of their own, by orientation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from data_prep.reading.formats.picture import TURNED, steps_upright
from data_prep.reading.headers import Decoder
from data_prep.reading.images import read_image

_LUMA = (0.299, 0.587, 0.114)
_JPEG_MARGIN = 16  # a block of the coarsest colour sampling

Text: TypeAlias = tf.Tensor | str


@dataclass(frozen=True)
class _Encoded:
    """An image still to be decoded.

    Attributes:
        load: Makes the op that gives the bytes of the file.
        path: Name of the file; None if there are only the bytes.
        reading: What is declared of it.
        tile: The part that is wanted.
    """

    load: Callable[[], tf.Tensor]
    path: tf.Tensor | None
    reading: Text
    tile: Text


def decode_bytes(
    contents: tf.Tensor,
    decoder: tf.Tensor,
    present: Sequence[int],
    channels: int,
    dtype: tf.DType,
    reading: Text = "",
    tile: Text = "",
) -> tf.Tensor:
    """Decodes one image.

    Args:
        contents: The encoded file, string scalar.
        decoder: Its `picture.Decoder`, integer scalar; not looked at if only one is present.
        present: The decoders that occur at all; only these get into the graph.
        channels: Wanted channels: 1 or 3 (grey is repeated, colour reduced to luma), or those of
            the file.
        dtype: tf.uint8 (8-bit files only) or tf.float32 in [0, 1].
        reading: What is declared of the file, as in a manifest; string scalar.
        tile: The part of it that is wanted, as in a manifest; string scalar.

    Returns:
        [H, W, channels] of `dtype`.
    """
    encoded = _Encoded(lambda: contents, None, reading, tile)
    return _decode(encoded, decoder, present, channels, dtype)


def decode_file(
    path: tf.Tensor,
    decoder: tf.Tensor,
    present: Sequence[int],
    channels: int,
    dtype: tf.DType,
    reading: Text = "",
    tile: Text = "",
) -> tf.Tensor:
    """Like `decode_bytes`, from the name of a file; of an array only what is wanted is read."""
    encoded = _Encoded(lambda: tf.io.read_file(path), path, reading, tile)
    return _decode(encoded, decoder, present, channels, dtype)


def _decode(
    encoded: _Encoded, decoder: tf.Tensor, present: Sequence[int], channels: int, dtype: tf.DType
) -> tf.Tensor:
    kinds = sorted(set(present))
    branches = [_branch(Decoder(kind), encoded, channels, dtype) for kind in kinds]
    if len(kinds) == 1:
        image = branches[0]()
    else:
        branch = tf.reduce_sum(tf.cast(tf.cast(decoder, tf.int32) > kinds[:-1], tf.int32))
        image = tf.switch_case(branch, branches)
    image.set_shape([None, None, channels])
    return image


def _branch(
    decoder: Decoder, encoded: _Encoded, channels: int, dtype: tf.DType
) -> Callable[[], tf.Tensor]:
    def raster() -> tf.Tensor:
        # The op also reads PNG, and goes by the content, not by its name.
        image = tf.io.decode_jpeg(encoded.load(), channels=channels, dct_method="INTEGER_ACCURATE")
        return _to_dtype(image, dtype)

    def turned() -> tf.Tensor:
        swap, flips = steps_upright(TURNED[decoder])
        image = tf.transpose(raster(), [1, 0, 2]) if swap else raster()
        return tf.reverse(image, flips) if flips else image

    def png_color() -> tf.Tensor:
        image = tf.io.decode_png(encoded.load(), channels=3)
        return _to_dtype(_to_channels(image, 3, channels), dtype)

    def png16() -> tf.Tensor:
        # As stored, perhaps with alpha: TensorFlow's own way to grey would heed a gAMA chunk.
        image = tf.io.decode_png(encoded.load(), channels=0, dtype=tf.uint16)
        image = tf.cast(image, tf.float32) / 65535.0
        gray = tf.shape(image)[-1] <= 2
        if channels == 1:
            return tf.cond(gray, lambda: image[..., :1], lambda: _luma(image[..., :3]))
        return tf.cond(gray, lambda: tf.repeat(image[..., :1], 3, axis=-1), lambda: image[..., :3])

    def gif() -> tf.Tensor:
        image = tf.io.decode_image(encoded.load(), channels=3, expand_animations=False)
        return _to_dtype(_to_channels(image, 3, channels), dtype)

    def bmp() -> tf.Tensor:
        image = tf.io.decode_bmp(encoded.load())
        gray = tf.equal(tf.shape(image)[-1], 1)
        image = tf.cond(gray, lambda: tf.repeat(image, 3, axis=-1), lambda: image)
        return _to_dtype(_to_channels(image, 3, channels), dtype)

    def jpeg_tile() -> tf.Tensor:
        return _to_dtype(_decode_jpeg_tile(encoded.load(), encoded.tile, channels), dtype)

    def python() -> tf.Tensor:
        return _read_in_python(encoded, channels, dtype)

    if decoder in TURNED:
        return turned
    return {
        Decoder.RASTER: raster,
        Decoder.PNG_COLOR: png_color,
        Decoder.PNG16: png16,
        Decoder.GIF: gif,
        Decoder.BMP: bmp,
        Decoder.PYTHON: python,
        Decoder.DECLARED: python,
        Decoder.JPEG_TILE: jpeg_tile,
    }[decoder]


def _decode_jpeg_tile(contents: tf.Tensor, tile: Text, channels: int) -> tf.Tensor:
    """A tile of a JPEG, with the very pixels of the whole picture.

    At the border of the decoded part, colour is interpolated differently than inside, so a little
    more than the tile is decoded.
    """
    box = tf.ensure_shape(tf.strings.to_number(tf.strings.split(tile, ","), tf.int32), [4])
    start, size = tf.stack([box[1], box[0]]), tf.stack([box[3], box[2]])
    picture = tf.image.extract_jpeg_shape(contents)[:2]
    first = tf.maximum(start - _JPEG_MARGIN, 0)
    last = tf.minimum(start + size + _JPEG_MARGIN, picture)
    decoded = tf.image.decode_and_crop_jpeg(
        contents,
        tf.concat([first, last - first], 0),
        channels=channels,
        dct_method="INTEGER_ACCURATE",
    )
    offset = tf.concat([start - first, [0]], 0)
    return tf.slice(decoded, offset, tf.concat([size, [channels]], 0))


def _read_in_python(encoded: _Encoded, channels: int, dtype: tf.DType) -> tf.Tensor:
    by_name = encoded.path is not None

    def read(source: bytes, reading: bytes, tile: bytes) -> np.ndarray:
        held = _plain(source)
        image = read_image(
            held.decode() if by_name else held,
            channels,
            _plain(reading).decode(),
            _plain(tile).decode(),
        )
        if image.dtype == np.uint8 and dtype == tf.float32:
            return image.astype(np.float32) / np.float32(255)
        return image

    source = encoded.path if by_name else encoded.load()
    texts = [tf.convert_to_tensor(text) for text in (source, encoded.reading, encoded.tile)]
    image = tf.numpy_function(read, texts, dtype, stateful=False)
    image.set_shape([None, None, channels])
    return image


def _plain(text: bytes | np.ndarray) -> bytes:
    """The bytes of a string, which comes as an array of one object when run eagerly."""
    return text.item() if isinstance(text, np.ndarray) else text


def _to_dtype(image: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    return image if dtype == tf.uint8 else tf.cast(image, tf.float32) / 255.0


def _to_channels(image: tf.Tensor, present: int, wanted: int) -> tf.Tensor:
    if present == wanted:
        return image
    return tf.cast(tf.round(_luma(tf.cast(image, tf.float32))), tf.uint8)


def _luma(image: tf.Tensor) -> tf.Tensor:
    """[H, W, 1] of float32 [H, W, 3]."""
    return tf.tensordot(image, tf.constant(_LUMA), axes=1)[..., tf.newaxis]


class PixelCache:
    """All images of a set, held in memory once.

    They are a vector of variants, each an optional that holds one image: nothing is copied when
    images are put in or taken out, and datasets that use the vector refer to it. (One flat tensor
    with offsets would exist twice while it is filled, and every image would be copied out of it.)
    """

    def __init__(self, images: tf.data.Dataset, num_images: int, channels: int, dtype: tf.DType):
        """Runs through the images and keeps them.

        Args:
            images: The decoded images in order, [H, W, channels] of `dtype`.
            num_images: How many they are.
            channels: Channels of all images.
            dtype: Their type.
        """
        self._channels = channels
        self._dtype = dtype

        def wrap(image: tf.Tensor) -> tf.Tensor:
            return tf.raw_ops.OptionalFromValue(components=[image])

        with tf.device("CPU:0"):
            wrapped = images.map(tf.autograph.experimental.do_not_convert(wrap))
            self._images = wrapped.batch(num_images).get_single_element()

    def image(self, index: tf.Tensor) -> tf.Tensor:
        """One image, [H, W, channels]; graph code."""
        shape = [None, None, self._channels]
        (image,) = tf.raw_ops.OptionalGetValue(
            optional=self._images[index], output_types=[self._dtype], output_shapes=[shape]
        )
        return tf.ensure_shape(image, shape)
