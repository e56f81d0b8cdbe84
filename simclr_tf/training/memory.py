"""An estimate of the memory that training takes, before the first step, and what would fit.

Most of it are activations: what the forward pass keeps for the backward pass. They are counted in
the traced graph of one image, so that every architecture, precision and freezing is counted as it
is, and grow with the images that the network sees at a time. Parameters, their gradients and the
optimizer's slots, the views of some batches and the cache of pixels come to it. On one CPU several
replicas share the memory; a GPU has its own.
"""

import logging
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.training.distribution import Devices

log = logging.getLogger(__name__)

_MIB = 2**20
# Fitted to peaks on a CPU of nine runs, from ResNet-18 of a quarter width to ResNet-50 of twice the
# width and a ViT, 1 to 4 GB; the estimates are within 20 % of them (`docs/pretrain.md`). For small
# networks of many layers they are too high: 1.39 times the peak of a ResNet-50 of half width.
_PROGRAM = 560 * _MIB  # TensorFlow, its libraries and threads
_LAYER = 9.25 * _MIB  # graph and kernels of a layer, and as much again for its gradients
_VARIABLES = 1.56  # copies of variables and gradients while they are updated, saved and exported
_LAYERS = {"Conv2D": 1.0, "DepthwiseConv2dNative": 1.0, "MatMul": 0.5, "BatchMatMulV2": 0.5}
_KEPT = frozenset({"Conv2D", "DepthwiseConv2dNative", "Relu", "Relu6", "MaxPool", "BatchMatMulV2",
                   "MatMul", "Softmax", "Erf", "Tanh", "Sigmoid"})  # fmt: skip
_SURE = 1.25  # an estimate so much above the memory is refused; closer ones are only said
_FITS = 0.8  # share of the memory that advice aims at


@dataclass(frozen=True)
class Activations:
    """Memory and layers that one image takes in a network.

    Attributes:
        kept: Bytes that the forward pass keeps for the backward pass.
        largest: Bytes of the two largest tensors, which even inference holds.
        layers: Convolutions in the graph; products of matrices count a half.
        trained_layers: Those that gradients are computed for.
    """

    kept: float
    largest: float
    layers: float = 0.0
    trained_layers: float = 0.0


def count_activations(
    forward: Callable[[tf.Tensor], object],
    size: int | tuple[int, int],
    channels: int,
    trainable: Iterable[keras.Variable],
) -> Activations:
    """Counts what a network's graph holds for one image.

    Args:
        forward: The network as it is called in inference, of images [b, S, S, C].
        size: Side of the images in pixels, or height and width.
        channels: Of the images.
        trainable: What is trained: before the first of them nothing is kept.
    """
    sides = (size, size) if isinstance(size, int) else size
    spec = tf.TensorSpec([1, *sides, channels], tf.float32)
    graph = tf.function(forward, autograph=False).get_concrete_function(spec).graph
    handles = {id(_handle(v)) for v in trainable}
    learning = {internal.ref() for external, internal in graph.captures if id(external) in handles}
    kept, sizes = 0.0, [0.0, 0.0]
    layers = trained_layers = 0.0
    for op in graph.get_operations():
        if any(x.ref() in learning for x in op.inputs):
            learning.update(x.ref() for x in op.outputs)
        for x in op.outputs[:1]:
            if op.type not in _KEPT:
                continue
            sizes.append(_bytes(x))
            layers += _LAYERS.get(op.type, 0.0)
            if x.ref() in learning:
                kept += sizes[-1]
                trained_layers += _LAYERS.get(op.type, 0.0)
    return Activations(kept, sum(sorted(sizes)[-2:]), layers, trained_layers)


def _handle(variable: keras.Variable) -> object:
    value = variable.value
    return getattr(value, "values", (value,))[0].handle


def _bytes(tensor: tf.Tensor) -> float:
    if not tensor.shape.is_fully_defined() or tensor.dtype in (tf.resource, tf.variant, tf.string):
        return 0.0
    return float(math.prod(tensor.shape) * tensor.dtype.size)


@dataclass(frozen=True)
class Load:
    """Everything that decides how much memory training, or a pass, takes.

    Attributes:
        activations: Of one image at the network's input size.
        variables: Bytes of all variables of networks and optimizer.
        trained: Bytes of those that are trained: so much again for gradients.
        size: Side of the network's input in pixels.
        channels: Of the images.
        batch: Images of a global batch.
        views: Of each image that the network sees in a step.
        microbatch: Images that it sees at a time; 0 = all.
        replicas: Over all devices of this machine.
        shared: Whether replicas share one memory, as on a CPU.
        extra: Activations of further crops, in those of one view.
        cache: Bytes of decoded images.
        batches: Made ahead.
        pixel: Bytes of a pixel's channel before it reaches the network.
    """

    activations: Activations
    variables: float
    trained: float
    size: int
    channels: int
    batch: int
    views: int = 2
    microbatch: int = 0
    replicas: int = 1
    shared: bool = True
    extra: float = 0.0
    cache: float = 0.0
    batches: int = 4
    pixel: int = 1

    def bytes(self) -> float:
        """The estimate for one memory: of all replicas if they share it, of one otherwise."""
        known, together = self.activations, self.replicas if self.shared else 1
        images = self.batch / self.replicas * together
        at_a_time = min(images, self.microbatch * together) if self.microbatch else images
        views = self.views + self.extra
        activations = at_a_time * (views * known.kept + 2 * known.largest)
        picture = self.size**2 * self.channels
        # Views of a batch in floats, with a copy while colours change; the rest as they came.
        pictures = images * views * picture * (4 * 2 + self.pixel * (self.batches + 1))
        variables = together * (self.variables + self.trained) * _VARIABLES
        graph = together * _LAYER * (known.layers + known.trained_layers)
        main = _PROGRAM + graph + self.cache if self.shared else 0.0
        return main + activations + pictures + variables

    def at(self, *, size: int = 0, batch: int = 0, microbatch: int = 0) -> "Load":
        """The load with another size, batch or micro-batch."""
        ratio = (size / self.size) ** 2 if size else 1.0
        known = self.activations
        return replace(
            self,
            activations=replace(known, kept=known.kept * ratio, largest=known.largest * ratio),
            size=size or self.size,
            batch=batch or self.batch,
            microbatch=microbatch or (0 if batch else self.microbatch),
        )


def variable_bytes(variables: Iterable[keras.Variable]) -> float:
    """Bytes of variables."""
    sizes = (math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables)
    return float(sum(sizes))


def memory_here(devices: Devices) -> float:
    """Bytes that training may take; infinite if unknown.

    On a CPU what the machine has left and what a control group allows, whichever is less; on GPUs
    what TensorFlow may take of the smallest of them.
    """
    if devices.kind == "CPU":
        return min(_available(), _allowed())
    if devices.kind == "GPU":
        return _gpu_memory()
    return math.inf


def _available() -> float:
    file = Path("/proc/meminfo")
    for line in file.read_text().splitlines() if file.exists() else ():
        if line.startswith("MemAvailable:"):
            return float(line.split()[1]) * 1024 + _own()
    return math.inf


def _own() -> float:
    """Bytes that this process holds already, which the estimate counts too."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0.0
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def _allowed() -> float:
    """Bytes that this process may hold in its control group (version 2 or 1), else infinite."""
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes",
         "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):  # fmt: skip
        try:
            most, now = Path(limit).read_text().strip(), float(Path(used).read_text())
        except (OSError, ValueError):
            continue
        if most.isdigit():
            return max(float(most) - now, 0.0) + _own()
    return math.inf


def _gpu_memory() -> float:
    from tensorflow.python.client import device_lib

    try:
        limits = [d.memory_limit for d in device_lib.list_local_devices() if d.device_type == "GPU"]
    except RuntimeError:
        return math.inf
    return float(min(limits)) if limits else math.inf


def check_memory(
    load: Load, available: float, flags: Iterable[str] = (), what: str = "training"
) -> None:
    """Refuses what cannot fit in memory, and says what would.

    Args:
        load: What the work holds.
        available: Bytes that there are.
        flags: Names of the settings that may be advised: of `microbatch`, `train_batch_size`,
            `eval_batch_size` and `image_size` those that the command has.
        what: Takes the memory.

    Raises:
        UserError: The estimate is far above what there is.
    """
    wanted = load.bytes()
    if wanted <= available:
        return
    said = (
        f"{what} is estimated to take {_gib(wanted)} of memory, and there are {_gib(available)}"
        f" ({load.batch} images a batch, {load.size} pixels)"
    )
    advice = _advice(load, _FITS * available, set(flags))
    if wanted <= _SURE * available:
        log.warning("%s; if it is killed, take %s", said, advice)
        return
    raise UserError(f"{said}; give {advice}; --nomemory_check tries all the same")


def _advice(load: Load, aim: float, flags: set[str]) -> str:
    """Flags under which training would fit, each alone, or together if none does alone."""
    rows = load.batch // load.replicas
    micro = [m for m in range(rows, 0, -1) if rows % m == 0]
    batches = [load.replicas * 2**k for k in range(16, 0, -1) if load.replicas * 2**k < load.batch]
    sizes = [s for s in (192, 160, 128, 96, 64, 48, 32) if s < load.size]
    choices = {
        "microbatch": (load.at(microbatch=m) for m in micro if m < rows),
        "train_batch_size": (load.at(batch=b) for b in batches),
        "eval_batch_size": (load.at(batch=b) for b in batches),
        "image_size": (load.at(size=s) for s in sizes),
    }
    values = {"microbatch": "microbatch", "image_size": "size"}
    found = []
    for name, loads in choices.items():
        fitting = next((known for known in loads if known.bytes() <= aim), None)
        if name in flags and fitting is not None:
            found.append(f"--{name}={getattr(fitting, values.get(name, 'batch'))}")
    if found:
        return " or ".join(found)
    for size in sizes:
        smaller = load.at(size=size, batch=min([8 * load.replicas, load.batch]))
        if smaller.bytes() <= aim:
            return f"--image_size={size} --train_batch_size={smaller.batch}"
    return "a smaller network (--resnet_depth, --width_multiplier)"


def _gib(number: float) -> str:
    return f"{number / 2**30:.1f} GiB"
