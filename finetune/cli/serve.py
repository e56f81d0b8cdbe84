"""`simclr-serve`: a local page that classifies an image dropped on it."""

import logging
import sys
from collections.abc import Collection

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow, progress_lines
from finetune.sections import ServeConfig

NAME = "simclr-serve"
DESCRIPTION = """Serves a page on this machine: drop an image on it and see its class, the scores
and the training images that lie nearest in the network's embedding. `curl -F image=@FILE
http://127.0.0.1:PORT/predict` gives the same as JSON. Uploads stay in memory. There are no
accounts: whoever can reach the address can use it, so it is 127.0.0.1 unless --host says
otherwise."""

log = logging.getLogger("finetune.serve.serve")


def run(config: ServeConfig, _given: Collection[str]) -> None:
    """Serves until interrupted."""
    s = config.service
    model = s.given_model()
    import_tensorflow()
    from finetune.serve.answer import open_neighbors
    from finetune.serve.serve import ServeLimits, make_service
    from finetune.trained import open_trained

    trained = open_trained(model)
    neighbors = open_neighbors(trained, progress_lines("images"), s.image_dir)
    limits = ServeLimits(s.max_megabytes, s.max_megapixels, s.max_memory, s.timeout)
    server = make_service(trained, neighbors, s.host, s.port, limits)
    log.info("http://%s:%d/ (stop with Ctrl-C)", s.host, server.port)
    try:
        server.serve_forever()
    finally:
        server.close()
        log.info("stopped")


COMMAND = Command(NAME, DESCRIPTION, ServeConfig, run, positional=("model",))
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
