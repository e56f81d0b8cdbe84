"""What a recipe accepts, refuses and says."""

import json
from typing import Any

import pytest

from data_prep.augment.views import ViewConfig, skipped_for_channels
from data_prep.errors import UserError


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"image_size": 0}, "image_size"),
        ({"channels": 0}, "channels"),
        ({"num_views": 0}, "num_views"),
        ({"crop_area": (0.5, 0.2)}, "crop_area"),
        ({"crop_area": (0.01, 0.05)}, "0.1"),
        ({"crop_area": (0.2,)}, "crop_area"),
        ({"crop_aspect": (0, 1)}, "crop_aspect"),
        ({"color_jitter_strength": 1.3}, "1.25"),
        ({"color_jitter_strength": -0.1}, "color_jitter_strength"),
        ({"color_jitter_probability": 1.1}, "color_jitter_probability"),
        ({"gray_probability": -0.1}, "gray_probability"),
        ({"blur_probability": 2.0}, "blur_probability"),
        ({"solarize_probability": (0.1, -0.2)}, "solarize_probability"),
        ({"saturation_share": 1.5}, "saturation_share"),
        ({"rotation_degrees": 181.0}, "rotation_degrees"),
        ({"central_crop": 1.5}, "central_crop"),
        ({"jitter_impl": "simclrv3"}, "simclrv2, simclrv1"),
    ],
)
def test_bad_values_are_refused_in_one_line(bad: dict[str, Any], word: str) -> None:
    with pytest.raises(UserError, match=word) as error:
        ViewConfig(**{"image_size": 32, "channels": 3, **bad})
    assert "\n" not in str(error.value)


def test_round_trip_through_json() -> None:
    config = ViewConfig(
        96, 1, crop_area=(0.3, 1.0), rotation_degrees=45.0, blur_probability=(1.0, 0.1)
    )
    again = ViewConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert hash(again) == hash(config)


def test_from_dict_names_what_is_wrong() -> None:
    with pytest.raises(UserError, match="hue_strength"):
        ViewConfig.from_dict({"image_size": 8, "channels": 3, "hue_strength": 1})
    with pytest.raises(UserError, match="channels"):
        ViewConfig.from_dict({"image_size": 8})


def test_no_jitter_means_no_gray_unless_asked_for() -> None:
    assert ViewConfig(32, 3).gray == 0.2
    assert ViewConfig(32, 3, color_jitter_strength=0.0).gray == 0.0
    assert ViewConfig(32, 3, color_jitter_strength=0.0, gray_probability=0.4).gray == 0.4
    assert ViewConfig(32, 1, gray_probability=0.4).gray == 0.0


def test_blur_kernel_is_a_tenth_of_the_view() -> None:
    assert ViewConfig(224, 3).blur_kernel_size == 22
    assert ViewConfig(224, 3, blur=False).blur_kernel_size == 0


def test_what_other_channels_skip() -> None:
    assert skipped_for_channels(ViewConfig(32, 3)) == []
    assert skipped_for_channels(ViewConfig(32, 1)) == ["saturation", "hue", "grayscale"]
    assert skipped_for_channels(ViewConfig(32, 4, gray_probability=0.0)) == ["saturation", "hue"]
    assert skipped_for_channels(ViewConfig(32, 1, color_jitter_strength=0.0)) == []
    assert skipped_for_channels(ViewConfig(32, 1).for_finetuning()) == []
