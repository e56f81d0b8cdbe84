import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.errors import UserError
from data_prep.storage import COMPLETE, is_complete, partial_folder

ROOT = Path(__file__).parents[2]


def test_the_folder_appears_at_the_end_and_nothing_else_stays(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "set"
    with partial_folder(target, "plan") as folder:
        (folder / "a").write_text("1")
        assert not target.exists()
    assert (target / "a").read_text() == "1"
    assert os.listdir(target.parent) == ["set"]


def killed(target: Path, plan: str) -> None:
    """Leaves what a killed process leaves."""
    program = (
        "import os, signal; from pathlib import Path\n"
        "from data_prep.storage import partial_folder\n"
        f"with partial_folder(Path({str(target)!r}), {plan!r}) as folder:\n"
        "    (folder / 'half').write_text('done')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


def fill(target: Path, error: BaseException, found: list[str]) -> None:
    """Notes what is there, adds to it, and fails."""
    with partial_folder(target, "one") as folder:
        found.extend(os.listdir(folder))
        (folder / "more").write_text("1")
        raise error


def test_a_killed_call_goes_on_and_another_begins_anew(tmp_path: Path) -> None:
    target = tmp_path / "set"
    killed(target, "one")
    assert not target.exists()
    found: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        fill(target, KeyboardInterrupt(), found)
    assert found == ["half"]
    with partial_folder(target, "two") as folder:
        assert os.listdir(folder) == []
    assert os.listdir(target) == [COMPLETE]


def test_a_mistake_of_the_user_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="wrong"):
        fill(tmp_path / "set", UserError("wrong"), [])
    assert os.listdir(tmp_path) == []


def test_two_at_a_time_and_full_targets_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "set"
    with partial_folder(target, "plan") as folder:
        with (
            pytest.raises(UserError, match="another process is writing"),
            partial_folder(target, "plan"),
        ):
            pass
        (folder / "a").write_text("1")
    with pytest.raises(UserError, match="is not empty"), partial_folder(target, "plan"):
        pass
    assert (target / "a").read_text() == "1"


def test_a_finished_folder_knows_the_plan_that_it_was_written_by(tmp_path: Path) -> None:
    target = tmp_path / "set [1]"
    assert not is_complete(target, "plan")
    with partial_folder(target, "plan") as folder:
        (folder / "a").write_text("1")
    rest = tmp_path / ".set [1].partial"  # of a process that was killed just before its end
    rest.mkdir()
    assert is_complete(target, "plan")
    assert not rest.exists()
    assert not is_complete(target, "another")
    (target / "a").write_text("12")
    assert not is_complete(target, "plan"), "a file is not as it was"
