"""The classifier as a Keras model: shapes, files, inference mode of what is frozen."""

import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from finetune.classifier import (
    Classifier,
    ClassifierHead,
    SimCLRBackbone,
    load_classifier,
    simclr_keys,
)
from simclr_tf.checkpoints.load import load_model
from simclr_tf.checkpoints.store import CheckpointStore
from simclr_tf.models.simclr import SimCLREncoder, SimCLRModel
from simclr_tf.models.weights import batch_norms
from tests.finetune.runs import weights


def encoder(**options: Any) -> SimCLREncoder:
    return SimCLREncoder(18, width_multiplier=0.0625, cifar_stem=True, proj_out_dim=16, **options)


def classifier(selector: int = 0, seed: int = 0, **options: Any) -> Classifier:
    keras.utils.set_random_seed(seed)
    model = Classifier(SimCLRBackbone(encoder(), selector), 3, (32, 32, 3), **options)
    model.build()
    return model


def images(n: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, 32, 32, 3), np.float32)


@pytest.mark.parametrize("hidden", [(), (7,), (9, 5)])
def test_the_head_has_the_layers_asked_for_and_gives_logits(hidden: tuple[int, ...]) -> None:
    head = ClassifierHead(3, hidden)
    head.build((None, 6))
    widths = [6, *hidden, 3]
    assert [tuple(layer.kernel.shape) for layer in head.layers] == [
        (a, b) for a, b in itertools.pairwise(widths)
    ]
    x = np.random.default_rng(0).normal(size=(5, 6)).astype("float32")
    by_hand = x
    for layer in head.layers:
        by_hand = by_hand @ layer.kernel.numpy() + layer.bias.numpy()
        by_hand = by_hand if layer is head.layers[-1] else np.maximum(by_hand, 0)
    np.testing.assert_allclose(head(x), by_hand, rtol=1e-5, atol=1e-6)


def test_dropout_is_decided_by_the_seed_and_is_off_outside_training() -> None:
    head = ClassifierHead(3, (64,), dropout=0.5)
    head.build((None, 6))
    x = np.ones((2, 6), "float32")
    seeds = [tf.constant([0, 1], tf.int64), tf.constant([0, 1], tf.int64), tf.constant([0, 999])]
    first, same, other = (head(x, training=True, seed=tf.cast(s, tf.int64)) for s in seeds)
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(head(x), head(x))
    assert not np.array_equal(head(x), first)


@pytest.mark.parametrize("selector", [0, 1, -1])
def test_the_classifier_sits_on_the_selected_layer_of_the_projection_head(selector: int) -> None:
    model = classifier(selector)
    x = images()
    own: Any = model.backbone
    _, hiddens = own.encoder.hiddens(x)
    np.testing.assert_allclose(model.features(x), hiddens[selector], atol=1e-6)
    logits = model.head(hiddens[selector])
    np.testing.assert_allclose(model(x), tf.nn.softmax(logits), atol=1e-6)
    np.testing.assert_allclose(np.sum(model(x), axis=1), 1, atol=1e-6)


def test_a_layer_beyond_the_projection_head_is_refused() -> None:
    with pytest.raises(UserError, match="projection head"):
        SimCLRBackbone(encoder(), 4)


@pytest.mark.parametrize("parts", [(), (3, 4), None])
def test_a_file_gives_the_model_back_with_what_trains(
    tmp_path: Path, parts: tuple[int, ...] | None
) -> None:
    model = classifier(1, hidden=(5,), dropout=0.25, facts={"class_names": ["a", "b", "c"]})
    own: Any = model.backbone
    own.freeze_but(parts)
    model.save(tmp_path / "model.keras")
    again = load_classifier(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(images()), model(images()))
    assert again.class_names == ("a", "b", "c")
    assert again.head.dropout == 0.25
    assert len(again.trainable_variables) == len(model.trainable_variables)
    theirs, ours = again.get_config(), model.get_config()
    for config in (theirs, ours):
        del config["backbone"]  # among it is how Keras happened to build it
    assert theirs == ours


def test_a_frozen_backbone_runs_in_inference_mode_and_keeps_every_bit() -> None:
    model = classifier()
    own: Any = model.backbone
    own.freeze_but(())
    before = weights(model.backbone)
    x = images(8)
    np.testing.assert_array_equal(model.features(x, training=True), model.features(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, np.arange(8) % 3, epochs=2, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(model.backbone), strict=True))


def test_a_frozen_keras_backbone_keeps_its_batch_normalization_and_drops_nothing() -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3)(inputs)
    x = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(x))
    backbone = keras.Model(inputs, x)
    backbone.trainable = False
    model = Classifier(backbone, 2, (8, 8, 3))
    model.build()
    before = weights(backbone)
    x = np.random.default_rng(0).random((6, 8, 8, 3), np.float32)
    np.testing.assert_array_equal(model.features(x, training=True), model.features(x))
    assert all(np.array_equal(a, b) for a, b in zip(before, weights(backbone), strict=True))


@pytest.mark.parametrize(("pooling", "dim"), [("average", 4), ("flatten", 6 * 6 * 4)])
def test_maps_are_averaged_or_flattened(pooling: Any, dim: int, tmp_path: Path) -> None:
    inputs = keras.Input((8, 8, 3))
    backbone = keras.Model(inputs, keras.layers.Conv2D(4, 3)(inputs))
    model = Classifier(backbone, 2, (8, 8, 3), pooling=pooling)
    model.build()
    x = np.random.default_rng(0).random((3, 8, 8, 3), np.float32)
    maps = backbone(x).numpy()
    wanted = maps.mean(axis=(1, 2)) if pooling == "average" else maps.reshape(3, -1)
    np.testing.assert_allclose(model.features(x), wanted, atol=1e-6)
    assert wanted.shape == (3, dim)
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(load_classifier(tmp_path / "m.keras")(x), model(x), atol=1e-6)


def test_trained_blocks_move_their_statistics_and_frozen_ones_do_not() -> None:
    model = classifier()
    own: Any = model.backbone
    own.freeze_but((4,))
    norms = batch_norms(SimCLRModel(own.encoder))
    before = [norm.moving_mean.numpy() for norm in norms]
    model.logits(images(8), training=True)
    moved = [not np.array_equal(b, n.moving_mean.numpy())
             for b, n in zip(before, norms, strict=True)]  # fmt: skip
    in_group_4 = {id(leaf) for leaf in own.encoder.resnet.block_groups[3].creation_order()}
    assert moved == [id(norm) in in_group_4 for norm in norms]


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [(), (6,)])
def test_checkpoints_are_read_like_those_of_simclr_run(
    tmp_path: Path, hidden: tuple[int, ...]
) -> None:
    model = classifier(hidden=hidden)
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    CheckpointStore(tmp_path, model, optimizer, keys=simclr_keys(model)).save(3)
    read = load_model(tmp_path / "ckpt-3")
    x = images()
    np.testing.assert_allclose(read.encoder(x), model.features(x), atol=1e-5)
    if hidden:
        assert read.num_classes is None
    else:
        np.testing.assert_allclose(read(x)["logits_sup"], model.logits(x), atol=1e-5)
    other = classifier(seed=1, hidden=hidden)
    fresh = keras.optimizers.Adam()
    fresh.build(other.trainable_variables)
    assert CheckpointStore(tmp_path, other, fresh, keys=simclr_keys(other)).restore_latest() == 3
    assert all(np.array_equal(a, b) for a, b in zip(weights(model), weights(other), strict=True))
