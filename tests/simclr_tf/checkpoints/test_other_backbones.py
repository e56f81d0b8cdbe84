"""Checkpoints of backbones that are no ResNets say themselves what they are of."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from simclr_tf.checkpoints.adapt import rescale
from simclr_tf.checkpoints.load import convert, load_encoder, load_variables, open_checkpoint
from simclr_tf.checkpoints.write import write_model
from simclr_tf.config.run_config import RunConfig
from simclr_tf.models import SimCLRModel
from simclr_tf.training.from_checkpoint import (
    adopt_checkpoint,
    network_facts,
    refuse_contradictions,
)
from tests.simclr_tf.backbones import QUICK, SMALL, encoder, images, model

VIT = "vit_tiny"


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *((VIT, layout) for layout in ("tf1", "tf2", "saved_model", "keras")),
        ("hybrid", "tf2"),
        pytest.param("hybrid", "saved_model", marks=pytest.mark.slow),
        pytest.param(QUICK[-1], "tf2", marks=pytest.mark.slow),
        pytest.param(QUICK[-1], "saved_model", marks=pytest.mark.slow),
    ],
)
def test_every_layout_comes_back_with_heads_and_settings(
    name: str, layout: str, tmp_path: Path
) -> None:
    original = model(name)
    path = tmp_path / ("m.keras" if layout == "keras" else "m")
    write_model(original, path, layout, part="model")  # type: ignore[arg-type]
    checkpoint = open_checkpoint(str(path))
    assert checkpoint.network.num_classes == 3
    again, coverage = convert(checkpoint)
    assert len(coverage.with_status("used")) == len(original.variables)
    x = images()
    expected, found = original(x), again(x)
    for end in ("final_avg_pool", "proj_head_output", "logits_sup"):
        np.testing.assert_allclose(found[end], expected[end], rtol=1e-5, atol=1e-6, err_msg=end)
    options = SMALL[name]["backbone"]
    facts = network_facts(checkpoint.network)
    assert facts["backbone"] == options["backbone"].lower()
    assert facts.get("transformer_depth") == options.get("transformer_depth")
    assert name in coverage.summary()


def test_an_encoder_that_is_loaded_trains_as_a_whole(tmp_path: Path) -> None:
    """The projection of patches is fixed in pretraining only."""
    original = model(VIT)
    assert not original.encoder.backbone().stem.trainable_variables
    write_model(original, tmp_path / "m", "tf2")
    assert load_encoder(tmp_path / "m").backbone().stem.trainable_variables


@pytest.mark.parametrize("name", [VIT, "hybrid"])
def test_a_stem_is_adapted_to_other_channels(name: str, tmp_path: Path) -> None:
    original = model(name)
    write_model(original, tmp_path / "m", "tf2")
    gray, _ = convert(open_checkpoint(str(tmp_path / "m")), channels=1)
    one = images(1)
    # Summed over the channels, equal ones are seen as before; patches are shifted by -1 first.
    found, expected = gray.encoder(one), original.encoder(np.repeat(one, 3, -1))
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("other", ["resnet", "hybrid", "vit_small"])
def test_weights_of_another_backbone_are_refused(other: str, tmp_path: Path) -> None:
    write_model(model(VIT), tmp_path / "m", "tf2")
    network = SimCLRModel(encoder(other), 3)
    network.build()
    if other == "vit_small":
        assert load_variables(network, open_checkpoint(str(tmp_path / "m"))).with_status("used"), (
            "same size"
        )
        return
    with pytest.raises(UserError, match=r"is vit_tiny, the network is .*check --backbone"):
        load_variables(network, open_checkpoint(str(tmp_path / "m")))


def test_a_run_takes_the_backbone_of_its_checkpoint(tmp_path: Path) -> None:
    write_model(model(VIT), tmp_path / "m", "tf2")
    start = {"checkpoint": str(tmp_path / "m"), "train_mode": "finetune"}
    config = adopt_checkpoint(RunConfig.from_values(start), set(start))
    m = config.model
    assert (m.backbone, m.patch_size, m.transformer_depth) == (VIT, 4, 4)
    assert m.width_multiplier == pytest.approx(1 / 12)
    options = config.backbone_options()
    assert options is not None
    assert not options["fixed_patches"], "for fine-tuning"
    given = {**start, "backbone": "vit_small"}
    with pytest.raises(UserError, match="you asked for --backbone=vit_small and it has vit_tiny"):
        adopt_checkpoint(RunConfig.from_values(given), set(given))


def test_a_student_of_another_kind_takes_nothing_of_its_teachers_size(tmp_path: Path) -> None:
    write_model(model(VIT), tmp_path / "m", "tf2")
    given = {"teacher": str(tmp_path / "m"), "train_mode": "distill", "backbone": "hybrid"}
    m = adopt_checkpoint(RunConfig.from_values(given), set(given)).model
    assert (m.backbone, m.width_multiplier, m.transformer_depth) == ("hybrid", 1.0, 0)


@pytest.mark.slow
def test_the_name_of_a_network_of_keras_may_be_spelled_in_any_case(tmp_path: Path) -> None:
    path = tmp_path / "m.keras"
    write_model(model(QUICK[-1]), path, "keras")
    checkpoint = open_checkpoint(str(path))
    refuse_contradictions(checkpoint, {"backbone": "keras:MobileNet-V3-Small"})
    with pytest.raises(UserError, match="it has keras:mobilenetv3small"):
        refuse_contradictions(checkpoint, {"backbone": "keras:ResNet50"})


def test_what_only_resnets_can_is_refused_for_others() -> None:
    with pytest.raises(UserError, match="--rescale: is for ResNets, not for vit_tiny"):
        rescale(model(VIT), 2.0)


def test_a_checkpoint_describes_its_network_in_json(tmp_path: Path) -> None:
    write_model(model(VIT), tmp_path / "m", "tf2")
    described = open_checkpoint(str(tmp_path / "m")).stored.description
    assert json.loads(json.dumps(described)) == described
    assert (described["backbone"], described["feature_dim"]) == (VIT, 16)
