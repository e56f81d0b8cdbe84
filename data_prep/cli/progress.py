"""Progress of long work, as lines of the log."""

import logging
import time
from collections.abc import Callable

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
