"""Commands called from Python: settings by keyword, errors in Python's words, no exit codes."""

import functools
import inspect
import logging
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from data_prep.cli.app import set_up_logging
from data_prep.cli.command import Command
from data_prep.errors import UserError
from data_prep.extensions import load_extensions
from data_prep.settings import Setting
from finetune.cli.simclr import VERBS

log = logging.getLogger("finetune.api")
F = TypeVar("F", bound=Callable[..., Any])
P = ParamSpec("P")
R = TypeVar("R")
_SIGNALS = range(129, 160)
_FLAG = re.compile(r"(?<![\w-])--(?P<name>[a-z]\w*)(?P<value>=?)")


def command_of(verb: str) -> Command:
    """The command of a verb of `simclr`."""
    return next(v for v in VERBS if v.name == verb).command()


def call(verb: str, settings: Mapping[str, Any], *after_dashes: list[str]) -> int:
    """Runs a command.

    Args:
        verb: The verb of `simclr`.
        settings: Value by name; those that are not given have their defaults.
        *after_dashes: Arguments for another command, if it takes such.

    Returns:
        0, or the code of a part success that the command documents.

    Raises:
        UserError: Something asked for is impossible.
    """
    load_extensions()
    command = command_of(verb)
    named = command.with_preset({n: _plain(v) for n, v in settings.items() if v is not None})
    config = command.config_type.from_values({**command.defaults, **named})
    if not logging.getLogger().handlers:
        set_up_logging()
    for sentence in config.without_effect(named):
        log.warning("%s", as_arguments(sentence))
    code: int = command.run(config, frozenset(named), *after_dashes) or 0
    if code not in (0, 3) and code not in _SIGNALS:
        raise UserError(f"simclr {verb} ended with code {code}; what it said is above")
    return code


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list):
        return tuple(map(_plain, value))
    return value.item() if hasattr(value, "item") and not hasattr(value, "__len__") else value


def with_settings_of(verb: str, *leave_out: str) -> Callable[[F], F]:
    """Gives a function the signature and the help of a command's settings.

    Args:
        verb: The verb of `simclr`.
        *leave_out: Settings that the function's own parameters stand for.
    """

    def decorate(function: F) -> F:
        command = command_of(verb)
        settings = [s for s in command.config_type.settings() if s.name not in leave_out]
        own = list(inspect.signature(function).parameters.values())
        positional = [p for p in own if p.kind is not inspect.Parameter.VAR_KEYWORD]
        taken = {p.name for p in positional}
        keywords = [_parameter(s, command) for s in settings if s.name not in taken]
        if command.preset_help:
            keywords.append(inspect.Parameter("preset", inspect.Parameter.KEYWORD_ONLY, default=""))
        signature = inspect.signature(function)
        function.verb = verb  # type: ignore[attr-defined]
        function.__signature__ = signature.replace(parameters=[*positional, *keywords])  # type: ignore[attr-defined]
        lines = [f"    {s.name}: {s.help}" for s in settings if s.name not in taken]
        function.__doc__ = f"{inspect.getdoc(function)}\n\nSettings:\n" + "\n".join(lines) + "\n"
        return function

    return decorate


def _parameter(s: Setting, command: Command) -> inspect.Parameter:
    chosen = s.name in command.chosen
    default = None if chosen else command.defaults.get(s.name, s.default)
    annotation: Any = tuple[s.item, ...] if s.kind is tuple else s.kind  # type: ignore[name-defined]
    if s.optional or chosen:
        annotation = annotation | None
    return inspect.Parameter(
        s.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def as_arguments(text: str) -> str:
    """A message that names flags, with keyword arguments instead.

    Returns:
        The text with `--name=value` as `name=value`, `--noname` as `name=False` where there is
        such a switch, and `--name` as `name`.
    """
    return _FLAG.sub(_argument, text)


def _argument(match: re.Match[str]) -> str:
    name = match["name"]
    if not match["value"] and name.startswith("no") and name[2:] in _switches():
        return f"{name[2:]}=False"
    return name + match["value"]


@functools.cache
def _switches() -> frozenset[str]:
    """Names of all settings that are on or off."""
    return frozenset(
        s.name for v in VERBS for s in v.command().config_type.settings() if s.kind is bool
    )


def speaking_python(function: Callable[P, R]) -> Callable[P, R]:
    """Lets the errors of a function name keyword arguments."""

    @functools.wraps(function)
    def speaking(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except UserError as error:
            told = type(error)(as_arguments(str(error)))
        raise told

    return speaking
