"""The frame of every command: flags, help, one-line errors, logging, exit codes.

A command defines its flags in a function that takes a `FlagValues`, so importing it defines
nothing, and hands both halves to `run_app`:

    def define(flag_values): ...
    def run(flag_values): ...
    def main(argv: Sequence[str] | None = None) -> int:
        return run_app(run, define, argv, name="simclr-thing", description="Does the thing.")

TensorFlow is imported inside `run` (`data_prep.cli.runtime` does so quietly): `--help` must answer
at once.
"""

import difflib
import errno
import logging
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from types import FrameType
from typing import TextIO

from absl import flags

from data_prep.errors import UserError
from data_prep.extensions import load_extensions
from data_prep.phrases import did_you_mean
from data_prep.storage import full_disk

_OTHER = "Other"
_MAX_WIDTH = 120
_NARROW = 64
_HELP_COLUMN = 30
_NO_BREAK = "\N{NO-BREAK SPACE}"
_ENUM_PREFIX = re.compile(r"^<[^>]*>:\s*")
_METAVARS = {
    "int": "N",
    "float": "X",
    "string": "TEXT",
    "list": "A,B,...",
    "comma separated list of strings": "A,B,...",
}


def set_topic(flag: flags.Flag, title: str) -> None:
    """Files a flag under a heading."""
    flag.topic = title


def set_default_text(flag: flags.Flag, text: str) -> None:
    """Says in the help what a flag's default is, where it is no fixed value."""
    flag.default_text = text


def render(
    flag_values: flags.FlagValues,
    name: str,
    description: str,
    basics: Sequence[str] = (),
    usage: str = "--flag=value ...",
) -> str:
    """The help text, wrapped to the width of the terminal.

    Args:
        flag_values: the defined flags, in the order in which they are to appear.
        name: the command.
        description: what it does; blank lines separate paragraphs.
        basics: the flags to show, in this order; empty = all, under their headings.
        usage: what follows the command's name.

    Returns:
        Text without a final newline.
    """
    width = max(40, min(shutil.get_terminal_size((100, 24)).columns, _MAX_WIDTH))
    blocks = [textwrap.fill(part, width) for part in _paragraphs(description)]
    blocks.append(f"Usage: {name} {usage}")
    topics = {"Flags": [flag_values[n] for n in basics]} if basics else _by_topic(flag_values)
    for title, members in topics.items():
        lines = [title, *(line for flag in members for line in _entry(flag, width))]
        blocks.append("\n".join(lines))
    footer = (
        "A switch is turned off by --noswitch or --switch=false. --flagfile=FILE reads flags "
        "from a file, one a line, --config=FILE.toml settings."
    )
    if basics:
        more = len(set(flag_values)) - len(basics)
        footer = f"--helpfull lists {more} more flags. {footer}"
    blocks.append(textwrap.fill(footer, width))
    return "\n\n".join(blocks)


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]


def _by_topic(flag_values: flags.FlagValues) -> dict[str, list[flags.Flag]]:
    """Flags by heading, both in order of definition; unfiled ones last."""
    topics: dict[str, list[flags.Flag]] = {}
    for name in flag_values:
        flag = flag_values[name]
        if name == flag.name:  # a short name lists the same flag again
            topics.setdefault(getattr(flag, "topic", _OTHER), []).append(flag)
    if _OTHER in topics:
        topics[_OTHER] = topics.pop(_OTHER)
    return topics


def _entry(flag: flags.Flag, width: int) -> list[str]:
    """The lines of one flag: spelling on the left, explanation on the right or below."""
    column = 6 if width < _NARROW else _HELP_COLUMN
    # absl puts an enum's choices before its help; the spelling shows them already.
    meaning = _ENUM_PREFIX.sub("", flag.help or "") if _choices(flag) else flag.help or ""
    explanation = " ".join(meaning.split()) + _default(flag)
    body = textwrap.wrap(explanation, width - column, break_on_hyphens=False) or [""]
    body = [line.replace(_NO_BREAK, " ") for line in body]
    head = f"  {_spelling(flag)}"
    if len(head) > column - 2:
        first = textwrap.wrap(head.strip(), width, initial_indent="  ", subsequent_indent="      ")
        return [*first, *(" " * column + line for line in body)]
    return [head.ljust(column) + body[0], *(" " * column + line for line in body[1:])]


def _spelling(flag: flags.Flag) -> str:
    if flag.boolean:
        return f"--[no]{flag.name}"
    choices = _choices(flag)
    if choices:
        return f"--{flag.name}={'|'.join(choices)}"
    return f"--{flag.name}={_METAVARS.get(flag.flag_type(), 'VALUE')}"


def _choices(flag: flags.Flag) -> list[str]:
    return list(getattr(flag.parser, "enum_values", None) or [])


def _default(flag: flags.Flag) -> str:
    """The default in brackets, kept on one line where it is short."""
    default = getattr(flag, "default_text", flag.default)
    if default is None:
        return ""
    if isinstance(default, bool):
        default = "on" if default else "off"
    if isinstance(default, (list, tuple)):
        default = ",".join(str(item) for item in default)
    if default == "":
        return ""
    text = f"(default: {default})"
    return " " + (text.replace(" ", _NO_BREAK) if len(text) < 30 else text)


EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_HELP_SPELLINGS = {
    f"{dashes}{name}"
    for dashes in ("-", "--")
    for name in ("help", "h", "?", "helpshort", "helpfull", "help=true")
}
_OWN_PACKAGES = ("data_prep", "simclr_tf", "finetune")
# Failures of the machine rather than of the program: the message says all there is to say.
_ENVIRONMENT_ERRORS = {
    errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENOTDIR,
    errno.ENAMETOOLONG,
}  # fmt: skip


@contextmanager
def topic(flag_values: flags.FlagValues, title: str) -> Iterator[None]:
    """Files the flags defined inside the block under this heading of `--help`.

    Args:
        flag_values: the values the block defines its flags on.
        title: the heading; blocks with the same title are joined.
    """
    before = set(flag_values)
    yield
    for name in flag_values:
        if name not in before:
            set_topic(flag_values[name], title)


def run_app(
    main: Callable[[flags.FlagValues], int | None],
    define: Callable[[flags.FlagValues], None],
    argv: Sequence[str] | None = None,
    *,
    name: str,
    description: str = "",
    basics: Sequence[str] = (),
    positional: Sequence[str] = (),
) -> int:
    """Parses the command line, runs the command and turns errors into exit codes.

    Args:
        main: the command itself; its return value is the exit code (None = 0).
        define: defines the flags on the `FlagValues` it is given.
        argv: arguments after the program's name; `sys.argv[1:]` if None.
        name: the command's name in messages.
        description: what the command does, for the head of `--help`.
        basics: the flags that `--help` shows; `--helpfull` shows all.
        positional: flags whose values may be given without their names, in this order.

    Returns:
        0 = done; 1 = a `UserError` or a failure of disk or permission; 2 = wrong usage;
        130 = interrupted; 143 = terminated. Messages are one line on stderr; other exceptions are
        bugs and keep their traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    flag_values = flags.FlagValues()
    flag_values.set_gnu_getopt(True)
    try:
        load_extensions()
        define(flag_values)
        wants_help = _asks_for(arguments, _HELP_SPELLINGS)
        if wants_help or _asks_for(arguments, {"--version"}):
            shown = () if _asks_for(arguments, {"--helpfull", "-helpfull"}) else basics
            usage = " ".join([*map(str.upper, positional), "--flag=value ..."])
            about = render(flag_values, name, description, shown, usage)
            _print_to_pipe(about if wants_help else f"simclr-tf {version('simclr-tf')}")
            return EXIT_OK
        parse(flag_values, arguments, name, positional)
    except UserError as error:
        return _complain(name, f"{error} (--help lists every flag)", EXIT_USAGE)
    set_up_logging()
    try:
        with _heeding_terminate():
            return main(flag_values) or EXIT_OK
    except UserError as error:
        return _complain(name, str(error), EXIT_FAILED)
    except KeyboardInterrupt as error:
        if isinstance(error, _TerminatedError):
            said, code = "terminated", EXIT_TERMINATED
        else:
            said, code = "interrupted", EXIT_INTERRUPTED
        return _complain(name, said, code)
    except Exception as error:
        said = full_disk(error)
        if not said and isinstance(error, OSError) and error.errno in _ENVIRONMENT_ERRORS:
            said = ": ".join(str(p) for p in (error.filename, error.strerror) if p)
        if not said:
            raise
        return _complain(name, said, EXIT_FAILED)


class _TerminatedError(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does: what must be closed is closed."""


@contextmanager
def _heeding_terminate() -> Iterator[None]:
    """Turns SIGTERM into an exception, unless the process ignores it or handles it otherwise."""
    alone = threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _TerminatedError

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def parse(
    flag_values: flags.FlagValues,
    arguments: Sequence[str],
    name: str = "",
    positional: Sequence[str] = (),
) -> None:
    """Parses arguments onto the flags, all of absl's spellings and `--flagfile` included.

    Args:
        flag_values: the defined flags; their values are set.
        arguments: what follows the program's name.
        name: the program's name.
        positional: flags whose values may be given without their names, in this order.

    Raises:
        UserError: an unknown flag, a bad or missing value, a stray argument; one line that
            says what would be right.
    """
    try:
        rest = flag_values([name or "command", *_named(flag_values, arguments, positional)])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(_unknown_flag(flag_values, error.flagname)) from None
    except flags.CantOpenFlagFileError as error:
        raise UserError(_one_line(error).removeprefix("ERROR:: ")) from None
    except (flags.Error, ValueError) as error:
        raise UserError(_bad_value(flag_values, _one_line(error))) from None
    if rest:
        raise UserError(_stray_argument(rest[0]))


def set_up_logging() -> None:
    """One line a message on stderr: our packages from INFO, all others from WARNING on."""
    handler = _BesideBars()
    handler.setFormatter(_LineFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    for package in _OWN_PACKAGES:
        logging.getLogger(package).setLevel(logging.INFO)


class _BesideBars(logging.StreamHandler[TextIO]):
    """Writes above the progress bars that are drawn at the moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one record."""
        tqdm = sys.modules.get("tqdm")
        if tqdm is None:  # no bar has been drawn
            super().emit(record)
            return
        try:
            tqdm.tqdm.write(self.format(record), file=self.stream)
            self.flush()
        except Exception:
            self.handleError(record)


class _LineFormatter(logging.Formatter):
    """Names the level only where it is out of the ordinary."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        if record.levelno > logging.INFO:
            record.message = f"{record.levelname.lower()}: {record.message}"
        return super().formatMessage(record)


def _asks_for(arguments: Sequence[str], spellings: Collection[str]) -> bool:
    before_dashes = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(argument in spellings for argument in before_dashes)


def _listed(flag_values: flags.FlagValues, name: str, value: str) -> str:
    """The flag for a place: `manifest` for a CSV where images are expected."""
    is_list = name == "image_dir" and value.lower().endswith(".csv") and "manifest" in flag_values
    return "manifest" if is_list else name


def _named(
    flag_values: flags.FlagValues, arguments: Sequence[str], positional: Sequence[str]
) -> list[str]:
    """The arguments with the names of flags before values that are given by position."""
    named, left, value_follows = [], list(positional), False
    for argument in arguments:
        if value_follows or argument.startswith("-") or not left:
            named.append(argument)
        else:
            named.append(f"--{_listed(flag_values, left.pop(0), argument)}={argument}")
        flag, equals, _ = argument.lstrip("-").partition("=")
        takes_value = argument.startswith("-") and not equals and flag in flag_values
        value_follows = not value_follows and takes_value and not flag_values[flag].boolean
    return named


def _print_to_pipe(text: str) -> None:
    """Prints; a reader that closes early (`| head`) is no error."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(name: str, message: str, code: int) -> int:
    print(f"{name}: error: {_one_line(message)}", file=sys.stderr)
    return code


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _unknown_flag(flag_values: flags.FlagValues, given: str) -> str:
    known = list(flag_values)
    known += [f"no{name}" for name in flag_values if flag_values[name].boolean]
    nearest = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    hint = f"; did you mean --{nearest[0]}?" if nearest else ""
    return f"unknown flag --{given}{hint}"


_ILLEGAL_VALUE = re.compile(r"flag --(?P<name>\w+)=(?P<value>.*?): (?P<why>.*)", re.DOTALL)
_ILLEGAL_TOGETHER = re.compile(r"flags (?:\w+=\S+, )+\w+=\S+: (?P<why>.*)", re.DOTALL)


def _bad_value(flag_values: flags.FlagValues, message: str) -> str:
    """Puts absl's message about a bad value in plain words."""
    match = _ILLEGAL_VALUE.match(message)
    if not match or match["name"] not in flag_values:
        several = _ILLEGAL_TOGETHER.match(message)
        return several["why"] if several else message[:1].lower() + message[1:]
    flag, value, why = flag_values[match["name"]], match["value"], match["why"]
    shown = ",".join(flag.value) if isinstance(flag.value, list) else value
    given = f"--{flag.name}={shown}"
    if _parses(flag, value):  # so it was a validator that spoke
        return f"{given}: {why}"
    choices = getattr(flag.parser, "enum_values", None)
    if choices:
        hint = did_you_mean(value, choices)
        return f"{given}: must be one of {', '.join(choices)}{hint}"
    if flag.boolean:
        return f"{given}: must be true or false"
    wanted = flag.parser.syntactic_help
    return f"{given}: must be {wanted}" if wanted else f"{given}: {why}"


def _parses(flag: flags.Flag, value: str) -> bool:
    try:
        flag.parser.parse(value)
    except (ValueError, TypeError):
        return False
    return True


def _stray_argument(argument: str) -> str:
    hint = ""
    if argument.lower() in {"true", "false"}:
        hint = f"; a switch takes its value after an equals sign, --flag={argument}"
    return f"unexpected argument '{argument}': every setting is a --flag=value{hint}"
