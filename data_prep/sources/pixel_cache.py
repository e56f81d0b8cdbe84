"""Decoded images of different sizes in memory, each in a tensor of its own."""

import tensorflow as tf


class PixelCache:
    """All images of a set, held once.

    A vector of variants, each an optional that holds one image: nothing is copied when images are
    put in or taken out, and datasets that use the vector refer to it. (One flat tensor with offsets
    would exist twice while it is filled, and every image would be copied out of it.)
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
