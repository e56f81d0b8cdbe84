"""Attention and positions against loops in NumPy, and what vision transformers are made of."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.models.architectures import ViTArchitecture
from simclr_tf.models.keras_applications import shapes_only
from simclr_tf.models.vit import Attention, TransformerBlock, ViT, position_embedding


def test_positions_are_sines_and_cosines_of_column_and_row() -> None:
    height, width, dim = 3, 5, 16
    expected = np.zeros((height, width, dim))
    quarter = dim // 4
    for row in range(height):
        for column in range(width):
            for k in range(quarter):
                frequency = 1 / 10000 ** (k / quarter)
                expected[row, column, k] = np.sin(column * frequency)
                expected[row, column, quarter + k] = np.cos(column * frequency)
                expected[row, column, 2 * quarter + k] = np.sin(row * frequency)
                expected[row, column, 3 * quarter + k] = np.cos(row * frequency)
    np.testing.assert_allclose(position_embedding(height, width, dim), expected, atol=1e-6)


def test_attention_mixes_tokens_as_a_loop_does() -> None:
    batch, tokens, width, heads = 2, 5, 12, 3
    each = width // heads
    layer = Attention(width, heads)
    layer.build((None, None, width))
    rng = np.random.default_rng(0)
    for variable in layer.variables:
        variable.assign(rng.normal(0, 0.5, variable.shape))
    x = rng.normal(size=(batch, tokens, width))
    kernel, bias, kernel_out, bias_out = (v.numpy().astype(np.float64) for v in layer.variables)
    expected = np.zeros((batch, tokens, width))
    for b in range(batch):
        made = x[b] @ kernel + bias
        query, key, value = made[:, :width], made[:, width : 2 * width], made[:, 2 * width :]
        joined = np.zeros((tokens, width))
        for h in range(heads):
            own = slice(h * each, (h + 1) * each)
            for i in range(tokens):
                scores = np.array([query[i, own] @ key[j, own] for j in range(tokens)])
                weights = np.exp(scores / np.sqrt(each))
                weights /= weights.sum()
                joined[i, own] = sum(w * value[j, own] for j, w in enumerate(weights))
        expected[b] = joined @ kernel_out + bias_out
    np.testing.assert_allclose(layer(tf.constant(x, tf.float32)), expected, atol=1e-5)


def test_query_key_and_value_each_start_with_xaviers_values() -> None:
    keras.utils.set_random_seed(0)
    layer = Attention(64, 4)
    layer.build((None, None, 64))
    kernel = layer.query_key_value.kernel.numpy()
    limit = np.sqrt(6 / 128)
    assert np.abs(kernel).max() <= limit
    assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.02)


def test_in_half_precision_the_softmax_is_not() -> None:
    """Sixteen times the same large score: in bfloat16 the weights would not sum to 1."""
    layer = Attention(8, 1, dtype="mixed_bfloat16")
    layer.build((None, None, 8))
    rng = np.random.default_rng(0)
    for variable in layer.variables:
        variable.assign(rng.normal(0, 0.3, variable.shape))
    x = rng.normal(size=(1, 300, 8)).astype(np.float32)
    exact = Attention(8, 1)
    exact.build((None, None, 8))
    exact.set_weights(layer.get_weights())
    found = layer(x)
    assert found.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(found, tf.float32), exact(x), atol=0.02)


def test_every_vector_of_a_block_is_excluded_from_decay_by_its_rank() -> None:
    block = TransformerBlock(8, 2)
    block.build((None, None, 8))
    ranks = {v.path.split("/", 1)[1]: len(v.shape) for v in block.variables}
    assert {n.rsplit("/", 1)[-1] for n, rank in ranks.items() if rank == 2} == {"kernel"}
    assert {n.rsplit("/", 1)[-1] for n, rank in ranks.items() if rank == 1} == {
        "gamma", "beta", "bias",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "published"),
    # Parameters of timm's vit_tiny/small_patch16_224 without their classification heads.
    [("vit_tiny", 5_524_416), ("vit_small", 21_665_664)],
)
def test_vits_have_the_published_number_of_parameters(name: str, published: int) -> None:
    network = ViT(ViTArchitecture(name))
    with shapes_only():
        network.build()
    d, positions = network.architecture.width, 197
    # Those have learned positions, a class token and a normalisation at the end.
    assert network.count_params() == published - positions * d - d - 2 * d
    block = 12 * d * d + 13 * d
    assert network.count_params() == 12 * block + 3 * 16 * 16 * d + d


def test_any_image_size_is_taken_with_known_and_unknown_sides() -> None:
    network = ViT(ViTArchitecture("vit_tiny", 1 / 12, 4, 3, patch_size=4))
    network.build()

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3])])
    def unknown(images: tf.Tensor) -> tf.Tensor:
        return network.endpoints(images)["block_group4"]

    for height, width in ((16, 16), (12, 20), (13, 5)):
        images = np.random.default_rng(0).random((2, height, width, 3)).astype(np.float32)
        maps = network.endpoints(images)["block_group4"]
        assert maps.shape == (2, -(-height // 4), -(-width // 4), 16)
        np.testing.assert_allclose(unknown(images), maps, atol=1e-5)


def test_the_place_of_a_patch_counts() -> None:
    network = ViT(ViTArchitecture("vit_tiny", 1 / 12, 4, 1, patch_size=4))
    image = np.zeros((1, 8, 8, 1), np.float32)
    image[:, :4, :4] = 1
    turned = image[:, ::-1]
    assert np.abs(network(image) - network(turned)).max() > 1e-3


def test_a_patch_is_projected_as_by_a_dense_layer_of_its_pixels() -> None:
    network = ViT(ViTArchitecture("vit_tiny", 1 / 12, 4, 2, patch_size=4))
    network.build()
    kernel = network.stem.kernel.numpy()
    limit = np.sqrt(6 / (4 * 4 * 2 + 16))
    assert limit / 2 < np.abs(kernel).max() <= limit
    images = np.random.default_rng(0).random((1, 8, 8, 2)).astype(np.float32)
    patch = images[0, 4:8, 0:4].reshape(-1) * 2 - 1
    expected = patch @ kernel.reshape(-1, 16)
    np.testing.assert_allclose(network.stem(images)[0, 1, 0], expected, atol=1e-5)
