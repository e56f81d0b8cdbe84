"""Small crops beside the views: what SwAV is shown."""

import numpy as np
import tensorflow as tf

from data_prep.augment.views import ViewConfig, host_views
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.batches import with_small_crops
from simclr_tf.training.build import small_view_config, view_config

PIXELS = np.random.default_rng(0).integers(0, 256, (48, 48, 1), np.uint8)


def settings(**values: object) -> RunConfig:
    return RunConfig.from_values({"method": "swav", "image_size": 56, **values})


def test_sizes_numbers_and_areas_are_the_papers() -> None:
    small = small_view_config(settings(), 1)
    large = view_config(settings(), 1)
    assert small is not None
    assert (small.image_size, small.num_views, small.crop_area) == (24, 6, (0.05, 0.14))
    assert (large.image_size, large.num_views, large.crop_area) == (56, 2, (0.14, 1.0))
    assert small_view_config(settings(image_size=224), 1).image_size == 96  # type: ignore[union-attr]


def test_without_them_the_views_are_those_of_every_method() -> None:
    for config in (settings(small_crops=0), settings(method="moco")):
        assert small_view_config(config, 1) is None
        assert view_config(config, 1).crop_area == (0.08, 1.0)
    views = ViewConfig(16, 1)
    assert with_small_crops(views, None) is views


def test_the_views_are_the_same_with_and_without_small_crops_which_draw_their_own() -> None:
    views, small = ViewConfig(16, 1), ViewConfig(16, 1, num_views=2)
    make = with_small_crops(views, small)
    assert callable(make)
    image, seed = tf.constant(PIXELS), tf.constant([3, 5], tf.int64)
    made = make(image, seed)
    alone, draws = host_views(image, seed, views)
    np.testing.assert_array_equal(made["views"], alone)
    np.testing.assert_array_equal(made["draws"], draws)
    assert not np.array_equal(made["small_views"], alone)
    assert not np.array_equal(made["small_draws"], draws)
