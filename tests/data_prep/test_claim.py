"""Folders that one process at a time works in, and checksums of what lies in them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.errors import UserError
from data_prep.manifest.digest import files_digest
from data_prep.storage import (
    AGAIN,
    Checksums,
    claimed,
    read_checked,
    read_object,
    write_bytes,
    write_text,
    writing,
)

ROOT = Path(__file__).parents[2]
HOLD = (
    "import sys, time; from pathlib import Path\n"
    "from data_prep.storage import claimed\n"
    "with claimed(Path(sys.argv[1]), 'busy'):\n"
    "    print('in', flush=True)\n"
    "    time.sleep(60)\n"
)


def test_a_second_process_is_refused_until_the_first_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "run [b=8] 1"
    program = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "in\n"
            with pytest.raises(UserError, match="busy"), claimed(folder, "busy"):
                pass
            with claimed(folder, "busy", ".lock-evaluation"):
                pass  # another purpose
        finally:
            holder.send_signal(signal.SIGKILL)
    with claimed(folder, "busy"):
        pass


def test_a_folder_that_stays_empty_is_removed_again(tmp_path: Path) -> None:
    with claimed(tmp_path / "deep" / "run", "busy"):
        assert (tmp_path / "deep" / "run").is_dir()
    assert os.listdir(tmp_path) == []
    with claimed(tmp_path / "deep" / "run", "busy"):
        (tmp_path / "deep" / "run" / "config.json").write_text("{}")
    assert (tmp_path / "deep" / "run" / "config.json").exists()


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "deep" / "run"):
        with pytest.raises(UserError, match="file: is a file; give a folder"), claimed(place, ""):
            pass


def test_what_is_not_as_it_was_written_is_found(tmp_path: Path) -> None:
    sums = Checksums(tmp_path)
    sums.write_text("a.json", '{"n": 1}\n')
    assert read_object(tmp_path / "a.json") == {"n": 1}
    with (tmp_path / "a.json").open("a") as file:
        file.write(" ")  # a log grows
    assert not sums.fault("a.json")
    (tmp_path / "a.json").write_text('{"n": 7}\n')
    with pytest.raises(UserError, match=r"a\.json is damaged: it is not as it was written"):
        read_object(tmp_path / "a.json")
    (tmp_path / "a.json").write_text("")
    with pytest.raises(UserError, match="it holds 0 of 9 bytes"):
        read_checked(tmp_path / "a.json")
    (tmp_path / "a.json").unlink()
    with pytest.raises(UserError, match="it is gone"):
        read_checked(tmp_path / "a.json")
    with pytest.raises(UserError, match="it is gone; give the command that has written it again"):
        read_checked(tmp_path / "a.json", AGAIN)
    with pytest.raises(FileNotFoundError):
        read_checked(tmp_path / "b.json")
    (tmp_path / "b.json").write_text("[1]")
    with pytest.raises(UserError, match="holds no names and values"):
        read_object(tmp_path / "b.json")
    (tmp_path / "checksums.json").write_text("{")
    (tmp_path / "a.json").write_text("{}")
    assert read_object(tmp_path / "a.json") == {}, "without checksums nothing is checked"


def test_a_last_file_is_known_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = Checksums(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("data_prep.storage.write_text", _killed_at("done"))
        with pytest.raises(KeyboardInterrupt):
            sums.write_last("done", "all")
    assert sums.fault("done") == "is gone"
    sums.write_last("done", "all")
    assert sums.fault("done") == ""


def _killed_at(name: str) -> Callable[[Path, str], None]:
    def write(path: Path, text: str) -> None:
        if path.name == name:
            raise KeyboardInterrupt
        write_text(path, text)

    return write


def test_processes_change_checksums_one_after_the_other(tmp_path: Path) -> None:
    """Of what a hundred notes of two processes say nothing is lost."""
    program = (
        "import sys; from pathlib import Path\n"
        "from data_prep.storage import Checksums\n"
        "for i in range(50): Checksums(Path(sys.argv[1])).note(sys.argv[2] + str(i), 0, '')\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), name], cwd=ROOT)
        for name in ("a", "b")
    ]
    assert [process.wait() for process in both] == [0, 0]
    assert len(Checksums(tmp_path).names()) == 100


def test_a_full_disk_is_named_with_the_file(tmp_path: Path) -> None:
    """/dev/full takes nothing, as a full disk."""
    full = pytest.raises(UserError, match=r"big\.bin could not be written: No space left")
    with full, writing(tmp_path / "big.bin"), open("/dev/full", "wb") as file:
        file.write(bytes(10**6))
    with pytest.raises(UserError, match=r"nowhere.a could not be written: No such file"):
        write_bytes(tmp_path / "nowhere" / "a", b"1")
    with pytest.raises(KeyError), writing(tmp_path / "a"):
        raise KeyError("a bug keeps its traceback")


def test_the_digest_of_files_sees_a_changed_byte_and_no_name(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    content = bytearray(os.urandom(5_000_000))
    for name in ("a/1", "b/other"):
        (tmp_path / name).write_bytes(content)
    content[-1] ^= 1
    (tmp_path / "c/1").write_bytes(content)
    digests = [files_digest([tmp_path / name]) for name in ("a/1", "b/other", "c/1")]
    assert digests[0] == digests[1] != digests[2]
    small = [tmp_path / "a" / "2", tmp_path / "b" / "2"]
    small[0].write_bytes(b"12345")
    small[1].write_bytes(b"12346")
    assert files_digest(small[:1]) != files_digest(small[1:])
