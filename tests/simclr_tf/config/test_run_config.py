import json

import pytest

from data_prep.errors import UserError
from simclr_tf.config.run_config import RunConfig

# Defaults of SimCLR's tf2/run.py that hold here as they stand.
REFERENCE_DEFAULTS = {
    "learning_rate": 0.3,
    "learning_rate_scaling": "linear",
    "warmup_epochs": 10,
    "weight_decay": 1e-6,
    "batch_norm_decay": 0.9,
    "train_batch_size": 512,
    "train_split": "train",
    "train_epochs": 100,
    "train_steps": 0,
    "eval_steps": 0,
    "eval_batch_size": 256,
    "checkpoint_epochs": 1,
    "checkpoint_steps": 0,
    "eval_split": "validation",
    "dataset": "imagenet2012",
    "mode": "train",
    "train_mode": "pretrain",
    "lineareval_while_pretraining": True,
    "zero_init_logits_layer": False,
    "fine_tune_after_block": -1,
    "optimizer": "lars",
    "momentum": 0.9,
    "keep_checkpoint_max": 5,
    "keep_hub_module_max": 1,
    "temperature": 0.1,
    "hidden_norm": True,
    "proj_head_mode": "nonlinear",
    "proj_out_dim": 128,
    "num_proj_layers": 3,
    "ft_proj_selector": 0,
    "global_bn": True,
    "width_multiplier": 1,
    "resnet_depth": 50,
    "sk_ratio": 0,
    "se_ratio": 0,
    "image_size": 224,
    "color_jitter_strength": 1.0,
    "use_blur": True,
}
# Flags of run.py whose default serves nobody on their own images (README, migration table).
REFERENCE_FLAGS_WITH_NEW_DEFAULT = {
    "cache_dataset", "use_tpu", "tpu_name", "tpu_zone", "gcp_project", "master", "eval_name",
    "data_dir", "model_dir", "checkpoint",
}  # fmt: skip


def test_the_help_on_the_learning_rate_says_what_each_scaling_does() -> None:
    settings = {s.name: s for s in RunConfig.settings()}
    text = settings["learning_rate"].help
    for scaling in settings["learning_rate_scaling"].choices:
        assert f"({scaling})" in text


def test_the_defaults_are_those_of_the_reference() -> None:
    values = RunConfig().values()
    assert {name: values[name] for name in REFERENCE_DEFAULTS} == REFERENCE_DEFAULTS
    assert values.keys() >= REFERENCE_FLAGS_WITH_NEW_DEFAULT
    assert values["use_tpu"] is False


def test_names_are_unique_over_all_topics() -> None:
    names = [s.name for s in RunConfig.settings()]
    assert len(names) == len(set(names))


def test_json_gives_the_same_configuration_back() -> None:
    config = RunConfig.from_values({"image_size": 64, "temperature": 0.5, "use_blur": False})
    assert RunConfig.from_json(config.to_json()) == config


def test_json_with_an_unknown_entry_is_refused_with_the_nearest_name() -> None:
    content = json.loads(RunConfig().to_json())
    content["views"]["image_sise"] = 64
    with pytest.raises(UserError, match=r"image_sise.*did you mean image_size"):
        RunConfig.from_json(json.dumps(content))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_size": "64"}, "--image_size='64': give a value of kind int"),
        ({"image_size": True}, "--image_size=True"),
        ({"image_size": 4}, "must be at least 8"),
        ({"color_jitter_strength": 2.0}, "must be at most 1.25"),
        ({"optimizer": "sgd"}, "must be one of lars, momentum, adam, adamw"),
        ({"resnet_depth": 42}, "choose 18, 34, 50, 101, 152 or 200"),
        ({"train_batch_size": 1}, "at least 2 images"),
        ({"ft_proj_selector": 4}, "only 3 layers"),
        ({"proj_head_mode": "none", "ft_proj_selector": 1}, "only 0 layers"),
        ({"image_channels": "grey"}, "give auto or a positive number"),
        ({"method": "moco", "queue_size": 100}, "must hold at least a batch .512 images"),
        ({"method": "moco", "global_bn": False}, "--method=moco needs --global_bn"),
        ({"method": "moco", "decoupled": True}, "--decoupled is for --method=simclr"),
        ({"train_mode": "finetune", "decoupled": True}, "--decoupled is for --method=simclr"),
        ({"method": "swav", "assignment_queue": 10}, "must hold at least a batch"),
        ({"method": "swav", "image_size": 16}, "7 px is too small"),
        ({"reference_quirks": "frozen"}, "frozen is none of frozen_bn"),
    ],
)
def test_impossible_settings_are_refused(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RunConfig.from_values(values)


def test_quirks_all_stands_for_every_quirk() -> None:
    config = RunConfig.from_values({"reference_quirks": "all"})
    assert set(config.quirks) == {"frozen_bn", "unused_projection_head", "zero_init_logits"}
