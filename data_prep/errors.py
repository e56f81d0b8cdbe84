"""The error that users are meant to read, and the conversion of decoders' errors into it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_LONGEST = 400


class UserError(ValueError):
    """Error for input that cannot be used: one line that says what is wrong and how to mend it.

    Commands print the message alone and exit with status 1. They have then written nothing new.
    As a text, the error names the setting by its flag.

    Args:
        message: The line; with a setting, what comes after its name and value.
        setting: Name of the setting at fault, without dashes; empty if there is no single one.
        value: The setting's value; `None` if it does not matter.
    """

    def __init__(self, message: object = "", *, setting: str = "", value: Any = None) -> None:
        super().__init__(message)
        self.setting, self.value = setting, value

    def __str__(self) -> str:
        message = super().__str__()
        if not self.setting:
            return message
        value = self.value
        if isinstance(value, (tuple, list)):
            value = ",".join(map(_shown, value))
        if isinstance(value, bool):
            return f"--{'' if value else 'no'}{self.setting}: {message}"
        given = f"--{self.setting}" if value is None else f"--{self.setting}={value}"
        return f"{given} {message}" if message.startswith("is missing") else f"{given}: {message}"


def _shown(value: Any) -> str:
    """A value as a flag gives it: 2 for 2.0."""
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 1e15
    return str(int(value)) if whole else str(value)


@contextmanager
def setting_renamed(**names: str) -> Iterator[None]:
    """Lets errors of the body name a caller's own setting.

    Args:
        **names: The caller's setting by that of the function that it calls, such as
            `checkpoint="encoder"`.

    Raises:
        UserError: One of the body, with its setting renamed.
    """
    try:
        yield
    except UserError as error:
        error.setting = names.get(error.setting, error.setting)
        raise


def one_line(error: object) -> str:
    """The message of an error as one printable line.

    Decoders put pieces of the file into their messages, which may hold anything.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(character if character.isprintable() else "?" for character in text)


@contextmanager
def damage_refused(what: str) -> Iterator[None]:
    """Turns whatever a decoder raises on a damaged file into a `UserError`.

    On damaged bytes, decoding libraries raise almost anything: errors of indices, keys, arithmetic
    and memory beside those that they document.

    Args:
        what: Begins the message, such as "FITS cannot be read".

    Raises:
        UserError: For every exception of the body; a `UserError` passes with its message made one
            line.
    """
    try:
        yield
    except UserError as error:
        if (message := one_line(error)) == str(error):
            raise
        raise UserError(message) from None
    except MemoryError:
        raise UserError(f"{what} (needs more memory than there is)") from None
    except Exception as error:
        raise UserError(f"{what} ({one_line(error)[:_LONGEST]})") from error


class FullDiskError(UserError):
    """Error for a full disk: once there is room, the same work can continue where it was."""
