"""`simclr-serve`: a local page that classifies an image dropped on it."""

import logging
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.runtime import import_tensorflow, progress_lines
from finetune.cli.predict import define_model, given_model

NAME = "simclr-serve"
DESCRIPTION = """Serves a page on this machine: drop an image on it and see its class, the scores
and the training images that lie nearest in the network's embedding. `curl -F image=@FILE
http://127.0.0.1:PORT/predict` gives the same as JSON. Uploads stay in memory. There are no
accounts: whoever can reach the address can use it, so it is 127.0.0.1 unless --host says
otherwise."""

log = logging.getLogger("finetune.serve.serve")


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    with topic(flag_values, "Service"):
        define_model(flag_values)
        flags.DEFINE_string(
            "image_dir",
            "",
            "Folder in which the training images lie now, if they were moved without the run.",
            **own,
        )
        flags.DEFINE_string("host", "127.0.0.1", "Address to listen on.", **own)
        flags.DEFINE_integer("port", 8000, "Its port; 0 = any free one.", 0, 65535, **own)
        flags.DEFINE_float("max_megabytes", 32.0, "Largest upload.", 0.001, **own)
        flags.DEFINE_float(
            "max_megapixels", 50.0, "Largest picture in it, in millions of pixels.", 0.001, **own
        )
        flags.DEFINE_float(
            "max_memory", 2000.0, "Megabytes that decoding a picture may take.", 1.0, **own
        )
        flags.DEFINE_float(
            "timeout", 30.0, "Seconds after which a request must have arrived.", 1.0, **own
        )


def run(flag_values: flags.FlagValues) -> None:
    """Serves until interrupted."""
    f = flag_values
    model = given_model(f)
    import_tensorflow()
    from finetune.serve.answer import open_neighbours
    from finetune.serve.serve import ServeLimits, make_service
    from finetune.trained import open_trained

    trained = open_trained(model)
    neighbours = open_neighbours(trained, progress_lines("images"), f.image_dir)
    limits = ServeLimits(f.max_megabytes, f.max_megapixels, f.max_memory, f.timeout)
    server = make_service(trained, neighbours, f.host, f.port, limits)
    log.info("http://%s:%d/ (stop with Ctrl-C)", f.host, server.port)
    try:
        server.serve_forever()
    finally:
        server.close()
        log.info("stopped")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-serve`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
