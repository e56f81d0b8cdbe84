"""`simclr pretrain`: pretraining with settings that suit the images and the machine."""

import logging
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow
from data_prep.errors import UserError
from data_prep.phrases import counted
from simclr_tf.cli.run import run as run_as_given
from simclr_tf.config.defaults import CHOSEN
from simclr_tf.config.run_config import PRESETS, RunConfig

NAME = "simclr-pretrain"
DESCRIPTION = """Pretrains a network on a folder of images, with labels or without. What is not
given suits the number, size and colour of the images and the machine, and is said with its reason.

simclr pretrain IMAGES OUT

The same command goes on where it was stopped. `simclr finetune OUT OUT2` makes a classifier of it.
simclr-run has the same flags with the defaults of SimCLR's own run.py."""

log = logging.getLogger("simclr_tf.pretrain")

# Facts of a network that starts from another one.
_NETWORK = ("image_size", "resnet_depth", "width_multiplier")


def run(config: RunConfig, given: Collection[str]) -> int:
    """Completes the settings and trains; 128 + the signal's number if it was asked to stop."""
    if not config.run.model_dir:
        raise UserError("is missing: say where the run is to be kept", setting="output")
    if config.train.train_mode != "pretrain":
        raise UserError("simclr pretrain knows pretrain alone", setting="train_mode")
    config = suited(config, given)
    return run_as_given(config, given)


def suited(config: RunConfig, given: Collection[str]) -> RunConfig:
    """The configuration with what was not given chosen for images and machine.

    A run that is there already keeps what was chosen for it.
    """
    stored = Path(config.run.model_dir) / "config.json"
    if stored.is_file() and not config.run.overwrite:
        return config.completed(RunConfig.load(stored).values(), given)
    d = config.data
    if not d.image_dir and not d.manifest:
        return config
    import_tensorflow()
    from data_prep.manifest.scan import image_facts
    from simclr_tf.config.defaults import suggest_settings
    from simclr_tf.training import distribution
    from simclr_tf.training.data import read_manifest
    from simclr_tf.training.memory import memory_here

    log.info("looking at sizes and colors of the images, to choose settings that suit them")
    with _silence():  # the training itself reads the images again, and says all of this
        manifest = read_manifest(d, config.reading)
    images = sum(record.split == d.train_split for record in manifest.records)
    devices = distribution.connect(config.machine)
    memory, gpu = memory_here(devices), devices.kind == "GPU"
    known = set(given) | (set(_NETWORK) if config.start.checkpoint else set())
    chosen = [
        s
        for s in suggest_settings(
            max(images, 1),
            image_facts(manifest),
            memory,
            gpu=gpu,
            batch=config.train.train_batch_size if "train_batch_size" in given else 0,
            epochs=config.train.train_epochs if "train_epochs" in given else 0,
        )
        if s.setting not in known
    ]
    log.info("settings chosen for %s:", counted(images, "training image"))
    for s in chosen:
        value = s.value if not isinstance(s.value, bool) else str(s.value).lower()
        log.info("  --%s=%s: %s", s.setting, value, s.reason)
    return config.completed({s.setting: s.value for s in chosen}, given)


@contextmanager
def _silence() -> Iterator[None]:
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


COMMAND = Command(
    NAME,
    DESCRIPTION,
    RunConfig,
    run,
    chosen=CHOSEN,
    presets=PRESETS,
    preset_help="Settings of a piece of published work; flags that are given win.",
    basics=(
        "image_dir", "model_dir", "method", "train_epochs", "image_size", "resnet_depth",
        "width_multiplier", "train_batch_size", "checkpoint", "vertical_flip", "use_blur",
        "color_jitter_strength", "preset", "seed",
    ),
    positional=("image_dir", "model_dir"),
)  # fmt: skip
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
