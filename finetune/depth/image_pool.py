"""The pool of made images that discriminators are shown (Shrivastava et al. 2017, section 2.3)."""

from collections.abc import Sequence

import keras
import tensorflow as tf

from simclr_tf.losses.replicas import gather_rows
from simclr_tf.methods.base import assign_all


def exchange(
    pool: tf.Tensor, count: tf.Tensor, images: tf.Tensor, swap: tf.Tensor, slot: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Puts images into a pool, one after the other, and takes as many out.

    While the pool is not full an image goes in and comes out as well. Then it goes in only if
    `swap` says so, and the one that was in its slot comes out instead; otherwise it comes out
    itself.

    Args:
        pool: Images [S, D].
        count: How many of them are filled, int32 scalar.
        images: The new ones, [n, D].
        swap: [n], bool.
        slot: [n], int32 in [0, S).

    Returns:
        What comes out, [n, D]; the pool and its count after that.
    """
    size = tf.shape(pool)[0]

    def one(
        i: tf.Tensor, pool: tf.Tensor, count: tf.Tensor, out: tf.TensorArray
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.TensorArray]:
        filling = count < size
        place = tf.where(filling, count, slot[i])
        goes_in = tf.logical_or(filling, swap[i])
        older = pool[tf.minimum(place, size - 1)]
        out = out.write(i, tf.where(tf.logical_and(goes_in, ~filling), older, images[i]))
        kept = tf.where(goes_in, images[i], older)
        pool = tf.tensor_scatter_nd_update(pool, [[place]], kept[tf.newaxis])
        return i + 1, pool, count + tf.cast(filling, tf.int32), out

    number = tf.shape(images)[0]
    out = tf.TensorArray(images.dtype, number, element_shape=images.shape[1:])
    _, pool, count, out = tf.while_loop(
        lambda i, *_: i < number, one, (tf.constant(0), pool, count, out)
    )
    return out.stack(), pool, count


class ImagePool:
    """A pool that all replicas keep alike; create it in the strategy's scope.

    Args:
        size: Images in it; 0 = none, so that images come out as they go in.
        image_shape: [H, W, C].
        seed: Of the draws, which also depend on the count of updates.
    """

    def __init__(self, size: int, image_shape: Sequence[int], seed: int) -> None:
        self._size, self._shape, self._seed = size, tuple(image_shape), seed
        pixels = self._shape[0] * self._shape[1] * self._shape[2]
        self.images = self._state((max(size, 1), pixels), "float32", "images")
        self.count = self._state((), "int32", "count")

    def _state(self, shape: tuple[int, ...], dtype: str, name: str) -> keras.Variable:
        return keras.Variable(
            "zeros", shape=shape, dtype=dtype, trainable=False, autocast=False, name=name
        )

    @property
    def state(self) -> dict[str, keras.Variable]:
        """What a run must find again."""
        return {"images": self.images, "count": self.count}

    def query(self, images: tf.Tensor, update: tf.Tensor) -> tf.Tensor:
        """What a discriminator is to be shown; call it in every replica.

        Args:
            images: Just made, [b, H, W, C] of this replica.
            update: Number of the update, int64 scalar: another one, other draws.

        Returns:
            [b, H, W, C].
        """
        if not self._size:
            return images
        batch = images.shape[0]
        rows, first = gather_rows(tf.reshape(images, [batch, -1]))
        number = rows.shape[0]
        seed = tf.stack([tf.constant(self._seed, tf.int64), tf.cast(update, tf.int64)])
        draws = tf.random.stateless_uniform([2, number], seed)
        slot = tf.minimum(tf.cast(draws[1] * self._size, tf.int32), self._size - 1)
        shown, pool, count = exchange(
            tf.convert_to_tensor(self.images), tf.convert_to_tensor(self.count), rows,
            draws[0] < 0.5, slot,
        )  # fmt: skip
        assign_all([self.images, self.count], [pool, count])
        return tf.reshape(shown[first : first + batch], [batch, *self._shape])
