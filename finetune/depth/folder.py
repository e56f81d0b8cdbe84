"""What the training of a depth network leaves behind, and where: the layout of `--output`."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from data_prep.checksums import read_object
from data_prep.errors import UserError
from finetune.depth.settings import DepthConfig
from finetune.depth.trained import DEPTH_FILE, GENERATOR, REVERSE
from simclr_tf.checkpoints.keras_file import check_keras_file
from simclr_tf.training.run_dir import RunDir

log = logging.getLogger(__name__)

# Settings that may change when a run goes on: they alter where, how fast and how much is told.
_FREE_TO_CHANGE = frozenset(
    """
    image_dir target_dir manifest real_manifest cache_dataset eval_batch_size keep_checkpoint_max
    sample_every distribute num_cpu_devices use_tpu tpu_name tpu_zone gcp_project master jit_compile
    steps_per_loop output overwrite
    """.split()
)

_OWN_FILES = (
    "config.json", "flags.txt", "flags.json", "environment.json", "manifest.csv", "metrics.csv",
    "validation.csv", "history.csv", "checkpoint", "ckpt-*", "best", "samples", GENERATOR, REVERSE,
    "events.out.tfevents.*", "stopped_early.json", "result.json", DEPTH_FILE,
)  # fmt: skip


@dataclass(frozen=True)
class DepthDir(RunDir):
    """The folder of one run."""

    config_type: ClassVar[type[DepthConfig]] = DepthConfig
    flag: ClassVar[str] = "output"
    free_to_change: ClassVar[frozenset[str]] = _FREE_TO_CHANGE
    own_files: ClassVar[tuple[str, ...]] = _OWN_FILES
    handed_out: ClassVar[tuple[str, ...]] = (GENERATOR, REVERSE, "history.csv", "result.json")
    last_file: ClassVar[str] = DEPTH_FILE

    @property
    def samples(self) -> Path:
        """`samples/`: sheets of images, predictions and targets, `epoch_<n>.png`."""
        return self.path / "samples"

    @property
    def history_file(self) -> Path:
        """`history.csv`: a row per epoch."""
        return self.path / "history.csv"

    @property
    def result_file(self) -> Path:
        """`result.json`: errors of the chosen epoch by split and case."""
        return self.path / "result.json"

    @property
    def depth_file(self) -> Path:
        """`depth.json`, written last: where it is, the run is complete."""
        return self.path / DEPTH_FILE

    def is_complete(self) -> bool:
        """Whether the run was trained and measured, and what it handed out can still be read."""
        if not self.is_whole():
            return False
        try:
            check_keras_file(self.path / GENERATOR)
            if (self.path / REVERSE).exists():
                check_keras_file(self.path / REVERSE)
            for file in (self.depth_file, self.result_file):
                if file.exists():
                    read_object(file)
        except (UserError, OSError) as error:
            log.warning("%s; what the run hands out is made anew", error)
            return False
        return True
