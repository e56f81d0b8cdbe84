"""A whole run, as `simclr-run` does it."""

import logging
import time

from data_prep.durations import format_seconds
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.evaluate import evaluate, evaluate_as_they_come
from simclr_tf.training.loop import StopRequest
from simclr_tf.training.run_warnings import noting_warnings
from simclr_tf.training.session import Session, open_session
from simclr_tf.training.train import train
from simclr_tf.training.workers import naming_lost_workers

log = logging.getLogger(__name__)


def execute(config: RunConfig) -> int:
    """Trains, evaluates, or both.

    Args:
        config: All settings; `run.model_dir` must be given.

    Returns:
        0, or 128 + the number of the signal that asked the run to stop.

    Raises:
        UserError: Something asked for is impossible; nothing has been overwritten then.
    """
    with noting_warnings() as warnings, naming_lost_workers():
        session = open_session(config)
        if session.devices.is_chief:
            warnings.keep_in(session.run_dir.warnings_file)
        with session.claim:
            return _execute(session)


def _execute(session: Session) -> int:
    config, began = session.config, time.perf_counter()
    if config.train.mode == "eval":
        evaluate_as_they_come(session)
        return 0
    with StopRequest().listening() as stop:
        step = train(session, stop)
    if stop.signal:
        log.info("stopped at step %d, which is saved; the same command goes on from there", step)
        return 128 + stop.signal
    if config.train.mode == "train_then_eval":
        evaluate(session, step)
    log.info("done in %s: %s", format_seconds(time.perf_counter() - began), config.run.model_dir)
    return 0
