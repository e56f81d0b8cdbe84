"""`simclr-export`: a trained classifier as ONNX, SavedModel or Keras file for use elsewhere."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.request import asked
from data_prep.cli.runtime import import_tensorflow
from data_prep.errors import UserError
from finetune.cli.predict import define_model, given_model
from finetune.report.side_files import facts_file

NAME = "simclr-export"
DESCRIPTION = """Writes the classifier of a run, or any SimCLR checkpoint with a supervised head, as
a file that runs without this package: ONNX (onnxruntime), SavedModel (TensorFlow) or a Keras file
of Keras's own layers. It gives probabilities, logits and features. What was written is read back
and run, on training images from their files if they are still there, and kept only if it says what
simclr-predict says. OUTPUT.json (in a SavedModel
classifier.json) names the classes and how images are prepared."""

log = logging.getLogger("finetune.export.export")


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    with topic(flag_values, "Export"):
        define_model(flag_values)
        flags.DEFINE_enum(
            "format", "onnx", ["onnx", "saved_model", "keras"], "Kind of file.", **own
        )
        flags.DEFINE_string("output", None, "New file; of a SavedModel a new folder.",
                            required=True, **own)  # fmt: skip
        flags.DEFINE_enum(
            "input",
            None,
            ["image", "float_image", "prepared"],
            "What goes in: image = the stored values of one image HxWxC of any size, in the type of"
            " the training files (most often uint8), an intensity rule being part of the model;"
            " float_image = the same after reading, float32 in [0, 1]; prepared = a batch of images"
            " already cropped and resized, float32 in [0, 1]. Default: image; of a Keras file"
            " prepared.",
            **own,
        )


def run(flag_values: flags.FlagValues) -> int:
    """Exports what the flags name."""
    f, output = flag_values, Path(flag_values.output)
    model = given_model(f)
    if f.format == "keras" and output.suffix != ".keras":
        raise UserError(f"--output={output}: must end in .keras")
    facts = facts_file(output, folder=f.format == "saved_model")
    beside = [] if f.format == "saved_model" else [facts]
    outputs = asked(f, NAME, ["output"], beside)
    if (code := outputs.code_if_complete()) is not None:
        return code
    import_tensorflow()
    from finetune.export.export import ExportRequest, export
    from finetune.trained import open_trained

    takes: Any = f.input or ("prepared" if f.format == "keras" else "image")
    trained = open_trained(model, "float32")
    with outputs.drafts() as drafts:
        checked = export(trained, drafts.paths[0], ExportRequest(f.format, takes))
    log.info("wrote %s and %s", output, facts)
    log.info("on noise, probabilities differ by at most %.0e from the network's", checked.on_noise)
    if checked.files:
        log.info(
            "on %d training images from their files, by at most %.0e from those of simclr-predict;"
            " the class is another for %d",
            checked.files,
            checked.on_files,
            checked.other_classes,
        )
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-export`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
