"""Networks of `keras.applications` as backbones, cut into a stem and four block groups.

Two kinds of layers are exchanged: batch normalisation for this package's `BatchNorm`, which sees
the batch of all replicas and moves at `batch_norm_decay` (Keras's own moves so slowly that short
runs would be scored by statistics of the initial weights), and dropout for nothing, because what it
draws could not be drawn again when a run goes on.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.models.architectures import NUM_GROUPS, KerasArchitecture
from simclr_tf.models.backbone import DescribedBackbone
from simclr_tf.models.batch_norm import BatchNorm
from simclr_tf.models.keras_applications import (
    build_trunk,
    dtype_policy,
    gray_affine,
    preprocess_function,
)

_SIDE = 224  # pixels; the resolutions are those of such an image


def cut_points(network: keras.Model) -> list[int]:
    """The last operations of the stem and of the block groups 1 to 3.

    A group begins with the layer that halves the resolution; the last four resolutions at which
    there are weights are the four groups, and what comes before is the stem. Where there are only
    four, the first of them is cut behind its first weights.

    Args:
        network: A functional model of images of any size.

    Returns:
        Positions in `network.operations`, which are its layers and additions and the like between
        them; each one's output is all that later layers use. Empty if
        the network has no four such places.
    """
    padding = keras.layers.ZeroPadding2D  # belongs to the convolution behind it
    places = [i for i in single_outputs(network) if not isinstance(network.operations[i], padding)]
    if not places:
        return []
    levels = _levels(network, places)
    if not levels:
        return []
    weighted = [
        i
        for i, operation in enumerate(network.operations)
        if getattr(operation, "trainable_variables", ())
    ]
    # The last place at each resolution, where a group would end.
    ends = [p for p, level, following in zip(places, levels, [*levels[1:], levels[-1]], strict=True)
            if following > level]  # fmt: skip
    ends = _with_weights(ends, weighted)
    if len(ends) == NUM_GROUPS - 1:
        first = next((p for p in places if p >= weighted[0]), None)
        ends = [first, *ends] if first is not None and first < ends[0] else ends
    return ends[-NUM_GROUPS:] if len(ends) >= NUM_GROUPS else []


def single_outputs(network: keras.Model) -> list[int]:
    """Operations before the last whose output is the only one that later operations use."""
    position = {id(operation): i for i, operation in enumerate(network.operations)}
    last_use = [-1] * len(network.operations)
    for i, operation in enumerate(network.operations):
        for node in operation._inbound_nodes:
            for tensor in node.input_tensors:
                source = position.get(id(tensor._keras_history.operation))
                if source is not None:
                    last_use[source] = max(last_use[source], i)
    found, needed = [], -1  # how far the outputs before this one are needed
    for i, use in enumerate(last_use[:-1]):
        if needed <= i:
            found.append(i)
        needed = max(needed, use)
    return found


def _levels(network: keras.Model, places: Sequence[int]) -> list[int]:
    """Counts how often the side is halved up to each place, never falling.

    Empty for networks whose layers fit together at one size only.
    """
    outputs = [network.operations[i].output for i in places]
    try:
        shapes = keras.Model(network.input, outputs).compute_output_shape(
            (1, _SIDE, _SIDE, network.input.shape[-1])
        )
    except ValueError:
        return []
    shapes = shapes if isinstance(shapes, list) else [shapes]
    levels: list[int] = []
    for shape in shapes:
        halvings = round(math.log2(_SIDE / shape[1]))  # a few pixels more or less do not count
        levels.append(max(halvings, levels[-1] if levels else 0))
    return levels


def _with_weights(ends: Sequence[int], weighted: Sequence[int]) -> list[int]:
    """Ends of parts that hold weights, and behind which there are further ones."""
    kept: list[int] = []
    for end in ends:
        begin = kept[-1] if kept else -1
        if any(begin < i <= end for i in weighted) and any(end < i for i in weighted):
            kept.append(end)
    return kept


_SIZES = (8, 16, 24, 32, 48, 64, 75, 96, 128, 224)


@keras.saving.register_keras_serializable(package="simclr_tf")
class KerasBackbone(DescribedBackbone):
    """A network of `keras.applications` without its head, see `StagedBackbone` and `cut_points`.

    Images of three channels are prepared as the network's ImageNet weights expect. For others it is
    built with as many input channels, and each is prepared as grey is on average.

    Args:
        architecture: which network, and the images' channels.
        batch_norm_decay: weight of the old moving statistics.
        global_bn: normalise over the batch of all replicas.
        trunk: the network, from `build_trunk`, if its weights are to be taken over; None = one with
            weights drawn at random.
        trainability: which layers train, see `trainability_of`; None = all of them.
        **kwargs: of `keras.Model`.

    Raises:
        UserError: There is no such network, or it cannot be cut into groups.
    """

    architecture: KerasArchitecture
    architecture_type = KerasArchitecture

    def __init__(
        self,
        architecture: KerasArchitecture,
        batch_norm_decay: float = 0.9,
        global_bn: bool = True,
        trunk: keras.Model | None = None,
        trainability: dict[str, bool] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(trainability, **kwargs)
        self.architecture = architecture
        self.batch_norm_decay, self.global_bn = batch_norm_decay, global_bn
        name, channels = architecture.application, architecture.image_channels
        with dtype_policy(self.dtype_policy):
            if trunk is None:
                trunk = build_trunk(name, (None, None, channels))
            parts = [self._own(part) for part in _parts(trunk, name)]
        self.stem, self.block_groups = parts[0], parts[1:]
        self._feature_dim = int(trunk.output.shape[-1])
        self._prepared = preprocess_function(name) if channels == 3 else None
        self._factor, self._offset = (255.0, 0.0) if channels == 3 else gray_affine(name)

    def _own(self, part: keras.Model) -> keras.Model:
        """The same layers, but for those that are exchanged."""

        def exchanged(layer: keras.layers.Layer) -> keras.layers.Layer:
            if isinstance(layer, keras.layers.BatchNormalization):
                return self._norm(layer)
            if hasattr(layer, "seed_generator"):
                return keras.layers.Identity(name=layer.name, dtype=layer.dtype_policy)
            return layer

        def called(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
            if isinstance(layer, BatchNorm | keras.layers.Identity):
                return layer(args[0])  # they take no mask
            return layer(*args, **kwargs)

        return keras.models.clone_model(part, clone_function=exchanged, call_function=called)

    def _norm(self, layer: keras.layers.BatchNormalization) -> BatchNorm:
        norm = BatchNorm(
            momentum=self.batch_norm_decay,
            center=layer.center,
            scale=layer.scale,
            sync=self.global_bn,
            epsilon=layer.epsilon,
            name=layer.name,
            dtype=layer.dtype_policy,
        )
        norm.build((None, *layer.moving_mean.shape))
        norm.set_weights(layer.get_weights())
        return norm

    @property
    def feature_dim(self) -> int:
        """Length D of the representation."""
        return self._feature_dim

    def build_stages(self) -> None:
        """Does nothing: the layers were built with the network."""

    def prepare(self, images: tf.Tensor) -> tf.Tensor:
        """Prepares images in [0, 1] for the network, never in half precision."""
        # Keras exports networks without saying what shape their images have.
        shaped = tf.ensure_shape(images, [None, None, None, self.image_channels])
        scaled = tf.cast(shaped, self.variable_dtype) * self._factor + self._offset
        return scaled if self._prepared is None else self._prepared(scaled)

    def run_stem(self, images: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """The stem's output, twice."""
        x = self.stem(self.prepare(images), training=training)
        return x, x

    def check_image_size(self, side: int, flag: str = "image_size") -> None:
        """Refuses images that the network would reduce to nothing."""
        if self._takes(side):
            return
        least = next((size for size in _SIZES if size > side and self._takes(size)), None)
        hint = f"; {least} px would do" if least else ""
        raise UserError(
            f"is too small for {self.architecture.name}{hint}", setting=flag, value=side
        )

    def _takes(self, side: int) -> bool:
        shape: Any = (1, side, side, self.architecture.image_channels)
        for stage in self.stages.values():
            try:
                shape = stage.compute_output_shape(shape)
            except ValueError:
                return False
            if min(shape[1:3]) < 1:
                return False
        return True

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments but `trunk`."""
        return {
            **super().get_config(),
            "batch_norm_decay": self.batch_norm_decay,
            "global_bn": self.global_bn,
        }


def _parts(trunk: keras.Model, name: str) -> list[keras.Model]:
    """Stem and block groups, each a model of its own."""
    points = cut_points(trunk)
    if len(points) != NUM_GROUPS:
        raise UserError(
            "cannot be cut into a stem and four groups, for its blocks "
            "take more than the output of the one before, or fit images of one size only; choose "
            "another network",
            setting="backbone",
            value=f"keras:{name}",
        )
    ends = [*(trunk.operations[i].output for i in points), trunk.output]
    starts = [trunk.input, *ends[:-1]]
    names = ["stem", *(f"block_group{i}" for i in range(1, NUM_GROUPS + 1))]
    return [
        keras.Model(start, end, name=name)
        for start, end, name in zip(starts, ends, names, strict=True)
    ]
