import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from data_prep.errors import UserError
from finetune.explain import CHANNELS, feature_map_figure, feature_maps, liveliest
from finetune.keras_backbones import build_backbone, inputs_of, trunk_of

SIZE = 32


def test_maps_are_what_the_layer_puts_out() -> None:
    backbone = build_backbone("vgg16", image_size=SIZE, weights="none", channels=1)
    images = np.random.default_rng(0).random((2, SIZE, SIZE, 1)).astype(np.float32)
    found = feature_maps(backbone, ("block1_conv1", "block1_pool"), images)
    kernel, bias = trunk_of(backbone).get_layer("block1_conv1").get_weights()
    shown = np.asarray(inputs_of(backbone)(images))
    padded = np.pad(shown, ((0, 0), (1, 1), (1, 1), (0, 0)))
    expected = bias + sum(
        padded[:, i : i + SIZE, j : j + SIZE] @ kernel[i, j] for i in range(3) for j in range(3)
    )
    np.testing.assert_allclose(found["block1_conv1"], np.maximum(expected, 0), rtol=1e-3, atol=1e-3)
    assert found["block1_pool"].shape == (2, 16, 16, 64)


def test_unknown_layers_are_refused() -> None:
    backbone = build_backbone("vgg16", image_size=SIZE, weights="none")
    with pytest.raises(UserError, match="--feature_maps=block9: vgg16 has no such layer"):
        feature_maps(backbone, ("block9",), np.zeros((1, SIZE, SIZE, 3), np.float32))


def test_the_liveliest_channels_come_first_and_constant_ones_not_at_all() -> None:
    maps = np.zeros((2, 4, 4, 5), np.float32)
    rng = np.random.default_rng(0)
    for channel, spread in ((3, 5.0), (1, 2.0), (4, 0.5)):
        maps[..., channel] = rng.normal(0, spread, (2, 4, 4))
    maps[..., 2] = 9
    assert liveliest(maps).tolist() == [3, 1, 4]
    assert liveliest(maps, 2).tolist() == [3, 1]


def test_the_figure_has_a_row_an_image_one_scale_a_channel_and_no_overlaps() -> None:
    rng = np.random.default_rng(0)
    images, maps = rng.random((3, 8, 8, 1)), rng.random((3, 4, 4, 20)).astype(np.float32)
    figure = feature_map_figure(images, maps, ["a_long_file_name_00001.png"] * 3, title="block")
    grid = np.array(figure.axes).reshape(3, 1 + CHANNELS)
    first = liveliest(maps)[0]
    for row in range(3):
        shown = grid[row, 1].images[0]
        np.testing.assert_array_equal(shown.get_array(), maps[row, ..., first])
        own = maps[..., first]
        assert shown.get_clim() == pytest.approx((own.min(), own.max()))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    texts = [t.get_window_extent(renderer) for axes in grid.flat
             for t in (axes.title, axes.yaxis.label) if t.get_text()]  # fmt: skip
    assert len(texts) == 1 + CHANNELS + 3
    for i, one in enumerate(texts):
        assert not any(one.overlaps(other) for other in texts[i + 1 :])
