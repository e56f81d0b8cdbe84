"""Commands called from Python: settings by keyword, errors in Python's words, no exit codes."""

import inspect
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from data_prep.cli.app import set_up_logging
from data_prep.cli.command import Command
from data_prep.errors import UserError
from data_prep.settings import Setting
from finetune.api.images import ImageSet, PathLike, images_setting
from finetune.api.messages import as_arguments
from finetune.cli.simclr import VERBS

log = logging.getLogger("finetune.api")
F = TypeVar("F", bound=Callable[..., Any])
Images = PathLike | ImageSet
_SIGNALS = range(129, 160)


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


def places(
    images: Images | None, output: PathLike, output_setting: str = "output"
) -> dict[str, Any]:
    """The settings of images and output.

    Args:
        images: The images; None = the command finds them itself.
        output: The folder or file to write.
        output_setting: Name of the setting of the output.
    """
    own: dict[str, Any] = {output_setting: os.fspath(output)} if output else {}
    if isinstance(images, ImageSet):
        beside = Path(output or "images").with_name(f"{Path(output or 'images').name}.images.csv")
        return {**own, **images.settings(beside)}
    return {**own, **(images_setting(images) if images is not None else {})}


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
