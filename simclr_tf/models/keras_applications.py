"""The networks of `keras.applications`: their names, their own preprocessing, their weights.

What the weights expect (0 to 255, BGR less the mean, -1 to 1, ...) is known here, so that whoever
uses such a network gives it images in [0, 1].
"""

import difflib
import inspect
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
from keras.src.backend.common import global_state

from data_prep.errors import UserError

IMAGENET, NONE = "imagenet", "none"

Builder = Callable[..., keras.Model]


@cache
def _applications() -> dict[str, tuple[Builder, ModuleType]]:
    """Builders of networks, and modules of their `preprocess_input`, by name in lower case."""
    builders = inspect.getmembers(keras.applications, inspect.isfunction)
    return {
        name.lower(): (build, getattr(keras.applications, build.__module__.split(".")[-1]))
        for name, build in builders
        if "include_top" in inspect.signature(build).parameters
    }


def application_names() -> tuple[str, ...]:
    """All networks that there are, in lower case."""
    return tuple(_applications())


def _application(name: str) -> tuple[Builder, ModuleType]:
    known = _applications()
    key = name.lower().replace("-", "").replace("_", "")
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise UserError(
            f"is no network of keras.applications; {hint}", setting="backbone", value=name
        )
    return known[key]


def application_builder(name: str) -> Builder:
    """The function of `keras.applications` that builds a network.

    Raises:
        UserError: There is no such network.
    """
    return _application(name)[0]


def preprocess_function(name: str) -> Callable[[Any], Any]:
    """The `preprocess_input` that a network's ImageNet weights expect: RGB in 0 to 255 -> input.

    Raises:
        UserError: There is no such network.
    """
    function: Callable[[Any], Any] = _application(name)[1].preprocess_input
    return function


# Under the name that files written before this layer lived here know it by.
@keras.saving.register_keras_serializable(package="finetune")
class PreprocessInput(keras.layers.Layer):
    """A network's own `preprocess_input` of images in [0, 1].

    Call: [B, H, W, 1 or 3] in [0, 1] -> [B, H, W, 3]; grey is repeated.

    Args:
        backbone: Name of the network.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(self, backbone: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.backbone = backbone
        self._function = preprocess_function(backbone)

    def call(self, images: Any) -> Any:
        """Brings images to the range and the channels that the weights expect."""
        if images.shape[-1] == 1:
            images = keras.ops.repeat(images, 3, axis=-1)
        return self._function(images * 255.0)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """[B, H, W, 3]."""
        return (*input_shape[:-1], 3)

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        return {**super().get_config(), "backbone": self.backbone}


def build_trunk(
    name: str, shape: tuple[int | None, int | None, int], weights: str = NONE, flag: str = "weights"
) -> keras.Model:
    """A network without its classification head; under a strategy call it in its scope.

    Args:
        name: Of the network, such as `vgg16` or `resnet50`.
        shape: (H, W, C) of its input; a side may be None, any.
        weights: `imagenet` (downloaded by Keras on first use), `none` (drawn at random), or a file
            of weights without the classification head: `.weights.h5`, or Keras' older `.h5`.
        flag: Where `weights` come from, for messages.

    Raises:
        UserError: No such network, file or download, images too small for it, or weights of
            another network.
    """
    build = application_builder(name)
    own: dict[str, Any] = {"include_top": False, "input_shape": shape}
    parameters = inspect.signature(build).parameters
    # EfficientNetV2 looks its blocks up by its own name.
    if "-" not in (parameters["name"].default or ""):
        own["name"] = name.lower()
    if shape[-1] != 3 and "include_preprocessing" in parameters:
        # It is made for three channels.
        own["include_preprocessing"] = False
    wanted = IMAGENET if weights == IMAGENET else None
    file = Path(weights)
    if weights not in (IMAGENET, NONE) and not file.is_file():
        raise UserError("no such file; give a file, imagenet or none", setting=flag, value=weights)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This model usually expects")
            trunk = build(weights=wanted, **own)
    except ValueError as error:
        raise UserError(f"--backbone={name} at --image_size={shape[0]}: {_first(error)}") from None
    except Exception as error:
        if wanted is None:
            raise
        raise UserError(
            f"the weights of {name} could not be downloaded"
            f" ({_first(error)}); fetch their 'notop' file elsewhere and give --{flag}=FILE",
            setting=flag,
            value="imagenet",
        ) from None
    if weights not in (IMAGENET, NONE):
        _fill(trunk, name, file, flag)
    return trunk


def _fill(trunk: keras.Model, name: str, file: Path, flag: str) -> None:
    try:
        with warnings.catch_warnings():
            # Where Keras warns, some layers would be left with random weights.
            warnings.simplefilter("error", UserWarning)
            trunk.load_weights(file)
    except (ValueError, OSError, KeyError, UserWarning) as error:
        raise UserError(
            f"does not fit {name} without its classification head"
            f" ({_first(error)}); give its 'notop' weights, *.weights.h5 or Keras' older *.h5",
            setting=flag,
            value=file,
        ) from None


def _first(error: Exception) -> str:
    """The first sentence of an error of Keras."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.split(". ")[0][:200].rstrip(". ")


def pixel_affine(
    function: Callable[[np.ndarray], Any], channels: int
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the affine map that a function of images applies to every pixel.

    Args:
        function: Images [B, H, W, channels] -> [B, H, W, C].
        channels: Of the images.

    Returns:
        Kernel [channels, C] and bias [C], float32: pixel @ kernel + bias.

    Raises:
        TypeError: It is not affine in the channels of a pixel.
    """

    def values(images: np.ndarray) -> np.ndarray:
        found: np.ndarray = keras.ops.convert_to_numpy(function(images))
        return found

    points = np.concatenate([np.zeros((1, channels)), np.eye(channels)]).astype(np.float32)
    at_points = values(points[:, np.newaxis, np.newaxis])[:, 0, 0]
    kernel, bias = at_points[1:] - at_points[0], at_points[0]
    probe = np.random.default_rng(0).random((2, 3, 3, channels)).astype(np.float32)
    if not np.allclose(probe @ kernel + bias, values(probe), rtol=1e-4, atol=1e-3):
        raise TypeError(f"{type(function).__name__} is not affine in the channels")
    return kernel, bias


@contextmanager
def dtype_policy(policy: keras.DTypePolicy | str) -> Iterator[None]:
    """Sets the global policy within the block, because Keras builds its applications in it."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Networks built within have shapes, but no memory for their variables.

    Keras notes such variables, and gives memory to all of them at the end of the next
    `StatelessScope`, wherever that is: gigabytes in the middle of an export. They are taken from
    its list.
    """
    key = "uninitialized_variables"
    before = list(global_state.get_global_attribute(key, []))
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield
    finally:
        global_state.set_global_attribute(key, before)


@cache
def gray_affine(name: str) -> tuple[float, float]:
    """Factor and offset that a network's preprocessing applies to grey in [0, 1], on average.

    For images of other than three channels, which have no preprocessing of their own. What the
    network does itself for three channels, and leaves out for others, is part of it.

    Raises:
        UserError: There is no such network.
    """
    build, module = _application(name)
    inner = None
    if "include_preprocessing" in inspect.signature(build).parameters:
        drawn = random.getstate()
        with dtype_policy("float32"), shapes_only():
            inner = _leading(build(include_top=False, weights=None, input_shape=(None, None, 3)))
        random.setstate(drawn)  # weights that come later are drawn as if this had not been

    def prepared(images: np.ndarray) -> Any:
        shown = module.preprocess_input(images * 255.0)
        return shown if inner is None else inner(shown)

    kernel, bias = pixel_affine(prepared, 3)
    return float(kernel.sum(axis=0).mean()), float(bias.mean())


def _leading(trunk: keras.Model) -> keras.Model:
    """The layers at the beginning of a network that only scale pixels."""
    last = trunk.layers[0]
    for layer in trunk.layers[1:]:
        if not _scales(layer):
            break
        last = layer
    return keras.Model(trunk.input, last.output)


def _scales(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.Sequential):
        return all(_scales(inner) for inner in layer.layers)
    return isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization)
