"""Small crops beside the views of an image, for methods that take several sizes."""

import tensorflow as tf

from data_prep.augment.draws import small_crop_seed
from data_prep.augment.views import ViewConfig
from simclr_tf.training.batches import Batch, MakeExample, view_maker


def with_small_crops(views: ViewConfig, small: ViewConfig | None) -> ViewConfig | MakeExample:
    """What `training_batches` makes of an image: the views and, under their own names, small crops.

    Args:
        views: The augmentation.
        small: That of the small crops; None = there are none, and the views are all.

    Returns:
        Makes, beside `views` and `draws`, `small_views` [n, s, s, C] and `small_draws` [n, K].
    """
    if small is None:
        return views
    large_ones, small_ones = view_maker(views), view_maker(small)

    def make(image: tf.Tensor, seed: tf.Tensor) -> Batch:
        crops = small_ones(image, small_crop_seed(seed))
        return {**large_ones(image, seed), **{f"small_{k}": v for k, v in crops.items()}}

    return make
