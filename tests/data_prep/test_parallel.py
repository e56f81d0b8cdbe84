"""Work shared out: in order, few at a time, by threads or processes alike."""

import os
from collections.abc import Generator, Sequence

import pytest

from data_prep import parallel
from data_prep.errors import UserError
from data_prep.parallel import in_parallel


def squares(jobs: Sequence[int]) -> list[tuple[int, int]]:
    if -1 in jobs:
        raise UserError("no square of -1 is wanted")
    return [(job * job, os.getpid()) for job in jobs]


def test_results_come_in_order_from_threads_and_from_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = list(range(1000))
    by_threads = list(in_parallel(squares, jobs))
    assert [value for value, _ in by_threads] == [job * job for job in jobs]
    assert {process for _, process in by_threads} == {os.getpid()}
    monkeypatch.setattr(parallel, "_MANY", 1)
    by_processes = list(in_parallel(squares, jobs))
    assert [value for value, _ in by_processes] == [job * job for job in jobs]
    assert os.getpid() not in {process for _, process in by_processes} or os.cpu_count() == 1
    own = {process for _, process in in_parallel(squares, jobs, processes=False)}
    assert own == {os.getpid()}


def test_few_chunks_are_ahead_of_whoever_takes_the_results() -> None:
    done: list[int] = []

    def work(jobs: Sequence[int]) -> list[int]:
        done.extend(jobs)
        return list(jobs)

    results = in_parallel(work, range(100_000), processes=False)
    assert [next(results) for _ in range(64)] == list(range(64))
    assert len(done) <= 64 + 32 * (4 * (os.cpu_count() or 1) + 2)
    assert isinstance(results, Generator)
    results.close()


def test_an_error_in_the_work_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_MANY", 1)
    with pytest.raises(UserError, match="no square of -1"):
        list(in_parallel(squares, [1, -1]))
