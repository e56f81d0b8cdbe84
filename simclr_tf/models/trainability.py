"""Which layers of a model train, as a part of its configuration.

Keras stores `trainable` of the outermost layer only, and forgets what was set within.
"""

from collections.abc import Iterator, Mapping

import keras


def trainability_of(layer: keras.layers.Layer) -> dict[str, bool]:
    """Where freezing begins and ends.

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
