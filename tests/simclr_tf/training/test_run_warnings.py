import logging
from pathlib import Path

import pytest

from simclr_tf.training.run_warnings import (
    ALARM,
    RunWarning,
    noting_warnings,
    read_alarms,
    read_warnings,
    warn,
)

LOG = logging.getLogger("simclr_tf.somewhere")


def test_warnings_before_and_after_the_folder_is_known_are_kept_with_their_step(
    tmp_path: Path,
) -> None:
    file = tmp_path / "warnings.csv"
    with noting_warnings() as warnings:
        logging.getLogger("data_prep.manifest.scan").warning('%d files, "odd", are\nleft out', 3)
        logging.getLogger("finetune.train").info("nothing to see")
        logging.getLogger("somebody_else").warning("not ours")
        warnings.keep_in(file)
        warn(LOG, RunWarning(40, "chance", "nothing is learnt"))
    LOG.warning("after the run")
    assert read_warnings(file) == [
        RunWarning(0, "", '3 files, "odd", are\nleft out'),
        RunWarning(40, "chance", "nothing is learnt"),
    ]


def test_a_run_that_goes_on_does_not_repeat_what_it_has_said(tmp_path: Path) -> None:
    file = tmp_path / "warnings.csv"
    for step in (10, 20):
        with noting_warnings() as warnings:
            LOG.warning("the batch is large")
            warnings.keep_in(file)
            LOG.warning("the batch is large")
            warn(LOG, RunWarning(step, "rank", "they collapse"))
    assert [(w.step, w.kind) for w in read_warnings(file)] == [(0, ""), (10, "rank"), (20, "rank")]


def test_the_terminal_shows_the_step() -> None:
    assert str(RunWarning(7, "chance", "it is flat")) == "step 7: it is flat"
    assert str(RunWarning(0, "", "it is flat")) == "it is flat"


def test_alarms_are_warnings_that_pages_begin_with(tmp_path: Path) -> None:
    file = tmp_path / "warnings.csv"
    for _ in range(2):
        with noting_warnings() as warnings:
            LOG.warning("seen before")
            warnings.keep_in(file)
            warnings.alarm(("seen before",))
            LOG.warning("seen before")
    assert read_warnings(file) == [RunWarning(0, ALARM, "seen before")]
    assert read_alarms(file) == ("seen before",)


def test_a_run_without_warnings_leaves_no_file(tmp_path: Path) -> None:
    with noting_warnings() as warnings:
        warnings.keep_in(tmp_path / "warnings.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content", [b"\0" * 40, b"", b"step,kind,message\n3,chance,nothing\n5,ra", b"step\n1\n"]
)
def test_a_damaged_file_is_a_warning_of_its_own(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "warnings.csv"
    assert read_warnings(file) == []
    file.write_bytes(content)
    (found,) = read_warnings(file)
    assert "is damaged" in found.message
