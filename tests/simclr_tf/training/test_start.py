"""Runs that start from a public checkpoint: what is taken from it, what moves and what does not."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.checkpoints.load import load_encoder, load_model
from simclr_tf.config.run_config import RunConfig
from simclr_tf.models import canonical_variables
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.from_checkpoint import adopt_checkpoint
from simclr_tf.training.run import execute
from tests.images import make_folder, make_split_folder
from tests.simclr_tf.checkpoints.common import path_of

TF1 = str(path_of("tf1_tiny_r18_w8_cifar_pretrain"))
GIVEN: dict[str, Any] = {
    "mode": "train_then_eval",
    "floors": False,
    "train_mode": "finetune",
    "train_batch_size": 8,
    "eval_batch_size": 8,
    "train_steps": 4,
    "checkpoint_steps": 2,
    "warmup_epochs": 0.0,
    "learning_rate": 1.0,
    "precision": "float32",
    "health_watch": False,
    "checkpoint": TF1,
}
PLAIN = {"random_crop": False, "horizontal_flip": False}


def start(images: Path, model_dir: Path, **values: Any) -> dict[str, Any]:
    """Runs with the network's flags left open; what `result.json` holds."""
    given = {**GIVEN, "image_dir": str(images), "model_dir": str(model_dir), **values}
    config = adopt_checkpoint(RunConfig.from_values(given), given)
    assert execute(config) == 0
    return json.loads((model_dir / "result.json").read_text())


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_split_folder(tmp_path_factory.mktemp("images"))


def moved(result: dict[str, Any]) -> set[str]:
    return {name for name, part in result["blocks"].items() if part["moved"]}


def same_bits(a: keras.Model, b: keras.Model, scopes: tuple[str, ...]) -> dict[str, bool]:
    """Whether each variable below a scope is the same in both, moving statistics included."""
    mine, other = canonical_variables(a), canonical_variables(b)
    return {
        n: np.array_equal(mine[n], other[n]) for n in mine if n in other and n.startswith(scopes)
    }


@pytest.mark.slow
def test_frozen_blocks_stay_bit_by_bit_and_the_result_proves_it(
    images: Path, tmp_path: Path
) -> None:
    result = start(images, tmp_path / "run", train_blocks="3,4")
    assert moved(result) == {"block_group3", "block_group4", "supervised_head"}
    config = RunConfig.load(tmp_path / "run" / "config.json")
    assert (config.model.resnet_depth, config.model.width_multiplier) == (18, 0.125)
    assert (config.model.stem, config.views.image_size) == ("auto", 32)
    before, after = load_encoder(TF1), load_encoder(tmp_path / "run" / "ckpt-4")
    same = same_bits(before, after, ("base_model/",))
    first_of_group3 = 2 + 3 + 2 + 4  # stem and groups 1 and 2 in convolutions, counted from 0 on
    frozen = [f"base_model/conv2d_{i}/kernel" for i in range(1, first_of_group3 - 1)]
    assert all(same[name] for name in frozen)
    assert not all(same.values())
    group3 = after.resnet.block_groups[2].variables
    assert any(not np.array_equal(a, b) for a, b in
               zip(group3, before.resnet.block_groups[2].variables, strict=True))  # fmt: skip
    for stage in (after.resnet.stem, *after.resnet.block_groups[:2]):
        theirs = before.resnet.stages[0 if stage is after.resnet.stem else
                                      after.resnet.block_groups.index(stage) + 1]  # fmt: skip
        for a, b in zip(stage.variables, theirs.variables, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_statistics_of_frozen_blocks_move_only_as_in_the_reference(
    images: Path, tmp_path: Path
) -> None:
    """Pretraining from a public checkpoint, frozen up to block group 4."""
    values = {"train_mode": "pretrain", "fine_tune_after_block": 4, "linear_probe": False}
    kept = start(images, tmp_path / "kept", **values)
    assert moved(kept) == {"projection_head", "supervised_head"}
    old = start(images, tmp_path / "old", **values, frozen_bn="reference")
    assert moved(old) == {"stem", *(f"block_group{i}" for i in range(1, 5)), "projection_head",
                          "supervised_head"}  # fmt: skip
    same = same_bits(load_encoder(TF1), load_encoder(tmp_path / "old"), ("base_model/",))
    assert {name.rpartition("/")[2] for name, is_same in same.items() if not is_same} == {
        "moving_mean",
        "moving_variance",
    }


@pytest.mark.slow
@pytest.mark.parametrize("values", [{"head_only": True}, {"fine_tune_after_block": 2}])
def test_features_computed_once_give_the_same_training(
    images: Path, tmp_path: Path, values: dict[str, Any]
) -> None:
    whole = start(images, tmp_path / "whole", **PLAIN, **values)
    cached = start(images, tmp_path / "cached", **PLAIN, **values, cache_frozen=True)
    files = (tmp_path / run / "metrics.csv" for run in ("whole", "cached"))
    losses = [read_metrics(file)["total_loss"] for file in files]
    np.testing.assert_allclose(losses[1], losses[0], rtol=2e-5)
    assert moved(cached) == moved(whole)
    if "head_only" in values:
        assert moved(cached) == {"supervised_head"}
    key = "validation/supervised_loss"
    assert cached[key] == pytest.approx(whole[key], rel=1e-4)


@pytest.mark.slow
def test_a_cached_run_that_is_stopped_goes_on_as_it_would_have(
    images: Path, tmp_path: Path
) -> None:
    values = {**PLAIN, "head_only": True, "cache_frozen": True}
    start(images, tmp_path / "whole", **values)
    for file in (tmp_path / "whole").glob("ckpt-4*"):
        file.unlink()  # as if the run had been killed after its second step
    before = read_metrics(tmp_path / "whole" / "metrics.csv")["total_loss"]
    start(images, tmp_path / "whole", **values)
    after = read_metrics(tmp_path / "whole" / "metrics.csv")
    np.testing.assert_array_equal(after["step"], [1, 2, 3, 4])
    np.testing.assert_allclose(after["total_loss"], before, rtol=1e-6)


@pytest.mark.slow
def test_gray_images_on_color_weights(tmp_path: Path) -> None:
    """The first evaluation sees exactly what the colour network sees of the same grey."""
    gray = make_folder(tmp_path / "grey", channels=1)
    result = start(gray, tmp_path / "run", learning_rate=0.0, train_steps=2)
    assert moved(result) <= {"stem", *(f"block_group{i}" for i in range(1, 5))}  # statistics
    start(gray, tmp_path / "frozen", head_only=True, train_steps=2)
    encoder, color = load_encoder(tmp_path / "frozen"), load_encoder(TF1)
    assert encoder.image_channels == 1
    x = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    expected = color(np.repeat(x, 3, axis=-1))
    np.testing.assert_allclose(encoder(x), expected, atol=1e-5 * np.abs(expected).max())


def config(**values: Any) -> RunConfig:
    return RunConfig.from_values({**GIVEN, **values})


def test_what_is_given_holds_and_the_rest_is_adopted() -> None:
    given = {"image_size": 64, "num_proj_layers": 2}
    adopted = adopt_checkpoint(config(**given), {*GIVEN, *given})
    assert adopted.views.image_size == 64
    assert adopted.model.num_proj_layers == 2  # that head starts fresh
    assert (adopted.model.resnet_depth, adopted.model.stem) == (18, "cifar")
    assert adopt_checkpoint(config(checkpoint=""), set()) == config(checkpoint="")


def test_a_flag_that_contradicts_the_checkpoint_is_refused() -> None:
    with pytest.raises(UserError, match=r"you asked for --width_multiplier=2.0 and it has 0.125"):
        adopt_checkpoint(config(width_multiplier=2.0), {"width_multiplier"})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train_blocks": "3,5"}, "5 is none of stem, 1, 2, 3, 4, head"),
        (
            {"train_blocks": "4", "head_only": True},
            "--train_blocks=4 and --head_only say",
        ),
        ({"head_only": True, "train_mode": "pretrain"}, "pretraining needs more than"),
        ({"cache_frozen": True}, "add --norandom_crop --nohorizontal_flip"),
        ({**PLAIN, "cache_frozen": True, "frozen_bn": "reference"}, "with --frozen_bn=stored"),
        ({"train_mode": "distill"}, "give the --teacher"),
        ({"teacher": "x"}, "--teacher is for --train_mode=distill"),
    ],
)
def test_settings_that_do_not_go_together(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        config(**values)


@pytest.mark.slow
def test_nothing_to_cache_is_an_error(images: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no block is frozen"):
        start(images, tmp_path / "run", **PLAIN, cache_frozen=True)


@pytest.mark.slow
def test_the_exported_model_says_what_its_classes_are(images: Path, tmp_path: Path) -> None:
    start(images, tmp_path / "run", head_only=True)
    for place in ("ckpt-4", "saved_model/4", "saved_model", "encoder.keras", ""):
        record = load_encoder(tmp_path / "run" / place).preprocessing
        assert record["class_names"] == ["checks", "dots", "stripes"], place
        assert record["image_size"] == 32
    model = load_model(tmp_path / "run")
    assert model.num_classes == 3
    assert tf.reduce_all(tf.math.is_finite(model(np.zeros((1, 32, 32, 3)))["logits_sup"]))
