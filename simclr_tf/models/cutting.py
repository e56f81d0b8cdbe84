"""Where a network can be cut in two, and where it should be to make block groups."""

import math
from collections.abc import Sequence

import keras

from simclr_tf.models.architecture import NUM_GROUPS

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
    """The operations whose output is all that later ones use, the last one left out."""
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
    """How often the side is halved up to each place, never falling.

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
    """Leaves out the ends of parts without weights, and ends behind which there are none."""
    kept: list[int] = []
    for end in ends:
        begin = kept[-1] if kept else -1
        if any(begin < i <= end for i in weighted) and any(end < i for i in weighted):
            kept.append(end)
    return kept
