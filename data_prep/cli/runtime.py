"""TensorFlow without its start-up chatter, and progress as lines of the log."""

import logging
import os
import sys
import time
from collections.abc import Callable


def import_tensorflow() -> None:
    """Imports TensorFlow so that only a command's own lines reach the terminal.

    Parts of its native code write to the standard error before they look at
    `TF_CPP_MIN_LOG_LEVEL`; set that variable to 0 or 1 to see all of it.
    """
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3") in ("0", "1"):
        import tensorflow  # noqa: F401

        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow as tf

        tf.config.list_physical_devices()
        tf.get_logger().addFilter(_is_for_users)
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _is_for_users(record: logging.LogRecord) -> bool:
    """Returns False for warnings of TensorFlow about what commands do on purpose.

    Commands that build network after network trace one graph for each; workers that train together
    ask one another between steps whether to stop.
    """
    said = record.getMessage()
    return not any(known in said for known in ("tf.function retracing", "Strategy eagerly has"))


_SECONDS_BETWEEN_LINES = 2.0

logger = logging.getLogger("data_prep.progress")


def progress_lines(what: str) -> Callable[[int, int], None]:
    """A progress callback that logs a line every few seconds.

    Args:
        what: What is counted, in the plural.

    Returns:
        A function to call with (done, in all) as often as one likes.
    """
    began = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES and 50 * done >= total:
            last = now
            left = (now - began) * (total - done) / done
            logger.info(
                "%d of %d %s (%d %%, %.0f s left)", done, total, what, 100 * done // total, left
            )

    return report
