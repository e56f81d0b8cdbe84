"""What the training of a classifier leaves behind, and where: the layout of `--output`."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from data_prep.checksums import read_object
from data_prep.errors import UserError
from finetune.config import ClassifierConfig, FinetuneConfig
from finetune.report.files import FLOORS as FLOORS_FILE
from finetune.report.files import REPORT, RESULT_FILES
from finetune.report.page import REPORT_PAGE
from simclr_tf.checkpoints.keras_file import check_keras_file
from simclr_tf.training.run_dir import RunDir
from simclr_tf.training.run_warnings import WARNINGS_FILE

log = logging.getLogger(__name__)

# Settings that may change when a run goes on: they alter where, how fast and how much is told.
_FREE_TO_CHANGE = frozenset(
    """
    image_dir manifest cache_dataset eval_batch_size keep_checkpoint_max distribute num_cpu_devices
    use_tpu tpu_name tpu_zone gcp_project master jit_compile steps_per_loop output overwrite floors
    """.split()
)

_OWN_FILES = (
    "config.json", "flags.txt", "flags.json", "environment.json", "manifest.csv", "metrics.csv",
    "validation.csv", "checkpoint", "ckpt-*", "best", "blocks.json", "preprocessing.json",
    "model.keras", "saved_model", "events.out.tfevents.*", "views.png", "stopped_early.json",
    FLOORS_FILE, WARNINGS_FILE, REPORT_PAGE, *RESULT_FILES,
)  # fmt: skip

_HANDED_OUT = ("model.keras", "saved_model", "views.png", FLOORS_FILE, *RESULT_FILES)


@dataclass(frozen=True)
class ClassifierDir(RunDir):
    """The folder of one run; subclasses name the settings of their command."""

    config_type: ClassVar[type[ClassifierConfig]] = FinetuneConfig
    flag: ClassVar[str] = "output"
    free_to_change: ClassVar[frozenset[str]] = _FREE_TO_CHANGE
    own_files: ClassVar[tuple[str, ...]] = _OWN_FILES
    handed_out: ClassVar[tuple[str, ...]] = _HANDED_OUT
    last_file: ClassVar[str] = REPORT_PAGE

    def suited(self, _images: int) -> Self:
        """The folder, knowing the settings chosen for a number of training images."""
        return self

    @property
    def model_file(self) -> Path:
        """`model.keras`: the classifier, from images in [0, 1] to probabilities."""
        return self.path / "model.keras"

    @property
    def report_page(self) -> Path:
        """`report.html`, written last: where it is, the run is complete."""
        return self.path / REPORT_PAGE

    def is_complete(self) -> bool:
        """Whether the run was trained and reported, and what it handed out can still be read."""
        if not self.is_whole():
            return False
        try:
            check_keras_file(self.model_file)
            read_object(self.path / REPORT)
        except (UserError, OSError) as error:
            log.warning("%s; what the run hands out is made anew", error)
            return False
        return True
