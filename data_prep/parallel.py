"""The same work on many files, by all processors, with few results waiting at a time."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from data_prep.extensions import load_extensions

Job = TypeVar("Job")
Result = TypeVar("Result")

_CHUNK = 32
# Processes cost a second to start, and threads share one interpreter.
_MANY = 2000
_AHEAD = 4  # chunks a processor, so that memory stays flat


def in_parallel(
    work: Callable[[Sequence[Job]], list[Result]], jobs: Sequence[Job], *, processes: bool = True
) -> Iterator[Result]:
    """The results of all jobs, in order; with many jobs, from processes of their own.

    A script that leads here needs `if __name__ == "__main__":`, for new processes import it.

    Args:
        work: Does some jobs; a function of a module, so that processes find it.
        jobs: The jobs, in order.
        processes: True: processes for many jobs. False: threads always, for work that leaves the
            interpreter free.

    Raises:
        Exception: What `work` raises.
    """
    waiting: deque[Future[list[Result]]] = deque()
    with _executor(len(jobs) if processes else 0) as pool:
        for start in range(0, len(jobs), _CHUNK):
            waiting.append(pool.submit(work, jobs[start : start + _CHUNK]))
            if len(waiting) > _AHEAD * (os.cpu_count() or 1):
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _executor(jobs: int) -> Executor:
    number = os.cpu_count() or 1
    if jobs < _MANY or number == 1:
        return ThreadPoolExecutor(number)
    return ProcessPoolExecutor(number, mp_context=get_context("spawn"), initializer=load_extensions)
