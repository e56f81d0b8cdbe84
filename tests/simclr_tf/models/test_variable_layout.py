"""Names, shapes, checkpoint keys and numbers of variables equal those of the public checkpoints."""

import re
from typing import Any

import numpy as np
import pytest

from data_prep.errors import UserError
from simclr_tf.models import (
    ProjectionArchitecture,
    ResNetArchitecture,
    SimCLREncoder,
    SimCLRModel,
    canonical_variables,
    tf2_checkpoint_keys,
    variable_shapes,
)
from simclr_tf.models.variable_layout import (
    model_variables,
    resnet_variables,
    tf2_trainable_order,
    tf2_variable_names,
    tf2_variable_order,
)
from simclr_tf.models.variable_names import variable_specs
from tests import golden
from tests.simclr_tf.golden_models import encoder_arguments

FILES = sorted(
    path.stem
    for path in (golden.REFERENCE / "variables").glob("r*.json")
    if "param" not in path.stem
)
ROW_TRAINED = 5


def architecture(config: dict[str, Any]) -> ResNetArchitecture:
    return ResNetArchitecture(**encoder_arguments(config))


@pytest.mark.parametrize("file", FILES)
def test_variables_of_every_published_network(file: str) -> None:
    facts = golden.load_json(f"variables/{file}")
    specs = model_variables(architecture(facts["config"]), None, facts["config"]["num_classes"])
    rows = {row[0]: row for row in facts["rows"]}
    assert {s.name: list(s.shape) for s in specs} == {n: row[1] for n, row in rows.items()}
    assert {s.name: s.tf2_key for s in specs} == {n: row[2] for n, row in rows.items()}
    assert {s.name for s in specs if s.trained} == {
        n for n, row in rows.items() if row[ROW_TRAINED] >= 0
    }
    if "creation_order" in facts:
        assert [s.name for s in specs] == facts["creation_order"]
    trained = [row for row in rows.values() if row[ROW_TRAINED] >= 0]
    expected = [row[0] for row in sorted(trained, key=lambda row: row[ROW_TRAINED])]
    assert tf2_trainable_order(specs) == expected
    assert {n: f"{name}:0" for n, name in tf2_variable_names(specs).items()} == {
        n: row[3] for n, row in rows.items()
    }
    assert tf2_variable_order(specs) == [
        row[0] for row in sorted(rows.values(), key=lambda row: row[4])
    ]


@pytest.mark.parametrize("file", FILES)
def test_parameter_counts(file: str) -> None:
    facts = golden.load_json(f"variables/{file}")
    counts = golden.load_json("variables/parameter_counts")[file]
    specs = model_variables(architecture(facts["config"]), None, facts["config"]["num_classes"])

    def total(pattern: str, trained_only: bool = False) -> int:
        return sum(
            int(np.prod(s.shape))
            for s in specs
            if re.match(pattern, s.name) and (s.trained or not trained_only)
        )

    assert total("base_model", trained_only=True) == counts["base_trainable"]
    assert total("base_model") == counts["base_total_with_moving_stats"]
    assert total("head_contrastive") == counts["head_contrastive_total"]
    assert total("head_supervised") == counts["head_supervised"]
    assert total("") == counts["all"]


@pytest.mark.parametrize(
    ("depth", "width", "sk_ratio", "trained", "moving"),
    [
        (50, 1, 0, 23_508_032, 53_120),
        (50, 1, 0.0625, 35_215_584, 61_824),
        (50, 2, 0, 93_907_072, 106_240),
        (50, 2, 0.0625, 140_306_048, 122_816),
        (101, 1, 0, 42_500_160, 105_344),
        (101, 1, 0.0625, 64_662_304, 123_840),
        (101, 2, 0, 169_771_136, 210_688),
        (101, 2, 0.0625, 257_132_224, 245_760),
        (152, 1, 0, 58_143_808, 151_424),
        (152, 1, 0.0625, 88_940_896, 178_688),
        (152, 2, 0, 232_253_568, 302_848),
        (152, 2, 0.0625, 353_398_528, 354_368),
        (152, 3, 0.0625, 794_704_160, 531_200),
    ],
)
def test_published_sizes(
    depth: int, width: float, sk_ratio: float, trained: int, moving: int
) -> None:
    specs = resnet_variables(ResNetArchitecture(depth, width, sk_ratio))
    assert sum(int(np.prod(s.shape)) for s in specs if s.trained) == trained
    assert sum(int(np.prod(s.shape)) for s in specs if not s.trained) == moving


@pytest.mark.parametrize(("depth", "size"), [(50, 8_659_072), (18, 592_000)])
def test_projection_head_size(depth: int, size: int) -> None:
    specs = model_variables(ResNetArchitecture(depth))
    head = [s for s in specs if s.name.startswith("head_contrastive") and s.trained]
    assert sum(int(np.prod(s.shape)) for s in head) == size


REAL_MODELS = [
    {"depth": 18, "cifar_stem": True},
    {"depth": 18, "sk_ratio": 0.0625},
    {"depth": 18, "se_ratio": 0.25, "image_channels": 1},
    {"depth": 34, "sk_ratio": 0.0625, "cifar_stem": True},
    {"depth": 50},
    {"depth": 50, "sk_ratio": 0.0625},
    {"depth": 50, "se_ratio": 0.25, "sk_ratio": 0.25, "sk_min_dim": 4},
    {"depth": 18, "cifar_stem": True, "proj_head_mode": "linear", "proj_out_dim": 7},
    {"depth": 18, "cifar_stem": True, "proj_head_mode": "none"},
    {"depth": 18, "cifar_stem": True, "num_proj_layers": 2, "ft_proj_selector": -1},
]


@pytest.mark.parametrize("config", REAL_MODELS, ids=str)
def test_real_models_have_these_variables(config: dict[str, Any]) -> None:
    config = {**config, "width_multiplier": 0.0625}
    selector = config.get("ft_proj_selector", 0)
    arguments = {k: v for k, v in config.items() if k != "ft_proj_selector"}
    model = SimCLRModel(SimCLREncoder(**arguments), 5, selector)
    named = canonical_variables(model)
    shapes = variable_shapes(num_classes=5, **config)
    assert {name: tuple(v.shape) for name, v in named.items()} == shapes
    assert list(named) == list(shapes)
    assert {id(v) for v in named.values()} == {id(v) for v in model.variables}
    for spec in variable_specs(model):
        assert named[spec.name].trainable == spec.trained
        assert named[spec.name].path.endswith(spec.name.rsplit("/", 1)[-1])
    assert list(tf2_checkpoint_keys(model)) == [spec.tf2_key for spec in variable_specs(model)]


def test_encoder_and_backbone_are_named_as_parts_of_the_model() -> None:
    model = SimCLRModel(SimCLREncoder(18, width_multiplier=0.0625, cifar_stem=True), 3)
    whole = canonical_variables(model)
    encoder = canonical_variables(model.encoder)
    backbone = canonical_variables(model.encoder.resnet)
    assert {id(v) for v in encoder.values()} < {id(v) for v in whole.values()}
    assert all(whole[name] is encoder[name] for name in encoder)
    assert all(encoder[name] is backbone[name] for name in backbone)
    assert len(whole) - len(encoder) == 2
    assert set(encoder) - set(backbone) == {n for n in encoder if n.startswith("head_contrastive")}


@pytest.mark.parametrize(
    "config",
    [
        {"depth": 20},
        {"width_multiplier": 0.01},
        {"width_multiplier": 0.02, "sk_ratio": 0.0625},
        {"sk_ratio": -0.1},
        {"se_ratio": 2.0},
        {"image_channels": 0},
    ],
    ids=str,
)
def test_impossible_networks_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        ResNetArchitecture(**config)


def test_impossible_heads_are_refused() -> None:
    with pytest.raises(UserError, match="none, linear, nonlinear"):
        ProjectionArchitecture("cubic")
    with pytest.raises(UserError, match="num_proj_layers"):
        ProjectionArchitecture("nonlinear", 128, 0)
    with pytest.raises(UserError, match="ft_proj_selector 2"):
        SimCLRModel(SimCLREncoder(18, width_multiplier=0.0625, proj_head_mode="linear"), 3, 2)
