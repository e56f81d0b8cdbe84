"""Settings: names, presets and what is refused."""

from collections import Counter
from dataclasses import fields
from typing import Any

import pytest

from data_prep.augment.config import ViewConfig, ViewSettings
from data_prep.errors import UserError
from data_prep.settings import Config, preset_values
from finetune.cli.finetune import COMMAND
from finetune.config import PRESETS, FinetuneConfig
from finetune.depth.settings import DepthConfig
from finetune.transfer_config import TransferConfig
from simclr_tf.config.run_config import RunConfig


def parsed(*arguments: str, name: str = "") -> FinetuneConfig:
    return COMMAND.parsed([*arguments, *([f"--preset={name}"] if name else [])])[0]


def test_every_setting_has_one_name_and_shares_its_meaning_with_simclr_run() -> None:
    names = Counter(s.name for s in FinetuneConfig.settings())
    assert max(names.values()) == 1
    theirs = {s.name: s for s in RunConfig.settings()}
    shared = [s for s in FinetuneConfig.settings() if s.name in theirs]
    assert len(shared) > 40
    assert all(s.kind == theirs[s.name].kind for s in shared)


def test_a_setting_like_another_has_its_limits_and_a_default_and_name_of_its_own() -> None:
    (like,) = [s for s in DepthConfig.settings() if s.name == "train_batch_size"]
    (other,) = [s for s in RunConfig.settings() if s.name == "train_batch_size"]
    assert (other.default, other.low, other.also) == (512, 1, "contrastive_batch")
    assert (like.default, like.low, like.also, like.help) == (32, 1, "", other.help)
    with pytest.raises(UserError, match="--split_seed=-1: must be at least 0"):
        FinetuneConfig.from_values({"split_seed": -1})


def test_a_configuration_survives_json() -> None:
    config = FinetuneConfig.from_values({"encoder": "e", "head": "512,256", "layer_decay": 0.75})
    assert FinetuneConfig.from_json(config.to_json()) == config
    assert config.head.widths() == (512, 256)


def test_a_preset_fills_what_is_not_given_and_explicit_flags_win() -> None:
    config = parsed(name="him003")
    assert (config.optimizer.optimizer, config.optimizer.learning_rate) == ("lars", 0.1)
    assert (config.train.train_batch_size, config.train.train_epochs) == (64, 25)
    assert config.start.trained_parts() == ()
    assert config.augment.augment == "none"
    assert parsed(name="him003_binary").train.train_epochs == 15
    mine = parsed("--learning_rate=0.001", "--train_epochs=3", name="him003")
    assert (mine.optimizer.learning_rate, mine.train.train_epochs) == (0.001, 3)
    # The default, said explicitly, wins as well.
    assert parsed("--optimizer=adamw", name="him003").optimizer.optimizer == "adamw"
    with pytest.raises(UserError, match="him003"):
        preset_values("him004", PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_hold_settings_that_exist_and_fit_together(name: str) -> None:
    settings = PRESETS[name]
    values = FinetuneConfig.from_values({**settings, "preset": name}).values()
    assert settings
    assert {setting: values[setting] for setting in settings} == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head": "512,x"}, "--head=512,x"),
        ({"head": "0"}, "--head=0"),
        ({"head_only": True, "train_blocks": "4"}, "say different things"),
        ({"train_blocks": "5"}, "5 is none of"),
        ({"label_fraction": 0.0}, "--label_fraction=0"),
        ({"label_fraction": 0.5, "labels_per_class": 3}, "give one of them"),
        ({"class_weights": "balanced", "sampling": "balanced"}, "twice"),
        ({"cache_features": "true", "augment": "views"}, "--augment=none"),
        ({"threshold": "2"}, "--threshold=2"),
        ({"layer_decay": 0.0}, "--layer_decay=0.0: must be at least 0.01"),
        ({"brightness_range": "a"}, "--brightness_range=a"),
        ({"zoom_range": "2,1"}, "zoom_range"),
        ({"monitor": "f1"}, "--monitor=f1"),
        ({"image_channels": "rgb"}, "--image_channels=rgb"),
        ({"encodr": "x"}, "did you mean encoder"),
    ],
)
def test_what_cannot_be_is_refused_in_words(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        FinetuneConfig.from_values(values)


def test_ranges_of_the_generator_reach_it() -> None:
    config = FinetuneConfig.from_values(
        {"brightness_range": "0.8,1.2", "zoom_range": "0.1", "rotation_range": 30.0}
    )
    generator = config.augment.generator()
    assert generator.brightness_range == (0.8, 1.2)
    assert generator.zoom == (0.9, 1.1)
    assert generator.horizontal_flip is True
    both = FinetuneConfig.from_values({"zoom_range": "0.5,2"}).augment.generator()
    assert both.zoom == (0.5, 2.0)


OTHER_VIEWS: dict[str, Any] = {
    "image_size": 96, "color_jitter_strength": 0.7, "use_blur": True, "random_crop": False,
    "min_crop_area": 0.3, "min_crop_aspect": 0.5, "horizontal_flip": None, "vertical_flip": True,
    "right_angle_rotation": True, "rotation_degrees": 9.0, "central_crop": 0.5,
    "whole_image": True, "jitter_impl": "simclrv1", "gray_probability": 0.6,
    "saturation_share": 0.5, "blur_probability": "0.9", "solarize_probability": "0.3",
}  # fmt: skip


@pytest.mark.parametrize("config_type", [RunConfig, FinetuneConfig, TransferConfig])
@pytest.mark.parametrize("name", OTHER_VIEWS)
def test_every_setting_of_views_changes_the_views(name: str, config_type: type[Config]) -> None:
    """A setting that is accepted and ignored would leave them as they are."""
    switched = {"color_jitter_strength": 0.5, "use_blur": True}  # so that what they govern counts
    topic = next(s.topic for s in config_type.settings() if s.name == name)

    def views(values: dict[str, Any]) -> dict[str, Any]:
        config = config_type.from_values({**switched, **values})
        made: ViewConfig = getattr(config, topic).view_config(3)
        return made.to_dict()

    usual = views({} if name not in switched else {name: type(switched[name])(0)})
    value = OTHER_VIEWS[name]
    assert views({name: not usual[name] if value is None else value}) != usual


def test_the_walk_over_views_leaves_none_out() -> None:
    assert set(OTHER_VIEWS) == {f.name for f in fields(ViewSettings)}
