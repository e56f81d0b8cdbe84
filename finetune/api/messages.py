"""Messages in Python's words: settings as keyword arguments, not as flags."""

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from data_prep.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")
_FLAG = re.compile(r"(?<![\w-])--(?P<name>[a-z]\w*)(?P<value>=?)")


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
    from finetune.cli.simclr import VERBS

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
