import json
import logging
from pathlib import Path

from simclr_tf.training.run_warnings import RunWarnings, read_alarms, read_warnings, sentence

log = logging.getLogger("finetune.anything")


def test_warnings_are_kept_once_and_in_order_and_the_next_part_of_a_run_adds(
    tmp_path: Path,
) -> None:
    with RunWarnings().listening() as kept:
        log.warning("first of %d", 2)
        kept.keep_in(tmp_path)
        log.warning("second: %s", "so")
        log.warning("first of 2")
        log.info("not a warning")
        logging.getLogger("others").warning("not ours")
    log.warning("after the run")
    assert read_warnings(tmp_path) == ("first of 2", "second: so")
    with RunWarnings().listening() as kept:
        log.warning("third")
        log.warning("second: so")
        kept.keep_in(tmp_path)
    assert read_warnings(tmp_path) == ("first of 2", "second: so", "third")


def test_alarms_are_warnings_that_pages_begin_with(tmp_path: Path) -> None:
    with RunWarnings().listening() as kept:
        log.warning("seen before")
        kept.keep_in(tmp_path)
        kept.alarm(("seen before",))
    assert read_alarms(tmp_path) == read_warnings(tmp_path) == ("seen before",)


def test_a_run_without_warnings_leaves_no_file(tmp_path: Path) -> None:
    with RunWarnings().listening() as kept:
        kept.keep_in(tmp_path)
    assert not list(tmp_path.iterdir())
    assert read_warnings(tmp_path) == ()


def test_a_damaged_file_is_a_warning_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "warnings.json").write_text(json.dumps(["no"])[:-1])
    (found,) = read_warnings(tmp_path)
    assert "cannot be read" in found


def test_as_a_sentence() -> None:
    assert sentence("only 3 updates") == "Only 3 updates."
    assert sentence("Stop!") == "Stop!"
