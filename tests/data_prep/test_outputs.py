"""Outputs that are published together, and known again when they are asked for again."""

from pathlib import Path

import pytest

from data_prep.errors import UserError
from data_prep.outputs import Drafts, Outputs, stamps
from data_prep.storage import write_text
from tests.killing import WRITES, Killed


def outputs(folder: Path, request: str = "wanted", *, overwrite: bool = False) -> Outputs:
    places = (folder / "table.csv", folder / "pictures")
    return Outputs(request, places, "give another --output", overwrite)


def write(wanted: Outputs, text: str = "1\n", code: int = 0) -> int:
    """What a command does; its exit code."""
    known = wanted.code_if_complete()
    if known is not None:
        return known
    with wanted.drafts() as drafts:
        write_text(drafts.paths[0], text)
        drafts.paths[1].mkdir()
        write_text(drafts.paths[1] / "a.png", text)
        drafts.code = code
    return code


def left(folder: Path) -> dict[str, str]:
    """Every file with its content but notes and locks."""
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith((".lock", ".table.csv.complete.json"))
    }


WHOLE = {"table.csv": "1\n", "pictures/a.png": "1\n"}


def test_the_same_request_is_complete_with_its_code(tmp_path: Path) -> None:
    assert write(outputs(tmp_path), code=3) == 3
    assert left(tmp_path) == WHOLE
    assert write(outputs(tmp_path), "2\n") == 3
    assert left(tmp_path) == WHOLE


def test_another_request_is_refused_and_overwrites_when_told(tmp_path: Path) -> None:
    write(outputs(tmp_path))
    with pytest.raises(UserError, match=r"table\.csv is there already, written by another"):
        write(outputs(tmp_path, "other"), "2\n")
    assert left(tmp_path) == WHOLE
    write_text(tmp_path / "pictures" / "own.png", "mine\n")
    write(outputs(tmp_path, "other", overwrite=True), "2\n")
    new = {"table.csv": "2\n", "pictures/a.png": "2\n", "pictures/own.png": "mine\n"}
    assert left(tmp_path) == new


def test_what_was_changed_or_is_of_somebody_else_is_refused(tmp_path: Path) -> None:
    for name in ("pictures", "table.csv"):
        (tmp_path / name).mkdir()  # an empty folder is nothing
    write(outputs(tmp_path))
    write_text(tmp_path / "table.csv", "2\n")
    with pytest.raises(UserError, match=r"table\.csv has been changed since"):
        write(outputs(tmp_path))
    (tmp_path / "table.csv").unlink()
    write(outputs(tmp_path))
    assert left(tmp_path) == WHOLE, "what is gone is made again"
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    write_text(foreign / "table.csv", "mine\n")
    with pytest.raises(UserError, match=r"table\.csv is there already; give another --output"):
        write(outputs(foreign))
    assert left(foreign) == {"table.csv": "mine\n"}


def test_killed_before_any_write_the_same_request_gives_the_whole(tmp_path: Path) -> None:
    with WRITES.below(tmp_path / "all"):
        write(outputs(tmp_path / "all"))
    moments = len(WRITES.seen)
    assert moments > 8
    for moment in range(1, moments + 1):
        folder = tmp_path / str(moment)
        with pytest.raises(Killed), WRITES.below(folder, moment):
            write(outputs(folder))
        write(outputs(folder))
        assert left(folder) == WHOLE, WRITES.seen


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    write(outputs(tmp_path))

    def fill(drafts: Drafts) -> None:
        write_text(drafts.paths[0], "2\n")
        raise OSError(28, "No space left on device")

    full = pytest.raises(UserError, match=r"table\.csv could not be written: No space left on dev")
    with full, outputs(tmp_path, overwrite=True).drafts() as drafts:
        fill(drafts)
    assert left(tmp_path) == WHOLE


def test_a_folder_is_never_replaced_by_a_file(tmp_path: Path) -> None:
    (tmp_path / "table.csv").mkdir()
    write_text(tmp_path / "table.csv" / "own.txt", "mine\n")
    with pytest.raises(UserError, match=r"table\.csv is a folder that holds something; give"):
        write(outputs(tmp_path, overwrite=True))
    assert left(tmp_path) == {"table.csv/own.txt": "mine\n"}


def test_stamps_see_names_and_sizes_of_what_is_not_hidden(tmp_path: Path) -> None:
    for name in ("a.png", "ckpt-1.index", "ckpt-10.index", ".lock"):
        write_text(tmp_path / name, name)
    folder, checkpoint = stamps([str(tmp_path)]), stamps([str(tmp_path / "ckpt-1")])
    write_text(tmp_path / ".lock", "another")
    write_text(tmp_path / "ckpt-10.index", "another")
    assert stamps([str(tmp_path / "ckpt-1")]) == checkpoint
    changed = stamps([str(tmp_path)])
    assert changed != folder
    write_text(tmp_path / "table.csv", "1\n")
    assert stamps([str(tmp_path)]) == changed
    assert stamps([str(tmp_path / "table.csv")]) != stamps([])
    write_text(tmp_path / "out.png", "1\n")
    (tmp_path / "tree").mkdir()
    write_text(tmp_path / "tree" / "a.png", "1\n")
    assert stamps([str(tmp_path)]) != changed
    assert stamps([str(tmp_path)], [tmp_path / "out.png", tmp_path / "tree"]) == changed
