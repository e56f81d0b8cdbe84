"""The weights that a training ends with: those of the checkpoint that validated best."""

import logging
from pathlib import Path
from typing import Protocol

from simclr_tf.checkpoints.find import locate
from simclr_tf.checkpoints.store import CheckpointStore
from simclr_tf.training.distribution import Devices
from simclr_tf.training.loop import LoopPlan

log = logging.getLogger(__name__)


class Validated(Protocol):
    """What `take_best` needs of a run that was trained."""

    @property
    def validates(self) -> bool:
        """Whether there was something to choose the best epoch by."""
        ...

    @property
    def best(self) -> Path:
        """Folder of the checkpoint that validated best."""
        ...

    @property
    def devices(self) -> Devices:
        """What it ran on."""
        ...

    @property
    def store(self) -> CheckpointStore:
        """The run's checkpoints."""
        ...

    @property
    def plan(self) -> LoopPlan:
        """How far it was trained."""
        ...

    def last_step(self) -> int:
        """Where training ended."""
        ...


def take_best(run: Validated) -> int:
    """Restores the checkpoint that validated best; the last one without a validation."""
    run.devices.any_worker(False)  # so that the first worker has put the best in its place
    if not run.validates:
        return run.last_step()
    step = int(locate(str(run.best)).path.rpartition("-")[2])
    run.store.restore(step, run.best)
    epoch = -(-step // run.plan.checkpoint_steps)
    log.info("the weights of epoch %d (step %d) validated best", epoch, step)
    return step
