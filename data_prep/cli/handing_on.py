"""Commands that hand what follows after two dashes on to another command."""

import sys
from collections.abc import Callable, Sequence
from functools import partial

from absl import flags

from data_prep.cli.app import run_app

Command = Callable[[flags.FlagValues, Sequence[str]], int]


def run_handing_on(
    command: Command,
    define: Callable[[flags.FlagValues], None],
    argv: Sequence[str] | None = None,
    *,
    name: str,
    description: str,
) -> int:
    """`run_app` for a command that gets, beside its flags, the arguments after `--`.

    Args:
        command: Called with the parsed flags and the arguments to hand on; returns the exit code.
        define: Defines its own flags.
        argv: All arguments; `sys.argv[1:]` if None.
        name: What the command is called in messages.
        description: For the head of `--help`.
    """
    given = list(sys.argv[1:] if argv is None else argv)
    at = given.index("--") if "--" in given else len(given)
    own = partial(_called, command, given[at + 1 :])
    return run_app(own, define, given[:at], name=name, description=description)


def _called(command: Command, handed_on: Sequence[str], flag_values: flags.FlagValues) -> int:
    return command(flag_values, handed_on)


def given_flags(flag_values: flags.FlagValues) -> list[str]:
    """The command's own flags as they were given, in their order of definition."""
    return [
        text
        for name in flag_values
        if not flag_values[name].using_default_value and name not in {"flagfile", "undefok"}
        for text in flag_values[name].serialize().splitlines()
    ]
