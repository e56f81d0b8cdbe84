"""`simclr-export`: a trained classifier as ONNX, SavedModel or Keras file for use elsewhere."""

import logging
import sys
from collections.abc import Collection
from pathlib import Path

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow
from data_prep.errors import UserError
from finetune.report.side_files import facts_file
from finetune.sections import ExportConfig

NAME = "simclr-export"
DESCRIPTION = """Writes the classifier of a run, or any SimCLR checkpoint with a supervised head, as
a file that runs without this package: ONNX (onnxruntime), SavedModel (TensorFlow) or a Keras file
of Keras's own layers. It gives probabilities, logits and features. What was written is read back
and run, on training images from their files if they are still there, and kept only if it says what
simclr-predict says. OUTPUT.json (in a SavedModel
classifier.json) names the classes and how images are prepared."""

log = logging.getLogger("finetune.export.export")


def run(config: ExportConfig, given: Collection[str]) -> int:
    """Exports what the settings name."""
    from data_prep.outputs import requested_outputs

    e = config.export
    model, output = e.given_model(), Path(e.output)
    if e.format == "keras" and output.suffix != ".keras":
        raise UserError("must end in .keras", setting="output", value=output)
    facts = facts_file(output, folder=e.format == "saved_model")
    beside = [] if e.format == "saved_model" else [facts]
    outputs = requested_outputs(config, given, NAME, besides=beside)
    if (code := outputs.code_if_complete()) is not None:
        return code
    import_tensorflow()
    from finetune.export.export import ExportRequest, export
    from finetune.trained import open_trained

    takes = e.input or ("prepared" if e.format == "keras" else "image")
    trained = open_trained(model, "float32")
    with outputs.drafts() as drafts:
        checked = export(trained, drafts.paths[0], ExportRequest(e.format, takes))
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


COMMAND = Command(NAME, DESCRIPTION, ExportConfig, run, positional=("model", "output"))
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
