"""`simclr-convert`: any SimCLR checkpoint into an ordinary Keras model, and back."""

import logging
import sys
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow
from data_prep.errors import UserError
from data_prep.outputs import requested_outputs
from data_prep.settings import Config, setting
from data_prep.storage import write_text

if TYPE_CHECKING:
    from simclr_tf.models.simclr import SimCLRModel

NAME = "simclr-convert"
DESCRIPTION = """Reads a SimCLR checkpoint of any kind and writes it in the layout that is wanted.

Read: TF1 checkpoints and hub modules, TF2 object graphs (ckpt-N), SavedModels, files converted by
the drill-core repository, .keras files, and the names that simclr-zoo lists. Kind and network are
recognised. Every tensor is accounted for, and the converted network is run once. Of a SavedModel
the weights are read and its graph is not run, for a graph may read and write files; --trust runs it
and compares the numbers."""

log = logging.getLogger("simclr_tf.convert")


@dataclass(frozen=True)
class ConversionSettings:
    """Conversion."""

    checkpoint: str = setting("", "What to read.", required=True, also="encoder")
    output: str = setting("", "File or folder to write; none: look and report only.")
    format: Literal["auto", "keras", "saved_model", "tf1", "tf2", "h5"] = setting(
        "auto", "Layout of the output; auto goes by its ending, .keras or .weights.h5."
    )
    part: Literal["encoder", "model"] = setting(
        "encoder", "What keras and h5 hold: the encoder, or also the supervised head."
    )
    overwrite: bool = setting(False, "Replace an output that is there.")
    report: str = setting("", "CSV of every tensor; empty: the output's name and .coverage.csv.")
    trust: bool = setting(
        False,
        "Run the graph of a SavedModel to compare the converted network with it. A graph can read "
        "and write files: say so only of models whose makers you trust.",
    )


@dataclass(frozen=True)
class WeightSettings:
    """Weights."""

    ema: bool = setting(False, "Take the moving averages of a TF1 checkpoint.")
    image_channels: int = setting(0, "Channels of the images to come; 0: as is.")
    stem_adapt: Literal["sum", "mean", "repeat"] = setting(
        "sum", "How the first kernel is made for other channels."
    )
    rescale: str = setting(
        "",
        "Rescale kernels that BatchNorm follows, and its statistics: a factor, 'init' (the norms "
        "of a fresh network) or another checkpoint of the same network, whose norms are taken.",
    )
    step: int = setting(0, "Number that tf1 and tf2 checkpoints get.")


@dataclass(frozen=True)
class ExpectedNetwork:
    """Expected network (what is given must be what the checkpoint is)."""

    resnet_depth: int | None = setting(None, "Depth.")
    width_multiplier: float | None = setting(None, "Width multiplier.")
    sk_ratio: float | None = setting(None, "Ratio of selective kernels.")
    se_ratio: float | None = setting(None, "Ratio of squeeze and excitation.")
    stem: Literal["imagenet", "cifar"] | None = setting(None, "First layers.")
    num_of_classes: int | None = setting(None, "Classes of the supervised head.")


@dataclass(frozen=True)
class ConvertConfig(Config):
    """All settings of `simclr-convert`."""

    conversion: ConversionSettings = field(default_factory=ConversionSettings)
    weights: WeightSettings = field(default_factory=WeightSettings)
    expected: ExpectedNetwork = field(default_factory=ExpectedNetwork)


def run(config: ConvertConfig, given: Collection[str]) -> int:
    """Converts what the settings name."""
    f, weights = config.conversion, config.weights
    output = Path(f.output) if f.output else None
    report = Path(f.report or f"{f.output}.coverage.csv")
    outputs = requested_outputs(config, given, NAME, besides=[report]) if output else None
    if outputs and (code := outputs.code_if_complete()) is not None:
        return code
    import_tensorflow()
    from simclr_tf.checkpoints.adapt import check_inference
    from simclr_tf.checkpoints.load import convert, open_checkpoint
    from simclr_tf.checkpoints.write import format_of, write_model
    from simclr_tf.training.from_checkpoint import refuse_contradictions

    layout = (format_of(f.output) if f.format == "auto" else f.format) if output else None
    checkpoint = open_checkpoint(f.checkpoint, ema=weights.ema)
    expected = {n: value for n, value in vars(config.expected).items() if value is not None}
    refuse_contradictions(checkpoint, expected)
    model, coverage = convert(
        checkpoint, channels=weights.image_channels or None, stem_adapt=weights.stem_adapt
    )
    print(coverage.summary())
    original = checkpoint.location.saved_model if not weights.image_channels else ""
    if original and not f.trust:
        log.info("the graph of %s was not run; --trust runs it and compares the numbers", original)
        original = ""
    print(check_inference(model, original).table())
    if weights.rescale:
        _rescale(model, weights.rescale)
        print(f"after --rescale={weights.rescale}:\n{check_inference(model, original).table()}")
    if outputs and layout:
        with outputs.drafts() as drafts:
            write_model(model, drafts.paths[0], layout, part=f.part, step=weights.step)
            write_text(drafts.paths[1], coverage.csv())
        log.info("wrote %s (%s) and %s", output, layout, report)
    return 0


def _rescale(model: "SimCLRModel", wanted: str) -> None:
    from simclr_tf.checkpoints.adapt import initial_norms, kernel_norms, rescale
    from simclr_tf.checkpoints.load import load_model

    try:
        factor = float(wanted)
    except ValueError:
        norms = initial_norms(model) if wanted == "init" else kernel_norms(load_model(wanted))
        missing = set(kernel_norms(model)) - set(norms)
        if missing:
            raise UserError(
                f"is of another network; it has no {min(missing)}", setting="rescale", value=wanted
            ) from None
        rescale(model, norms)
    else:
        rescale(model, factor)


COMMAND = Command(NAME, DESCRIPTION, ConvertConfig, run, positional=("checkpoint", "output"))
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
