"""TensorFlow without its start-up chatter; progress as a bar or as lines of the log."""

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm  # type: ignore[import-untyped]


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


def shows_bars() -> bool:
    """True in a terminal and in a notebook, where a line can be drawn anew."""
    return sys.stderr.isatty() or "ipykernel" in sys.modules


def progress_bar(what: str, total: int, done: int = 0) -> "tqdm[Any]":
    """A bar on the standard error that goes away at its end.

    Args:
        what: What is counted, in the plural.
        total: How many there are.
        done: How many are done already.
    """
    from tqdm import tqdm

    return tqdm(total=total, initial=done, unit=f" {what}", file=sys.stderr, leave=False)


def progress_lines(what: str) -> Callable[[int, int], None]:
    """A progress callback: a bar where one can be drawn, else a line in the log every few seconds.

    Args:
        what: What is counted, in the plural.

    Returns:
        A function to call with (done, in all) as often as one likes.
    """
    return _in_a_bar(what) if shows_bars() else _in_lines(what)


def _in_a_bar(what: str) -> Callable[[int, int], None]:
    bar: tqdm[Any] | None = None

    def report(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            bar = progress_bar(what, total)
        bar.update(done - bar.n)
        if done >= total:
            bar.close()

    return report


def _in_lines(what: str) -> Callable[[int, int], None]:
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
