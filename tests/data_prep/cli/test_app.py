import errno
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from absl import flags

from data_prep.cli import app
from data_prep.cli.app import parse, run_app, set_up_logging, topic
from data_prep.errors import UserError

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def define(fv: flags.FlagValues) -> None:
    with topic(fv, "Data"):
        flags.DEFINE_string("image_dir", None, "Folder of images.", flag_values=fv)
        flags.DEFINE_string("labels", "folders", "Where labels come from.", flag_values=fv)
        flags.DEFINE_list("classes", ["a", "b"], "Classes.", flag_values=fv)
    with topic(fv, "Training"):
        flags.DEFINE_float("temperature", 0.1, "Temperature of the loss.", flag_values=fv)
        flags.DEFINE_integer("batch", 8, "Images a step.", lower_bound=1, flag_values=fv)
        flags.DEFINE_bool("use_blur", True, "Blur the views.", flag_values=fv)
        flags.DEFINE_enum("mode", "train", ["train", "eval"], "What to do.", flag_values=fv)
    flags.DEFINE_integer("stray", -1, "Filed nowhere.", flag_values=fv)


def values(*arguments: str) -> flags.FlagValues:
    fv = flags.FlagValues()
    fv.set_gnu_getopt(True)
    define(fv)
    parse(fv, arguments)
    return fv


def complaint(*arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        values(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_absl_spelling(tmp_path: Path) -> None:
    flagfile = tmp_path / "run.flags"
    flagfile.write_text("--image_dir=/from/file\n# a comment\n--nouse_blur\n--stray=7\n")
    assert values("--temperature=0.5").temperature == 0.5
    assert values("--temperature", "0.5").temperature == 0.5
    assert values("--stray", "-1").stray == -1
    assert values("--nouse_blur").use_blur is False
    assert values("--use_blur=False").use_blur is False
    assert values("--use_blur").use_blur is True
    assert values("--labels=yep").labels == "yep"
    assert values("--classes=x,y,z").classes == ["x", "y", "z"]
    from_file = values(f"--flagfile={flagfile}", "--stray=8")
    assert (from_file.image_dir, from_file.use_blur, from_file.stray) == ("/from/file", False, 8)


def test_flags_written_out_are_read_back(tmp_path: Path) -> None:
    given = values("--temperature=0.5", "--nouse_blur", "--classes=u,v", "--labels=two words")
    (tmp_path / "flags.txt").write_text(given.flags_into_string())
    again = values(f"--flagfile={tmp_path / 'flags.txt'}")
    assert again.flag_values_dict() == given.flag_values_dict()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--temprature=0.5"], "unknown flag --temprature; did you mean --temperature?"),
        (["--nouse_blurr"], "unknown flag --nouse_blurr; did you mean --nouse_blur?"),
        (["--qqqqqq"], "unknown flag --qqqqqq"),
        (["--temperature=hot"], "--temperature=hot: must be a number"),
        (["--batch=1.5"], "--batch=1.5: must be a positive integer"),
        (["--batch=0"], "--batch=0: must be a positive integer"),
        (["--use_blur=7"], "--use_blur=7: must be true or false"),
        (["--mode=trian"], "--mode=trian: must be one of train, eval; did you mean train?"),
        (["--batch"], "missing value for flag --batch"),
        (["images"], "unexpected argument 'images': every setting is a --flag=value"),
    ],
)
def test_wrong_usage_is_explained(arguments: list[str], expected: str) -> None:
    assert complaint(*arguments) == expected


def test_a_switch_given_with_a_space_is_explained() -> None:
    assert "--flag=False" in complaint("--use_blur", "False")


def test_missing_flagfile_names_the_file() -> None:
    assert "/no/such/file" in complaint("--flagfile=/no/such/file")


def test_validated_flags() -> None:
    fv = flags.FlagValues()
    flags.DEFINE_integer("even", 0, "Even.", flag_values=fv)
    flags.register_validator("even", lambda n: n % 2 == 0, "must be even", flag_values=fv)
    with pytest.raises(UserError, match=r"^--even=3: must be even$"):
        parse(fv, ["--even=3"])
    flags.DEFINE_string("output", None, "Where to.", flag_values=fv)
    flags.register_multi_flags_validator(
        ["output", "even"], lambda values: bool(values["output"]), "no place: a, b", flag_values=fv
    )
    with pytest.raises(UserError, match=r"^no place: a, b$"):
        parse(fv, ["--even=2"])


def test_sigterm_ends_a_command_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    closed = []

    def run(_: flags.FlagValues) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            closed.append("files")

    assert run_app(run, define, [], name="simclr-x") == 128 + signal.SIGTERM
    assert capsys.readouterr().err == "simclr-x: error: terminated\n"
    assert closed
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize(
    ("behavior", "code", "said"),
    [
        (None, 0, ""),
        (UserError("no images\nin /x"), 1, "simclr-x: error: no images in /x\n"),
        (KeyboardInterrupt(), 130, "simclr-x: error: interrupted\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/x/y"),
            1,
            "simclr-x: error: /x/y: Permission denied\n",
        ),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device"),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x/y"), 1, "/x/y: Not a directory"),
    ],
)
def test_exit_codes(
    behavior: BaseException | None, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: flags.FlagValues) -> None:
        if behavior is not None:
            raise behavior

    assert run_app(run, define, [], name="simclr-x") == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == (1 if said else 0)


def test_return_value_is_the_exit_code_and_bugs_keep_their_traceback() -> None:
    assert run_app(lambda _: 3, define, [], name="simclr-x") == 3

    def bug(_: flags.FlagValues) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_app(bug, define, [], name="simclr-x")


def test_usage_errors_exit_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(lambda _: None, define, ["--temprature=1"], name="simclr-x") == 2
    err = capsys.readouterr().err
    assert err.startswith("simclr-x: error: unknown flag --temprature")
    assert err.count("\n") == 1


def test_help_groups_wraps_and_shows_defaults(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    arguments = ["--bogus", "--help"]
    assert run_app(lambda _: 9, define, arguments, name="simclr-x", description="Does x.") == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 72
    data, training, other = (out.index(f"\n{title}\n") for title in ("Data", "Training", "Other"))
    assert data < out.index("--image_dir=TEXT") < training
    assert training < out.index("--[no]use_blur") < other < out.index("--stray=N")
    for default in ("(default: 0.1)", "(default: on)", "(default: a,b)", "(default: folders)"):
        assert default in out
    assert "--mode=train|eval" in out
    assert "flagfile" in out


@pytest.mark.parametrize("columns", ["30", "40", "200"])
def test_help_fits_any_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    fv = flags.FlagValues()
    flags.DEFINE_enum("choice", "a" * 30, ["a" * 30, "b" * 30], "Long.", flag_values=fv)
    define(fv)
    lines = app.render(fv, "simclr-x", "word " * 60).splitlines()
    usage, footer = (
        next(row for row, line in enumerate(lines) if line.startswith(start))
        for start in ("Usage: ", "A switch is")
    )
    lines = lines[usage:footer]
    assert max(map(len, lines)) <= max(40, min(int(columns), 120))
    flag_lines = [line for line in lines if line.lstrip().startswith("--")]
    assert len(flag_lines) == 9
    assert all(line.startswith("  --") for line in flag_lines)


def test_help_after_double_dash_is_an_argument() -> None:
    assert run_app(lambda _: None, define, ["--", "--help"], name="simclr-x") == 2


def test_log_lines(capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: flags.FlagValues) -> None:
        logging.getLogger("data_prep.manifest.scan").info("12 images")
        logging.getLogger("data_prep.manifest.scan").warning("1 unreadable")
        logging.getLogger("noisy.library").info("chatter")

    assert run_app(run, define, [], name="simclr-x") == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["12 images", "warning: 1 unreadable"]


def _command(*arguments: str) -> tuple[subprocess.CompletedProcess[str], float]:
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "data_prep.cli.synthesize", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80"},
        check=False,
    )
    return done, time.perf_counter() - start


def test_help_of_a_real_command_is_quick_and_clean() -> None:
    seconds = []
    for _ in range(3):
        done, elapsed = _command("--help")
        seconds.append(elapsed)
    assert done.returncode == 0
    assert done.stderr == ""
    assert "--images_per_class=N" in done.stdout
    assert min(seconds) < 1.5


def test_errors_of_a_real_command() -> None:
    done, _ = _command("--outptu=x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean --output?" in done.stderr
    assert done.stderr.count("\n") == 1


_TENSORFLOW_COMMAND = """
import os, sys
from data_prep.cli.app import run_app
from data_prep.cli.runtime import import_tensorflow
def run(_):
    import_tensorflow()
    import tensorflow as tf
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
    print(float(tf.reduce_sum(tf.ones([3]))))
    os.write(2, b"a real problem\\n")
sys.exit(run_app(run, lambda fv: None, [], name="simclr-x"))
"""


@pytest.mark.slow
def test_tensorflow_starts_without_chatter() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", _TENSORFLOW_COMMAND],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "3.0\n")
    assert done.stderr == "a real problem\n"


def test_importing_the_app_does_not_import_tensorflow() -> None:
    modules = "data_prep.cli.app, data_prep.cli.synthesize, data_prep.synthetic.write"
    code = f"import sys, {modules}; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_progress_is_a_bar_in_a_terminal_and_lines_elsewhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from data_prep.cli import runtime

    monkeypatch.setattr(runtime, "_SECONDS_BETWEEN_LINES", 0.0)
    set_up_logging()
    report = runtime.progress_lines("files")
    report(1, 2)
    lines = capsys.readouterr().err
    assert "1 of 2 files (50 %" in lines
    assert "\r" not in lines
    monkeypatch.setattr(runtime, "shows_bars", lambda: True)
    report = runtime.progress_lines("files")
    report(0, 2)
    report(1, 2)
    logging.getLogger("data_prep.thing").info("said beside it")
    report(2, 2)
    drawn = capsys.readouterr().err
    assert "0/2" in drawn
    assert "files" in drawn
    written = next(line for line in drawn.split("\n") if "said beside it" in line)
    assert re.search(r"\d\d:\d\d:\d\d said beside it$", written)
