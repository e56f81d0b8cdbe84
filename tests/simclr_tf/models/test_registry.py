"""What holds for every backbone: files, channels, endpoints, freezing, decay."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.losses.weight_decay import decayed_variables
from simclr_tf.models import SimCLREncoder, SimCLRModel, canonical_variables, freeze
from simclr_tf.models.architectures import BACKBONES
from simclr_tf.models.variable_names import (
    normalization_variables,
    supervised_head_variables,
    tf2_checkpoint_keys,
)
from simclr_tf.models.weights import batch_norms, moved, part_hashes
from simclr_tf.optim.factory import build_optimizer
from tests.simclr_tf.backbones import QUICK, SMALL, encoder, images, model, shared_encoder

STAGES = ("stem", "block_group1", "block_group2", "block_group3", "block_group4")
FIXED = ("vit_tiny", "vit_small")  # their stems: the projection of patches


def marked(names: Iterable[str]) -> list[Any]:
    """Parameters; networks of Keras, which are not small, are slow ones."""
    slow = pytest.mark.slow
    return [pytest.param(n, marks=slow) if n.startswith("keras:") else n for n in names]


EACH = marked(QUICK)


def test_every_backbone_is_tested() -> None:
    assert set(BACKBONES) <= set(SMALL)


@pytest.mark.parametrize("name", marked(name for name in SMALL if name != "vit_small"))
def test_a_file_gives_the_same_features(name: str, tmp_path: Path) -> None:
    original = shared_encoder(name)
    original.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    assert loaded.get_config() == original.get_config()
    x = images()
    np.testing.assert_array_equal(loaded(x), original(x))
    assert np.ptp(original(x), axis=0).max() > 1e-4, "images differ in their features"


@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("name", EACH)
def test_images_may_have_any_number_of_channels_and_each_of_them_counts(
    name: str, channels: int
) -> None:
    network = shared_encoder(name, channels)
    assert network.image_channels == channels
    x = images(channels, 2)
    features = network(x).numpy()
    assert features.shape == (2, network.feature_dim)
    for channel in range(channels):
        other = x.copy()
        other[..., channel] = 1 - other[..., channel]
        assert np.abs(network(other) - features).max() > 1e-6, channel


@pytest.mark.parametrize("name", EACH)
def test_endpoints_are_maps_and_go_on_from_each_other(name: str) -> None:
    network = shared_encoder(name)
    x = images()
    ends = network.backbone().endpoints(x)
    assert list(ends) == [
        "initial_conv", "initial_max_pool", *STAGES[1:], "final_avg_pool",
    ]  # fmt: skip
    assert all(end.shape.rank == 4 for n, end in ends.items() if n != "final_avg_pool")
    np.testing.assert_allclose(
        ends["final_avg_pool"], tf.reduce_mean(ends["block_group4"], [1, 2]), atol=1e-6
    )
    for first in range(1, 5):
        before = ends[f"block_group{first - 1}" if first > 1 else "initial_max_pool"]
        again = network.backbone().endpoints(before, first_stage=first)
        np.testing.assert_allclose(again["final_avg_pool"], ends["final_avg_pool"], atol=1e-5)


def train(whole: SimCLRModel, steps: int = 2) -> dict[str, bool]:
    """Some steps that reach everything; which parts moved."""
    before = part_hashes(whole)
    optimizer = build_optimizer("momentum", 0.05, variables=whole.trainable_variables)
    x = images(whole.image_channels, 8)
    for _ in range(steps):
        with tf.GradientTape() as tape:
            outputs = whole.forward(x, training=True)
            loss = tf.reduce_mean(outputs.projection**2 * tf.range(8.0)) + tf.reduce_mean(
                outputs.logits[:, 0] ** 2 - outputs.logits[:, 1]
            )
        values = [v.value for v in whole.trainable_variables]
        gradients = tape.gradient(loss, values)
        pairs = [(g, v) for g, v in zip(gradients, whole.trainable_variables, strict=True)
                 if g is not None]  # fmt: skip
        optimizer.apply([g for g, _ in pairs], [v for _, v in pairs])
    return moved(before, part_hashes(whole))


@pytest.mark.parametrize("trained", [(1, "head"), ("stem", 2, 4)])
@pytest.mark.parametrize("name", EACH)
def test_exactly_the_frozen_parts_keep_weights_and_statistics(name: str, trained: tuple) -> None:  # type: ignore[type-arg]
    whole = model(name)
    freeze(whole, train_blocks=trained)
    changed = train(whole)
    expected = {
        stage: ("stem" if i == 0 else i) in trained and not (i == 0 and name in FIXED)
        for i, stage in enumerate(STAGES)
    }
    expected |= {"projection_head": "head" in trained, "supervised_head": True}
    assert changed == expected


@pytest.mark.parametrize("name", FIXED)
def test_the_projection_of_patches_stays_fixed_unless_it_is_to_train(name: str) -> None:
    whole = model(name)
    freeze(whole)
    whole.encoder.trainable = False
    whole.encoder.trainable = True  # which thaws every layer
    changed = train(whole)
    assert not changed.pop("stem")
    assert all(changed.values())
    options = {**SMALL[name]["backbone"], "fixed_patches": False}
    learning = SimCLRModel(SimCLREncoder(backbone=options, proj_out_dim=8), 3)
    learning.build()
    assert train(learning)["stem"]


@pytest.mark.parametrize("name", EACH)
def test_no_gradient_is_computed_below_the_first_part_that_trains(name: str) -> None:
    backbone = shared_encoder(name).backbone()
    stages = list(backbone.stages.values())
    x = tf.constant(images())
    try:
        for stage in stages[:3]:
            stage.trainable = False
        assert backbone.frozen_prefix == 2
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(backbone(x))
        assert tape.gradient(loss, x) is None
    finally:
        for stage in stages:
            stage.trainable = True
    # A stem that is fixed, before any stage trains, needs none either.
    assert backbone.frozen_prefix == (0 if name in FIXED else -1)


@pytest.mark.parametrize("name", EACH)
def test_frozen_parts_may_go_on_moving_their_statistics(name: str) -> None:
    whole = model(name)
    freeze(whole, 4, frozen_statistics_move=True)
    assert all(norm.frozen_statistics_move for norm in batch_norms(whole))
    changed = train(whole, 1)
    has_statistics = {
        stage
        for stage, layer in zip(STAGES, whole.encoder.backbone().stages.values(), strict=True)
        if any(v.name == "moving_mean" for v in layer.variables)
    }
    assert {stage for stage in STAGES if changed[stage]} == has_statistics


@pytest.mark.parametrize("name", EACH)
def test_every_variable_has_one_name_and_one_key(name: str) -> None:
    whole = model(name)
    named, keys = canonical_variables(whole), tf2_checkpoint_keys(whole)
    assert {id(v) for v in named.values()} == {id(v) for v in whole.variables}
    assert len(named) == len(keys) == len(whole.variables)
    assert any(n.startswith("base_model/stem/0/") for n in named)
    assert any(k.startswith("model/backbone/block_group4/") for k in keys)


@pytest.mark.parametrize("name", EACH)
def test_no_vector_of_a_backbone_is_decayed(name: str) -> None:
    whole = SimCLRModel(shared_encoder(name), 3)
    whole.build()
    variables = whole.trainable_variables
    head, norms = supervised_head_variables(whole), normalization_variables(whole)
    backbone = {id(v) for v in whole.encoder.backbone().variables}
    for optimizer in ("momentum", "lars", "adamw"):
        decayed = decayed_variables(optimizer, variables, head, norms)
        own = [v for v in decayed if id(v) in backbone]
        assert all(len(v.shape) > 1 for v in own)
        assert bool(own) == (optimizer == "momentum")
    lars: Any = build_optimizer(
        "lars", 0.1, weight_decay=1e-4, supervised_head=head, variables=variables
    )
    for variable in variables:
        kernel = len(variable.shape) > 1 and all(variable is not h for h in head)
        assert lars._decays(variable.value) == kernel


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_half_precision_computes_about_the_same_and_keeps_features_whole(name: str) -> None:
    exact = encoder(name)
    half = encoder(name, dtype="mixed_bfloat16")
    half.set_weights(exact.get_weights())
    x = images()
    ends, expected = half.backbone().endpoints(x), exact.backbone().endpoints(x)
    assert ends["block_group4"].dtype == tf.bfloat16
    assert half(x).dtype == tf.float32
    # Further on, a deep network at random makes much of small differences.
    near = "block_group1" if name.startswith("keras:") else "final_avg_pool"
    scale = float(np.abs(expected[near]).max())
    found = tf.cast(ends[near], tf.float32)
    np.testing.assert_allclose(found / scale, expected[near] / scale, atol=0.05)
    assert {v.dtype for v in half.variables} == {"float32"}


def test_images_smaller_than_a_patch_are_refused_in_one_line() -> None:
    backbone = shared_encoder("vit_tiny").backbone()
    backbone.check_image_size(4)
    with pytest.raises(UserError, match=r"--image_size=3: is smaller than a patch") as error:
        backbone.check_image_size(3)
    assert "\n" not in str(error.value)
