"""Base of all backbones: a stem and four block groups that can be frozen one by one.

Keras stores `trainable` of the outermost layer only, and forgets what was set within.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

import keras
import tensorflow as tf

from simclr_tf.models.architectures import NUM_GROUPS
from simclr_tf.models.blocks import Shape


def trainability_of(layer: keras.layers.Layer) -> dict[str, bool]:
    """Layers of a model at which freezing begins or ends.

    Args:
        layer: A layer or model.

    Returns:
        `trainable` of those layers in which it differs from the layer around them, by their path
        in the model, such as `./resnet/stem`; `.` is the model itself, which trains by default.
    """
    states = {path: part.trainable for path, part in _parts(layer, ".")}
    return {
        path: trains
        for path, trains in states.items()
        if trains != states.get(path.rpartition("/")[0], True)
    }


def set_trainability(layer: keras.layers.Layer, states: Mapping[str, bool]) -> None:
    """Freezes and thaws what `trainability_of` has noted.

    Args:
        layer: A built layer or model, all of which trains.
        states: Of a layer of the same structure; paths that are not there are passed over.
    """
    for path, part in _parts(layer, "."):
        if path in states:
            # Keras passes over a value that is there already, however the layers within stand.
            part.trainable = not states[path]
            part.trainable = states[path]


def _parts(layer: keras.layers.Layer, path: str) -> Iterator[tuple[str, keras.layers.Layer]]:
    """The layer and all within it, each before those that it contains."""
    yield path, layer
    for part in layer._flatten_layers(include_self=False, recursive=False):
        yield from _parts(part, f"{path}/{part.name}")


class StagedBackbone(keras.Model):
    """Images to a representation by way of a stem and four block groups.

    Call: images [B, H, W, image_channels], floating point in [0, 1] -> representation [B, D]
    (`final_avg_pool`), float32 (float64 under a float64 policy).

    Stages 0 (stem) to 4 (last block group) can be frozen by `trainable=False`, see
    `weights.freeze`. Frozen stages keep their weights and normalise by their stored statistics, and
    no gradient is computed for the frozen ones before the first trained one.

    A subclass sets `architecture`, `stem` and `block_groups`, and says how they are built and what
    they are called with. All stages hand feature maps [B, h, w, c] on.
    """

    built: bool
    architecture: Any
    stem: keras.layers.Layer
    block_groups: list[keras.layers.Layer]

    def __init__(self, trainability: dict[str, bool] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._trainability = dict(trainability or {})

    @property
    def feature_dim(self) -> int:
        """Length D of the representation."""
        dim: int = self.architecture.feature_dim
        return dim

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        channels: int = self.architecture.image_channels
        return channels

    @property
    def stages(self) -> dict[int, keras.layers.Layer]:
        """Stem (0) and block groups (1 to 4)."""
        return dict(enumerate([self.stem, *self.block_groups]))

    def creation_order(self) -> list[keras.layers.Layer]:
        """The layers that hold weights, stage after stage, in the order checkpoints number them."""
        return [leaf for stage in self.stages.values() for leaf in stage_leaves(stage)]

    def build_stages(self) -> None:
        """Creates the weights of all stages; they fit every image size."""
        raise NotImplementedError

    def run_stem(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Images -> the endpoints `initial_conv` and `initial_max_pool`."""
        raise NotImplementedError

    def check_image_size(self, side: int, flag: str = "image_size") -> None:
        """Refuses images that are too small for the network.

        Args:
            side: of the images in pixels.
            flag: where it comes from, for the message.

        Raises:
            UserError: They are.
        """

    def build(self, input_shape: Shape | None = None) -> None:
        """Creates all weights; they fit every image size.

        Args:
            input_shape: [B, H, W, C]; only C counts, and it must be `image_channels`.
        """
        if self.built:
            return
        self.build_stages()
        set_trainability(self, self._trainability)
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images [B, H, W, C] -> representation [B, D]."""
        return self.endpoints(inputs, training=training)["final_avg_pool"]

    def endpoints(
        self, inputs: tf.Tensor, training: bool = False, first_stage: int = 0
    ) -> dict[str, tf.Tensor]:
        """All intermediate results.

        Args:
            inputs: images [B, H, W, C] in [0, 1]; or, to go on from there, the output of the stage
                before `first_stage`.
            training: normalise by batch statistics (where not frozen) and move the stored ones.
            first_stage: 0 = the stem, k = block group k, 5 = behind the average pool.

        Returns:
            `initial_conv` (before normalisation), `initial_max_pool`, `block_group1` to
            `block_group4`, each [B, h, w, c] of the compute dtype, and `final_avg_pool` [B, D].
        """
        if not self.built:
            self.build()
        boundary = self.frozen_prefix
        ends: dict[str, tf.Tensor] = {}
        if first_stage > NUM_GROUPS:
            return {"final_avg_pool": inputs}
        x = inputs
        for i, stage in self.stages.items():
            if i < first_stage:
                continue
            if i == 0:
                ends["initial_conv"], x = self.run_stem(x, training)
            else:
                x = stage(x, training=training)
            if i == boundary:
                x = tf.stop_gradient(x)
            ends[f"block_group{i}" if i else "initial_max_pool"] = x
        # A half-precision average over many pixels would lose what the float32 head can use.
        ends["final_avg_pool"] = tf.reduce_mean(tf.cast(x, self.variable_dtype), [1, 2])
        return ends

    @property
    def frozen_prefix(self) -> int:
        """Last stage before the first one with trainable weights; -1 if the stem trains."""
        for i, stage in self.stages.items():
            if stage.trainable_variables:
                return i - 1
        return NUM_GROUPS

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """[B, D]."""
        return (input_shape[0], self.feature_dim)

    def get_config(self) -> dict[str, Any]:
        """The constructor arguments that all backbones have."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "trainability": trainability_of(self),
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
        }


class DescribedBackbone(StagedBackbone):
    """A backbone whose numbers are one dataclass, which its config holds.

    A subclass names the dataclass, and takes it as its first argument.
    """

    architecture_type: ClassVar[type[Any]]

    def get_config(self) -> dict[str, Any]:
        """The numbers, beside the constructor arguments that all backbones have."""
        return {**super().get_config(), "architecture": self.architecture.config()}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        """The network of a `get_config()`, with new weights."""
        numbers = cls.architecture_type(**config["architecture"])
        return cls(**{**config, "architecture": numbers})


def stage_leaves(stage: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The innermost layers of a stage that hold variables, in the order of its structure."""
    found: dict[int, keras.layers.Layer] = {}
    for layer in stage._flatten_layers():
        inner = list(layer._flatten_layers(include_self=False, recursive=False))
        if layer.variables and not inner:
            found.setdefault(id(layer), layer)
    return list(found.values())
