"""`simclr-convert`: any SimCLR checkpoint into an ordinary Keras model, and back."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.request import asked
from data_prep.cli.runtime import import_tensorflow
from data_prep.errors import UserError
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

# Facts of the network that may be given, to be held against the checkpoint.
EXPECTED = ("resnet_depth", "width_multiplier", "sk_ratio", "se_ratio", "stem", "num_of_classes")


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    with topic(flag_values, "Conversion"):
        flags.DEFINE_string("checkpoint", None, "What to read.", required=True, **own)
        flags.DEFINE_string(
            "output", None, "File or folder to write; none: look and report only.", **own
        )
        flags.DEFINE_enum(
            "format",
            "auto",
            ["auto", "keras", "saved_model", "tf1", "tf2", "h5"],
            "Layout of the output; auto goes by its ending, .keras or .weights.h5.",
            **own,
        )
        flags.DEFINE_enum(
            "part",
            "encoder",
            ["encoder", "model"],
            "What keras and h5 hold: the encoder, or also the supervised head.",
            **own,
        )
        flags.DEFINE_bool("overwrite", False, "Replace an output that is there.", **own)
        flags.DEFINE_string(
            "report", "", "CSV of every tensor; empty: the output's name and .coverage.csv.", **own
        )
        flags.DEFINE_bool(
            "trust",
            False,
            "Run the graph of a SavedModel to compare the converted network with it. A graph can"
            " read and write files: say so only of models whose makers you trust.",
            **own,
        )
    with topic(flag_values, "Weights"):
        flags.DEFINE_bool("ema", False, "Take the moving averages of a TF1 checkpoint.", **own)
        flags.DEFINE_integer(
            "image_channels", 0, "Channels of the images to come; 0: as is.", **own
        )
        flags.DEFINE_enum(
            "stem_adapt",
            "sum",
            ["sum", "mean", "repeat"],
            "How the first kernel is made for other channels.",
            **own,
        )
        flags.DEFINE_string(
            "rescale",
            "",
            "Rescale kernels that BatchNorm follows, and its statistics: a factor, 'init' (the "
            "norms of a fresh network) or another checkpoint of the same network, whose norms are "
            "taken.",
            **own,
        )
        flags.DEFINE_integer("step", 0, "Number that tf1 and tf2 checkpoints get.", **own)
    with topic(flag_values, "Expected network (what is given must be what the checkpoint is)"):
        flags.DEFINE_integer("resnet_depth", None, "Depth.", **own)
        flags.DEFINE_float("width_multiplier", None, "Width multiplier.", **own)
        flags.DEFINE_float("sk_ratio", None, "Ratio of selective kernels.", **own)
        flags.DEFINE_float("se_ratio", None, "Ratio of squeeze and excitation.", **own)
        flags.DEFINE_enum("stem", None, ["imagenet", "cifar"], "First layers.", **own)
        flags.DEFINE_integer("num_of_classes", None, "Classes of the supervised head.", **own)


def run(flag_values: flags.FlagValues) -> int:
    """Converts what the flags name."""
    f = flag_values
    output = Path(f.output) if f.output else None
    report = Path(f.report or f"{f.output}.coverage.csv")
    outputs = asked(f, NAME, ["output"], [report]) if output else None
    if outputs and (code := outputs.code_if_complete()) is not None:
        return code
    import_tensorflow()
    from simclr_tf.checkpoints.adapt import check_inference
    from simclr_tf.checkpoints.load import convert, open_checkpoint
    from simclr_tf.checkpoints.write import format_of, write_model
    from simclr_tf.training.from_checkpoint import refuse_contradictions

    layout = f.format if f.format != "auto" or not output else format_of(f.output)
    checkpoint = open_checkpoint(f.checkpoint, ema=f.ema)
    refuse_contradictions(checkpoint, {n: f[n].value for n in EXPECTED if f[n].value is not None})
    model, coverage = convert(
        checkpoint, channels=f.image_channels or None, stem_adapt=f.stem_adapt
    )
    print(coverage.summary())
    original = checkpoint.location.saved_model if not f.image_channels else ""
    if original and not f.trust:
        log.info("the graph of %s was not run; --trust runs it and compares the numbers", original)
        original = ""
    print(check_inference(model, original).table())
    if f.rescale:
        _rescale(model, f.rescale)
        print(f"after --rescale={f.rescale}:\n{check_inference(model, original).table()}")
    if outputs:
        with outputs.drafts() as drafts:
            write_model(model, drafts.paths[0], layout, part=f.part, step=f.step)
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
                f"--rescale={wanted}: is of another network; it has no {min(missing)}"
            ) from None
        rescale(model, norms)
    else:
        rescale(model, factor)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-convert`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
