"""What was frozen before saving is frozen after loading, and nothing else is."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.models import SimCLREncoder, SimCLRModel, freeze
from simclr_tf.models.backbone import trainability_of
from simclr_tf.models.blocks import leaves
from simclr_tf.models.resnet import ResNet
from simclr_tf.models.weights import batch_norms
from tests import golden


def encoder() -> SimCLREncoder:
    built = SimCLREncoder(18, width_multiplier=0.0625, cifar_stem=True)
    built.build((None, None, None, 3))
    return built


def model() -> SimCLRModel:
    built = SimCLRModel(SimCLREncoder(18, width_multiplier=0.0625, cifar_stem=True), 3)
    built.build((None, None, None, 3))
    return built


def reloaded(original: keras.Model, tmp_path: Path) -> keras.Model:
    original.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == original.get_config()
    return loaded


def trained(network: keras.Model) -> list[str]:
    return [v.path.split("/", 1)[1] for v in network.trainable_variables]


def freeze_statistics(network: SimCLREncoder) -> None:
    for norm in batch_norms(SimCLRModel(network)):
        norm.trainable = False


def freeze_all(network: SimCLREncoder) -> None:
    network.trainable = False


def freeze_all_but_one_block(network: SimCLREncoder) -> None:
    network.trainable = False
    network.resnet.block_groups[3].blocks[1].trainable = True


def freeze_projection_head(network: SimCLREncoder) -> None:
    network.projection_head.trainable = False


def freeze_two_parts(network: SimCLREncoder) -> None:
    network.resnet.stem.trainable = False
    network.projection_head.projection_layers[2].trainable = False


@pytest.mark.parametrize(
    "how",
    [
        freeze_all,
        freeze_all_but_one_block,
        freeze_projection_head,
        freeze_two_parts,
        freeze_statistics,
    ],
)
def test_an_encoder_file_keeps_what_is_frozen(
    how: Callable[[SimCLREncoder], None], tmp_path: Path
) -> None:
    original = encoder()
    how(original)
    loaded = reloaded(original, tmp_path)
    assert [v.trainable for v in loaded.variables] == [v.trainable for v in original.variables]
    for a, b in zip(loaded.resnet.creation_order(), original.resnet.creation_order(), strict=True):
        assert a.trainable == b.trainable
    assert trained(loaded) == trained(original)


def test_frozen_statistics_stay_after_loading(tmp_path: Path) -> None:
    original = encoder()
    original.trainable = False
    loaded = reloaded(original, tmp_path)
    loaded(golden.images("trainability", 4, 16, 3), training=True)
    for a, b in zip(loaded.variables, original.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_backbone_file_keeps_what_is_frozen(tmp_path: Path) -> None:
    original = ResNet(18, width_multiplier=0.0625, cifar_stem=True)
    original.build()
    original.block_groups[0].trainable = False
    assert trained(reloaded(original, tmp_path)) == trained(original)


@pytest.mark.parametrize("after_block", [-1, 2, 4])
def test_a_model_file_keeps_what_is_frozen(after_block: int, tmp_path: Path) -> None:
    original = model()
    freeze(original, after_block, unused_projection_head=False)
    assert trained(reloaded(original, tmp_path)) == trained(original)


def test_a_frozen_supervised_head_stays_frozen(tmp_path: Path) -> None:
    original = model()
    original.supervised_head.trainable = False  # type: ignore[union-attr]
    assert trained(reloaded(original, tmp_path)) == trained(original)


@pytest.mark.slow
def test_a_compiled_classifier_on_a_frozen_encoder_goes_on_training(tmp_path: Path) -> None:
    frozen = encoder()
    frozen.projection_head.trainable = False
    frozen.resnet.stem.trainable = False
    classifier = keras.Sequential([keras.Input((16, 16, 3)), frozen, keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    classifier.compile(keras.optimizers.Adam(1e-3), loss)
    x, y = golden.images("trainability", 8, 16, 3), np.arange(8) % 3
    classifier.fit(x, y, batch_size=4, epochs=1, verbose=0)
    classifier.save(tmp_path / "classifier.keras")
    loaded = keras.models.load_model(tmp_path / "classifier.keras")
    for a, b in zip(loaded.optimizer.variables, classifier.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    stem = leaves(loaded.layers[0].resnet.stem)[0].kernel.numpy()
    loaded.fit(x, y, batch_size=4, epochs=1, verbose=0)
    np.testing.assert_array_equal(leaves(loaded.layers[0].resnet.stem)[0].kernel.numpy(), stem)
    assert tf.reduce_all(tf.math.is_finite(loaded(x)))


def test_only_what_differs_is_written() -> None:
    network = encoder()
    assert trainability_of(network) == {}
    network.projection_head.trainable = False
    assert trainability_of(network) == {"./projection_head": False}
    freeze_all_but_one_block(network)
    assert trainability_of(network) == {".": False, "./resnet/block_group4/block_1": True}
