"""Every public SimCLR checkpoint, and every one of this package, as an ordinary Keras model."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal, get_args

import keras
import numpy as np

from data_prep.csv_files import csv_text
from data_prep.errors import UserError
from simclr_tf.checkpoints.adapt import StemAdapt, adapt_channels, adaptable
from simclr_tf.checkpoints.find import Location, locate
from simclr_tf.checkpoints.identify import IdentifiedNetwork, architecture_name, recognize
from simclr_tf.checkpoints.keras_file import open_keras_file
from simclr_tf.checkpoints.preprocessing import read_record
from simclr_tf.checkpoints.read import StoredWeights, open_weights
from simclr_tf.models.simclr import SimCLREncoder, SimCLRModel
from simclr_tf.models.variable_names import canonical_variables

Status = Literal["used", "adapted", "unused", "missing"]


@dataclass(frozen=True)
class CoverageRow:
    """One tensor in the account of a conversion.

    Attributes:
        tensor: Its name in the checkpoint; that of the variable if the checkpoint has none.
        shape: Its shape there.
        status: `used`; `adapted`, used with another shape; `unused`; `missing`, a variable of the
            network that keeps its fresh value.
        note: The variable that took it, or why none did.
    """

    tensor: str
    shape: tuple[int, ...]
    status: Status
    note: str


@dataclass(frozen=True)
class Coverage:
    """The whole account of a conversion.

    Attributes:
        source: What the checkpoint is, in words.
        rows: Every tensor once.
    """

    source: str
    rows: tuple[CoverageRow, ...]

    def with_status(self, *statuses: Status) -> tuple[CoverageRow, ...]:
        """The rows of these kinds."""
        return tuple(row for row in self.rows if row.status in statuses)

    def summary(self) -> str:
        """A few lines: how many tensors were used, and why others were not."""
        lines = [self.source]
        for status in get_args(Status):
            lines += self._counted(self.with_status(status))
        return "\n".join(lines)

    def _counted(self, rows: Sequence[CoverageRow]) -> Iterator[str]:
        grouped = rows and rows[0].status == "used"
        reasons = Counter("weights of the network" if grouped else row.note for row in rows)
        for reason, number in sorted(reasons.items(), key=lambda pair: -pair[1]):
            same = [row for row in rows if grouped or row.note == reason]
            values = sum(prod(row.shape) for row in same)
            yield f"  {same[0].status:8s}{number:6d} tensors {values:12,d} values  {reason}"

    def csv(self) -> str:
        """Every row as CSV: status, tensor, shape, note."""
        rows = [["status", "tensor", "shape", "note"]]
        for row in self.rows:
            shape = "x".join(map(str, row.shape)) or "scalar"
            rows.append([row.status, row.tensor, shape, row.note])
        return csv_text(rows)


_STEMS = ("base_model/conv2d/kernel", "base_model/stem/")  # of ResNets, of other backbones
_HEADS = {"head_contrastive/": "projection head", "head_supervised/": "supervised head"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was found, opened and recognised.

    Attributes:
        location: Where it lies.
        stored: What it holds.
        network: What it is of.
        preprocessing: How its images were prepared.
    """

    location: Location
    stored: StoredWeights
    network: IdentifiedNetwork
    preprocessing: dict[str, Any]

    def describe(self) -> str:
        """Describes the checkpoint in one line."""
        n = self.network
        head = f"projection head of {n.projection.depth} layers" if n.projection.depth else ""
        classes = f"{n.num_classes} classes" if n.num_classes else "no supervised head"
        parts = [f"{self.stored.layout} of {n.name}", head or "no projection head", classes]
        assumed = [f"assumed: {text}" for text in n.assumed]
        return f"{self.stored.path}: {', '.join(parts + assumed)}"


def open_checkpoint(path: str, *, ema: bool = False) -> Checkpoint:
    """Finds, opens and recognises a checkpoint, without reading its weights.

    Args:
        path: See `locate`.
        ema: Take the moving averages of a TF1 file.

    Raises:
        UserError: There is none, it is damaged, or it is of no SimCLR network.
    """
    location = locate(path)
    if location.kind == "keras":
        return _open_keras(location, ema)
    stored = open_weights(location, ema)
    network = recognize(stored)
    return Checkpoint(location, stored, network, read_record(location, network))


def _open_keras(location: Location, ema: bool) -> Checkpoint:
    if ema:
        raise UserError(f"{location.path} holds no moving averages", setting="ema")
    try:
        model = open_keras_file(location.path)
    except UserError as error:
        problem = str(error).removeprefix(location.path).lstrip()
        raise UserError(problem, setting="checkpoint", value=location.path) from None
    if not isinstance(model, SimCLRModel | SimCLREncoder):
        raise UserError(
            f"holds a {type(model).__name__}, not an encoder of this package",
            setting="checkpoint",
            value=location.path,
        )
    encoder = model.encoder if isinstance(model, SimCLRModel) else model
    variables = canonical_variables(model)
    stored = StoredWeights(
        location.path,
        "Keras file",
        "canonical",
        {name: tuple(v.shape) for name, v in variables.items()},
        (),
        lambda name: np.asarray(variables[name]),
        {name: encoder.get_config()[name] for name in ("batch_norm_decay", "global_bn")},
    )
    network = IdentifiedNetwork(
        encoder.backbone().architecture,
        encoder.projection_head.architecture,
        model.num_classes if isinstance(model, SimCLRModel) else None,
        model.ft_proj_selector if isinstance(model, SimCLRModel) else 0,
        {name: name for name in variables},
    )
    record = encoder.preprocessing or read_record(location, network)
    return Checkpoint(location, stored, network, record)


class Checkpoints:
    """Checkpoints that several parts of a command ask for, each opened once.

    For files that do not change meanwhile: what was opened under a path is handed on.
    """

    def __init__(self) -> None:
        self._opened: dict[tuple[str, bool], Checkpoint] = {}

    def open(self, path: str, *, ema: bool = False) -> Checkpoint:
        """The checkpoint of a path; see `open_checkpoint`."""
        key = (path, ema)
        if key not in self._opened:
            self._opened[key] = open_checkpoint(path, ema=ema)
        return self._opened[key]


def load_encoder(path: str | os.PathLike[str], *, ema: bool = False) -> SimCLREncoder:
    """An encoder with the weights of any SimCLR checkpoint, ready to be used or trained.

    Args:
        path: A prefix, file, folder or name of the zoo, see `locate`.
        ema: Take the moving averages of a TF1 file.

    Returns:
        The encoder: images [B, H, W, C] in [0, 1] -> representation [B, D]; all of it trains.
        `encoder.preprocessing` says how to prepare images.

    Raises:
        UserError: There is no such checkpoint, it is damaged, or it is of no SimCLR network.

    Example:
        >>> encoder = load_encoder("simclrv2/pretrained/r50_1x_sk0")
        >>> features = encoder.predict(images)
    """
    return load_model(path, ema=ema).encoder


def load_model(path: str | os.PathLike[str], *, ema: bool = False) -> SimCLRModel:
    """Like `load_encoder`, with the supervised head where the checkpoint has one."""
    model, _ = convert(open_checkpoint(os.fspath(path), ema=ema))
    return model


def convert(
    checkpoint: Checkpoint, *, channels: int | None = None, stem_adapt: StemAdapt = "sum"
) -> tuple[SimCLRModel, Coverage]:
    """Builds the network that a checkpoint is of and fills it.

    Args:
        checkpoint: The opened checkpoint.
        channels: Channels of the images to come; None = those of the checkpoint.
        stem_adapt: How other channels are made, see `adapt_stem`.

    Returns:
        The model, and what became of every tensor.
    """
    network = checkpoint.network
    channels = channels or network.architecture.image_channels
    encoder = build_encoder(checkpoint, channels)
    model = SimCLRModel(encoder, network.num_classes, network.ft_proj_selector)
    model.build()
    return model, load_variables(model, checkpoint, stem_adapt)


def build_encoder(checkpoint: Checkpoint, channels: int, dtype: str = "float32") -> SimCLREncoder:
    """The encoder that a checkpoint is of, with fresh weights.

    Args:
        checkpoint: The opened checkpoint.
        channels: Channels of the images to come.
        dtype: Keras dtype policy.
    """
    arguments = checkpoint.network.encoder_arguments()
    if "fixed_patches" in arguments.get("backbone", {}):  # only pretraining needs it
        arguments["backbone"] = {**arguments["backbone"], "fixed_patches": False}
    return SimCLREncoder(
        **{**arguments, "image_channels": channels},
        **checkpoint.stored.config,
        preprocessing={**checkpoint.preprocessing, "channels": channels},
        dtype=dtype,
    )


def load_weights(
    model: SimCLRModel, path: str, *, ema: bool = False, stem_adapt: StemAdapt = "sum"
) -> Coverage:
    """Loads a checkpoint's weights into a network that is there already; see `fill`."""
    return load_variables(model, open_checkpoint(path, ema=ema), stem_adapt)


def load_variables(
    model: SimCLRModel, checkpoint: Checkpoint, stem_adapt: StemAdapt = "sum"
) -> Coverage:
    """Sets a network's variables from a checkpoint.

    The backbone must fit completely, but for the number of channels. A head whose shape differs
    (other classes, another projection) keeps its fresh weights, and the account says so.

    Args:
        model: A built model.
        checkpoint: The opened checkpoint.
        stem_adapt: How weights for other channels are made.

    Returns:
        What became of every tensor.

    Raises:
        UserError: The backbone is another one, or the file is damaged; nothing is set then.
    """
    variables = canonical_variables(model)
    _refuse_other_backbone(model, checkpoint)
    stored, weights = checkpoint.stored, checkpoint.network.weights
    fresh = {h for h in _HEADS if not _fits(h, variables, checkpoint)}
    values: dict[str, np.ndarray] = {}
    for name, variable in variables.items():
        if not name.startswith(tuple(fresh)):
            value = stored.read(weights[name])
            values[name] = adapt_channels(value, tuple(variable.shape), stem_adapt)
    for name, value in values.items():
        variables[name].assign(value)
    return Coverage(checkpoint.describe(), tuple(_account(checkpoint, variables, values)))


def _fits(head: str, variables: dict[str, keras.Variable], checkpoint: Checkpoint) -> bool:
    """True if a network's head has the variables of the checkpoint's, in the same shapes.

    The first layers of a longer head are no head: what comes out of them is a hidden layer.
    """
    here = {n: tuple(v.shape) for n, v in variables.items() if n.startswith(head)}
    weights, shapes = checkpoint.network.weights, checkpoint.stored.shapes
    return here == {n: shapes[key] for n, key in weights.items() if n.startswith(head)}


def _refuse_other_backbone(model: SimCLRModel, checkpoint: Checkpoint) -> None:
    backbone = model.encoder.backbone()
    here, there = backbone.architecture, checkpoint.network.architecture
    wanted = {n: tuple(v.shape) for n, v in canonical_variables(backbone).items()}
    weights, shapes = checkpoint.network.weights, checkpoint.stored.shapes
    held = {n: shapes[key] for n, key in weights.items() if n.startswith("base_model/")}
    channels = (there.image_channels, here.image_channels)
    differing = [
        n
        for n in {**wanted, **held}
        if wanted.get(n) != held.get(n)
        and not (n.startswith(_STEMS) and adaptable(held.get(n), wanted.get(n), *channels))
    ]
    if not differing:
        return
    # What the stem has first is its kernel, whose channels may differ anyhow.
    first = min(differing, key=lambda name: name.startswith(_STEMS))
    raise UserError(
        f"is {architecture_name(there)}, the network is "
        f"{architecture_name(here)}: {first} is {held.get(first, 'missing')} there and "
        f"{wanted.get(first, 'missing')} here; check --backbone, --resnet_depth, "
        "--width_multiplier, --sk_ratio, --se_ratio, --stem, --patch_size, --transformer_depth",
        setting="checkpoint",
        value=checkpoint.stored.path,
    )


def _account(
    checkpoint: Checkpoint, variables: dict[str, keras.Variable], values: dict[str, np.ndarray]
) -> Iterator[CoverageRow]:
    stored = checkpoint.stored
    names = {key: name for name, key in checkpoint.network.weights.items()}
    for key, shape in stored.shapes.items():
        name = names[key]
        if name in values:
            adapted = values[name].shape != shape
            note = f"{name} {tuple(values[name].shape)}" if adapted else name
            yield CoverageRow(key, shape, "adapted" if adapted else "used", note)
        else:
            why = "has another shape" if name in variables else "is not in the network"
            yield CoverageRow(key, shape, "unused", f"the {_head_of(name)} {why}")
    for left in stored.left_out:
        yield CoverageRow(left.tensor, left.shape, "unused", left.why)
    for name, variable in variables.items():
        if name not in values:
            note = f"the {_head_of(name)} starts fresh"
            yield CoverageRow(name, tuple(variable.shape), "missing", note)


def _head_of(name: str) -> str:
    """The head that a variable belongs to, in words; only heads may be left out."""
    return next(text for scope, text in _HEADS.items() if name.startswith(scope))
