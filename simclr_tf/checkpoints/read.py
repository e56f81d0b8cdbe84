"""The contents of a checkpoint, whoever wrote it: weights by name, and what else lies in the file.

Five layouts are told apart by what the file itself says:

* TF1 `Saver` files: variables under their graph names, `base_model/conv2d/kernel`;
* TF2 object graphs of `tf2/run.py` and of this package: `model/resnet_model/...`;
* the variables of SavedModels: any key, but the file's object graph keeps the variables' names;
* name maps, `vars/<name>`: TF1 files converted by the drill-core repository, and our SavedModels;
* `.keras` files of this package.

ResNets are recognised by their weights, as the public checkpoints must be. Other backbones write
down what they are, beside the weights and in the same file: JSON, as a vector of bytes, because
readers of checkpoints look for numbers.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from data_prep.errors import UserError
from simclr_tf.checkpoints.find import Location
from simclr_tf.checkpoints.plain_names import PlainName
from simclr_tf.models.architectures import FEATURE_DIM
from simclr_tf.models.resnet import ResNet
from simclr_tf.models.simclr import SimCLREncoder, SimCLRModel
from simclr_tf.models.variable_names import OWN_BACKBONE

NETWORK = "network"
NETWORK_KEY = f"model/{NETWORK}"  # in object graphs


def describe(model: SimCLRModel | SimCLREncoder) -> np.ndarray | None:
    """The bytes that go into a checkpoint, uint8 [n]; None for a ResNet."""
    encoder = model.encoder if isinstance(model, SimCLRModel) else model
    backbone = encoder.backbone()
    if isinstance(backbone, ResNet):
        return None
    facts = {**backbone.architecture.config(), FEATURE_DIM: backbone.feature_dim}
    return np.frombuffer(json.dumps(facts, sort_keys=True).encode(), np.uint8).copy()


def read_description(content: np.ndarray) -> Mapping[str, Any]:
    """Reads what `describe` wrote: fields of the architecture, and `feature_dim`."""
    facts: dict[str, Any] = json.loads(content.tobytes().decode())
    return facts


GRAPH_KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"

Naming = Literal["canonical", "tf2_key"]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class UnusedTensor:
    """A tensor that is no weight of the network, and the reason; empty if it is not known."""

    tensor: str
    shape: Shape
    why: str


@dataclass(frozen=True)
class StoredWeights:
    """The contents of a checkpoint.

    Attributes:
        path: Where it lies.
        layout: What wrote it, in words.
        naming: What the weights' names are: those of the TF1 graph, or TF2 object-graph keys
            without TensorFlow's suffix.
        shapes: Shape of every weight by its name.
        left_out: Every other tensor.
        read: Reads a weight by its name; verifies its checksum.
        config: Constructor arguments of the encoder that shapes do not tell, where they are known.
        description: What the file says of a backbone that is no ResNet, see `read_description`.
    """

    path: str
    layout: str
    naming: Naming
    shapes: Mapping[str, Shape]
    left_out: tuple[UnusedTensor, ...]
    read: Callable[[str], np.ndarray] = field(repr=False)
    config: Mapping[str, Any] = field(default_factory=dict)
    description: Mapping[str, Any] = field(default_factory=dict)


def read_tensors(prefix: str) -> dict[str, np.ndarray]:
    """Reads every numeric tensor of a TensorFlow checkpoint, which verifies its checksums.

    Args:
        prefix: Path without `.index`, such as `run/ckpt-100`.

    Returns:
        The tensors by key, without TensorFlow's suffix.

    Raises:
        UserError: The files are missing or damaged.
    """
    reader = _Reader(prefix)
    reader.graph()  # others need it: without it the file is not whole
    return {key.removesuffix(SUFFIX): reader.tensor(key) for key in reader.shapes}


def open_weights(location: Location, ema: bool = False) -> StoredWeights:
    """Looks into a checkpoint of TensorFlow; weights are read when they are asked for.

    Args:
        location: Of tensors.
        ema: Take the moving averages (`ema_model/` twins) of a TF1 file instead of the weights.

    Raises:
        UserError: The files are missing or damaged, or hold no moving averages.
    """
    reader = _Reader(location.path)
    graph = reader.graph()
    if graph is None:
        return _tf1(reader, ema)
    if ema:
        raise UserError(
            f"only TF1 checkpoints hold moving averages; {reader.prefix} is TF2", setting="ema"
        )
    if any(child.local_name == "vars" for child in graph.nodes[0].children):
        return _name_map(reader, graph)
    known = ("model/resnet_model/initial_conv", "model/resnet_model/block_groups", OWN_BACKBONE)
    if any(key.startswith(known) for key in reader.shapes):
        return _object_graph(reader)
    return _saved_model(reader, graph)


class _Reader:
    """TensorFlow's checkpoint reader, with failures in one line."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._name = PlainName(prefix)  # kept, for tensors are read later
        self._reader = self._try(lambda: tf.train.load_checkpoint(self._name.path))
        shapes = self._try(self._reader.get_variable_to_shape_map)
        self._has_graph = shapes.pop(GRAPH_KEY, None) is not None
        self.shapes: dict[str, Shape] = {k: tuple(s) for k, s in sorted(shapes.items())}

    def _try(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            first = first.replace(self._name.path, self.prefix)
            raise UserError(f"checkpoint {self.prefix} is missing or damaged: {first}") from None

    def tensor(self, key: str) -> np.ndarray:
        return self._try(lambda: self._reader.get_tensor(key))

    def graph(self) -> TrackableObjectGraph | None:
        if not self._has_graph:
            return None
        proto = TrackableObjectGraph()
        proto.ParseFromString(self.tensor(GRAPH_KEY))
        return proto

    def stored(
        self, layout: str, naming: Naming, keys: dict[str, str], why: dict[str, str]
    ) -> StoredWeights:
        """The contents, given the key of every weight and why the others are none."""
        described = keys.pop(NETWORK, None) or keys.pop(NETWORK_KEY, None)
        description = read_description(self.tensor(described)) if described else {}
        taken = {*keys.values(), described}
        left_out = [
            UnusedTensor(key.removesuffix(SUFFIX), shape, why.get(key, ""))
            for key, shape in self.shapes.items()
            if key not in taken
        ]
        return StoredWeights(
            self.prefix,
            layout,
            naming,
            {name: self.shapes[key] for name, key in keys.items()},
            tuple(left_out),
            lambda name: self.tensor(keys[name]),
            description=description,
        )


_SCOPES = ("base_model/", "head_contrastive/", "head_supervised/")
_WEIGHT = re.compile(r"(kernel|bias|gamma|beta|moving_mean|moving_variance)$")
_EMA = "ema_model/"

# What lies beside the weights, by the tensor's name; the first that fits explains it.
_EXPLANATIONS = (
    (re.compile(r"\.OPTIMIZER_SLOT/"), "optimizer slot"),
    (re.compile(r"/(Momentum|LARSOptimizer|Adam(_\d+)?|RMSProp(_\d+)?)$"), "optimizer slot"),
    (re.compile(r"^optimizer/|^beta[12]_power$"), "optimizer state"),
    (re.compile(r"^method/"), "state of the pretraining method"),
    (re.compile(r"^(global_step|save_counter|_save_counter)(/|$)"), "step counter"),
    (re.compile(r"(^|/)ema_model/|/ExponentialMovingAverage$"), "moving average; --ema takes it"),
    (re.compile(r"(^|/)memory(/|$)"), "memory bank of other images"),
    (re.compile(r"^classifier/"), "hidden layers and output of a classifier"),
)


def _explain(keys: Iterable[str]) -> dict[str, str]:
    """The reason why each of these tensors is no weight; empty where it is not known."""
    return {
        key: next((why for pattern, why in _EXPLANATIONS if pattern.search(key)), "")
        for key in keys
    }


def _weights(names: Iterable[str]) -> set[str]:
    """The names of weights, and of the description if there is one."""
    known = set(names)
    if NETWORK in known:  # a file of this package: nothing else is in these scopes
        return {name for name in known if name.startswith(_SCOPES)} | {NETWORK}
    return {name for name in known if name.startswith(_SCOPES) and _WEIGHT.search(name)}


def _tf1(reader: _Reader, ema: bool) -> StoredWeights:
    names = _weights(reader.shapes)
    keys = {name: name for name in names}
    why = _explain(reader.shapes)
    layout = "TF1 checkpoint"
    if ema:
        twins = {
            name: twin
            for name in names
            for twin in (f"{_EMA}{name}", f"{name}/ExponentialMovingAverage")
            if twin in reader.shapes
        }
        if not twins:
            raise UserError(
                f"{reader.prefix} holds no moving averages (ema_model/...)", setting="ema"
            )
        keys |= twins
        why |= dict.fromkeys(twins, "its moving average is taken")
        layout = "TF1 checkpoint, moving averages"
    return reader.stored(layout, "canonical", dict(sorted(keys.items())), why)


def _object_graph(reader: _Reader) -> StoredWeights:
    keys = {
        key.removesuffix(SUFFIX): key
        for key in reader.shapes
        if key.startswith("model/") and ".OPTIMIZER_SLOT" not in key
    }
    return reader.stored("TF2 object graph", "tf2_key", keys, _explain(reader.shapes))


def _name_map(reader: _Reader, graph: TrackableObjectGraph) -> StoredWeights:
    """`vars` is a dictionary of variables by name; slots and counters are among them."""
    root = next(c for c in graph.nodes[0].children if c.local_name == "vars")
    names = {}
    for child in graph.nodes[root.node_id].children:
        for attribute in graph.nodes[child.node_id].attributes:
            # The escaped form of a name, as in the checkpoint's keys.
            names[child.local_name.replace(".S", "/")] = attribute.checkpoint_key
    why = {names[name]: reason for name, reason in _explain(dict.fromkeys(names, ())).items()}
    why |= {k: v for k, v in _explain(reader.shapes).items() if v}
    keys = {name: names[name] for name in names if name in _weights(names)}
    return reader.stored("map of names", "canonical", keys, why)


def _saved_model(reader: _Reader, graph: TrackableObjectGraph) -> StoredWeights:
    by_name = {
        attribute.full_name.removesuffix(":0"): attribute.checkpoint_key
        for node in graph.nodes
        for attribute in node.attributes
        if attribute.checkpoint_key in reader.shapes
    }
    named = dict(_canonical(sorted(by_name)))
    keys = {name: by_name[full_name] for full_name, name in named.items()}
    return reader.stored("SavedModel", "canonical", keys, _explain(reader.shapes))


_BACKBONE_LEAF = re.compile(
    r"(?P<kind>conv2d|batch_normalization)(_(?P<number>\d+))?/(?P<variable>\w+)$"
)
_PROJECTION_LEAF = re.compile(
    r"(^|/)(?P<layer>n?l_\d+)/(?:.*/)?(?P<kind>dense|batch_normalization)(_\d+)?/(?P<variable>\w+)$"
)
_SUPERVISED_LEAF = re.compile(r"head_supervised/.*dense(_\d+)?/(?P<variable>kernel|bias)$")


def _canonical(full_names: list[str]) -> Iterator[tuple[str, str]]:
    """TF1 names for the names that Keras gave the variables of the reference's TF2 network.

    Keras numbers layers through a whole process, so a backbone's numbers may start anywhere: they
    are counted anew, per kind.
    """
    backbone: dict[str, dict[int, list[tuple[str, str]]]] = {}
    for full_name in full_names:
        name = full_name.replace("sync_batch_normalization", "batch_normalization")
        if match := _SUPERVISED_LEAF.search(name):
            yield full_name, f"head_supervised/linear_layer/dense/{match['variable']}"
        elif match := _PROJECTION_LEAF.search(name):
            scope = f"head_contrastive/{match['layer']}/{match['kind']}"
            yield full_name, f"{scope}/{match['variable']}"
        elif match := _BACKBONE_LEAF.search(name):
            numbers = backbone.setdefault(match["kind"], {})
            number = int(match["number"] or 0)
            numbers.setdefault(number, []).append((full_name, match["variable"]))
    for kind, numbers in backbone.items():
        for position, number in enumerate(sorted(numbers)):
            scope = f"base_model/{kind}_{position}" if position else f"base_model/{kind}"
            for full_name, variable in numbers[number]:
                yield full_name, f"{scope}/{variable}"
