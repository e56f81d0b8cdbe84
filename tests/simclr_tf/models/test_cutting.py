"""Where networks are cut into a stem and four groups."""

import keras
import pytest

from simclr_tf.models.keras_applications import build_trunk
from simclr_tf.models.keras_backbone import cut_points, single_outputs

layers = keras.layers


def names(network: keras.Model) -> list[str]:
    return [network.operations[i].name for i in cut_points(network)]


def chain(*halvings: int) -> keras.Model:
    """A convolution for every number; where it is 1 the resolution is halved."""
    x = images = keras.Input((None, None, 1))
    for i, halves in enumerate(halvings):
        x = layers.Conv2D(2, 3, 1 + halves, "same", name=f"conv_{i}")(x)
        x = layers.ReLU(name=f"relu_{i}")(x)
    return keras.Model(images, x)


def test_groups_begin_where_the_resolution_is_halved() -> None:
    assert names(chain(1, 0, 1, 0, 1, 0, 1, 0, 1, 0)) == ["relu_1", "relu_3", "relu_5", "relu_7"]


def test_what_comes_before_the_last_four_resolutions_is_the_stem() -> None:
    assert names(chain(0, 1, 1, 1, 1, 1, 1)) == ["relu_2", "relu_3", "relu_4", "relu_5"]


def test_of_four_resolutions_the_first_is_cut_behind_its_first_weights() -> None:
    assert names(chain(1, 0, 0, 1, 1, 1)) == ["conv_0", "relu_2", "relu_3", "relu_4"]


def test_a_part_without_weights_is_no_group() -> None:
    network = chain(0, 1, 1, 1, 1)
    pooled = keras.Model(network.input, layers.MaxPooling2D()(network.output))
    assert names(pooled) == names(network) == ["relu_0", "relu_1", "relu_2", "relu_3"]


def test_nothing_is_cut_between_a_shortcut_and_its_addition() -> None:
    images = keras.Input((None, None, 1))
    x = layers.Conv2D(2, 3, padding="same", name="before")(images)
    y = layers.Conv2D(2, 3, padding="same", name="inside")(x)
    z = layers.Conv2D(2, 3, padding="same", name="behind")(layers.Add(name="add")([x, y]))
    network = keras.Model(images, z)
    found = [network.operations[i].name for i in single_outputs(network)]
    assert found[1:] == ["before", "add"]


def test_too_few_resolutions_cannot_be_cut() -> None:
    assert cut_points(chain(0, 0, 0)) == []


@pytest.mark.parametrize(
    ("name", "cuts"),
    [
        ("vgg16", ["block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3"]),
        ("resnet50", ["conv1_relu", "conv2_block3_out", "conv3_block4_out", "conv4_block6_out"]),
    ],
)
def test_known_networks_are_cut_at_their_own_stages(name: str, cuts: list[str]) -> None:
    assert names(build_trunk(name, (None, None, 3))) == cuts
