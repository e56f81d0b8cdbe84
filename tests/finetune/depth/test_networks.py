"""The sizes of published networks, and shapes and precision of all of them."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from finetune.depth.networks import (
    autoencoder,
    encoder_unet,
    gray_encoder,
    patch_discriminator,
    resnet_generator,
    unet,
)
from tests.finetune.runs import RESNET, write_encoder

SAMSUNG = (72, 48)


def count(model: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def test_the_networks_of_the_samsung_entry_have_its_numbers_of_parameters() -> None:
    assert count(resnet_generator(SAMSUNG)) == 270_465
    assert count(patch_discriminator(SAMSUNG)) == 179_665
    network = autoencoder(SAMSUNG)
    assert count(network) == 57_378_049
    dense = [layer.units for layer in network.layers if isinstance(layer, keras.layers.Dense)]
    assert dense == [2048, 13_824]


@pytest.mark.parametrize("size", [(16, 12), (13, 9)])
def test_maps_have_the_size_of_images_and_depend_on_them(size: tuple[int, int]) -> None:
    keras.utils.set_random_seed(0)
    networks = [
        autoencoder(size, (4, 4), 6), unet(size, (2, 3, 4)), resnet_generator(size, (4, 4, 8), 1),
    ]  # fmt: skip
    images = np.random.default_rng(0).random((3, *size, 1), np.float32)
    for network in networks:
        maps = network(images, training=False).numpy()
        assert maps.shape == images.shape
        assert maps.dtype == np.float32
        assert np.abs(maps[0] - maps[1]).max() > 0
        border = np.concatenate([maps[:, 0].ravel(), maps[:, -1].ravel()])
        assert len(np.unique(border)) > 3, "what was padded is cut off, not what is seen"
    made = networks[-1](images).numpy()
    assert (made > 0).all()
    assert (made < 1).all()


def test_a_discriminator_scores_patches_that_see_their_surroundings_only() -> None:
    keras.utils.set_random_seed(0)
    judge = patch_discriminator((64, 48), (2, 2, 4))  # no norm that would mix the patches
    images = np.random.default_rng(0).random((1, 64, 48, 1), np.float32)
    changed = images.copy()
    changed[:, :4, :4] = 1 - changed[:, :4, :4]
    moved = np.abs(judge(images).numpy() - judge(changed).numpy())[0, ..., 0]
    assert judge.output_shape == (None, 32, 24, 1)
    assert moved[0, 0] > 0


@pytest.mark.slow
def test_an_encoder_is_the_contracting_path_and_may_be_kept_as_it_is(tmp_path: Path) -> None:
    encoder = gray_encoder(str(write_encoder(tmp_path / "encoder.keras", **RESNET)))
    assert encoder_unet((24, 16), encoder, (2,)).get_layer("pyramid").trainable_variables
    network = encoder_unet((24, 16), encoder, (2, 3), frozen=True)
    pyramid = network.get_layer("pyramid")
    images = np.random.default_rng(0).random((2, 24, 16, 1), np.float32)
    np.testing.assert_allclose(
        pyramid(images, training=False)[-1],
        encoder.resnet.endpoints(images, training=False)["block_group4"],
        atol=1e-5,
    )
    network(images, training=True)
    pairs = zip(encoder.resnet.variables, pyramid.variables, strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs), "statistics of normalisation included"
    assert not pyramid.trainable_variables
    network.save(tmp_path / "unet.keras")
    loaded = keras.models.load_model(tmp_path / "unet.keras")
    np.testing.assert_array_equal(loaded(images), network(images))


def test_in_half_precision_maps_and_scores_are_float32() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        networks = [
            unet((16, 8), (2, 2)),
            resnet_generator((16, 8), (2, 2), 1),
            patch_discriminator((16, 8), (2, 2, 2)),
            autoencoder((16, 8), (2,), 2),
        ]
    finally:
        keras.config.set_dtype_policy("float32")
    images = np.random.default_rng(0).random((1, 16, 8, 1), np.float32)
    assert all(network(images).dtype == tf.float32 for network in networks)
    assert networks[0].layers[-2].compute_dtype == "bfloat16"
