"""Every public architecture is recognised from names and shapes alone; nothing is allocated."""

from typing import Any

import numpy as np
import pytest

from data_prep.errors import UserError
from simclr_tf.checkpoints.identify import recognize
from simclr_tf.checkpoints.load import Checkpoint, open_checkpoint
from simclr_tf.checkpoints.read import SUFFIX, Naming, StoredWeights, UnusedTensor
from simclr_tf.models.architectures import ResNetArchitecture
from simclr_tf.models.variable_layout import model_variables, resnet_variables
from simclr_tf.training.from_checkpoint import refuse_contradictions
from tests import golden
from tests.simclr_tf.checkpoints.common import path_of
from tests.simclr_tf.golden_models import encoder_arguments

FILES = sorted(
    path.stem
    for path in (golden.REFERENCE / "variables").glob("r*.json")
    if "param" not in path.stem
)


def stored(
    shapes: dict[str, Any], naming: Naming = "canonical", *left: UnusedTensor
) -> StoredWeights:
    tuples = {name: tuple(shape) for name, shape in shapes.items()}
    return StoredWeights("there", "test", naming, tuples, left, lambda name: np.empty(0))


@pytest.mark.parametrize("naming", ["canonical", "tf2_key"])
@pytest.mark.parametrize("file", FILES)
def test_every_public_network_is_recognized(file: str, naming: Naming) -> None:
    facts = golden.load_json(f"variables/{file}")
    column = 0 if naming == "canonical" else 2
    network = recognize(
        stored({r[column].removesuffix(SUFFIX): r[1] for r in facts["rows"]}, naming)
    )
    expected = encoder_arguments(facts["config"])
    ours = network.encoder_arguments()
    if expected["depth"] == 18 and expected["cifar_stem"] and naming == "canonical":
        expected["sk_ratio"] = 0  # nothing tells
        assert any("sk_ratio 0" in text for text in network.assumed)
    assert {name: ours[name] for name in expected} == expected
    assert network.num_classes == facts["config"]["num_classes"]
    assert (network.projection.mode, network.projection.num_layers) == ("nonlinear", 3)
    names = {r[0]: r[column].removesuffix(SUFFIX) for r in facts["rows"]}
    assert network.weights == names


@pytest.mark.parametrize(
    "arch",
    [
        ResNetArchitecture(50, 1, sk_ratio=0.25),
        ResNetArchitecture(34, 0.5, se_ratio=0.125, image_channels=5),
        ResNetArchitecture(101, 1, se_ratio=0.25, cifar_stem=True),
        ResNetArchitecture(152, 1, sk_ratio=0.5, se_ratio=0.25),
        ResNetArchitecture(200, 0.125, image_channels=1),
        ResNetArchitecture(50, 4),
    ],
)
def test_networks_that_nobody_published_are_recognized_too(arch: ResNetArchitecture) -> None:
    found = recognize(stored({s.name: s.shape for s in model_variables(arch)})).architecture
    assert [(s.name, s.shape) for s in resnet_variables(found)] == [
        (s.name, s.shape) for s in resnet_variables(arch)
    ]
    assert (found.sk_ratio, found.se_ratio) == (arch.sk_ratio, arch.se_ratio)


def test_the_layer_below_the_supervised_head_is_found_where_its_width_tells() -> None:
    arch = ResNetArchitecture(18, 0.125)
    shapes = {s.name: s.shape for s in model_variables(arch, None, 7, ft_proj_selector=3)}
    assert recognize(stored(shapes)).ft_proj_selector == 3


def test_a_head_that_fits_nothing_is_refused() -> None:
    shapes: dict[str, Any] = {
        s.name: s.shape for s in model_variables(ResNetArchitecture(18), None, 7)
    }
    shapes["head_supervised/linear_layer/dense/kernel"] = (99, 7)
    with pytest.raises(UserError, match="takes 99 features; the backbone gives 512"):
        recognize(stored(shapes))
    shapes = {s.name: s.shape for s in model_variables(ResNetArchitecture(18))}
    del shapes["head_contrastive/nl_1/batch_normalization/beta"]
    with pytest.raises(UserError, match=r"nl_1/batch_normalization/beta is missing; in a proj"):
        recognize(stored(shapes))


@pytest.fixture(scope="module")
def r50_sk1() -> Checkpoint:
    return open_checkpoint(str(path_of("tf1_tiny_r50_w16_sk_img64_finetune")))


def test_flags_that_contradict_a_checkpoint_are_answered_with_both(r50_sk1: Checkpoint) -> None:
    expected = r"is r50_0.0625x_sk1, but you asked for --sk_ratio=0 and it has 0.0625"
    with pytest.raises(UserError, match=expected):
        refuse_contradictions(r50_sk1, {"sk_ratio": 0, "resnet_depth": 50})
    with pytest.raises(UserError, match=r"--num_of_classes=10 and it has 7"):
        refuse_contradictions(r50_sk1, {"num_of_classes": 10})
    refuse_contradictions(r50_sk1, {"sk_ratio": 0.0625, "stem": "imagenet", "num_of_classes": 7})
