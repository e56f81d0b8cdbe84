"""The flags that declare how files are read, the same for every command."""

from dataclasses import fields
from typing import Any, get_args, get_origin, get_type_hints

from absl import flags

from data_prep.cli.app import topic
from data_prep.manifest.read_options import Declaration

TOPIC = "Reading of files"


def define_reading(flag_values: flags.FlagValues) -> None:
    """Defines a flag for each field of `Declaration`."""
    hints = get_type_hints(Declaration)
    own: dict[str, Any] = {"flag_values": flag_values}
    with topic(flag_values, TOPIC):
        for field in fields(Declaration):
            kind, help_text = hints[field.name], field.metadata["help"]
            if get_origin(kind) is not None:
                flags.DEFINE_enum(field.name, field.default, get_args(kind), help_text, **own)
            elif kind is int:
                flags.DEFINE_integer(field.name, field.default, help_text, 0, **own)
            else:
                flags.DEFINE_string(field.name, field.default, help_text, **own)


def given_reading(flag_values: flags.FlagValues) -> dict[str, Any]:
    """What the command line says of it, by name."""
    return {
        field.name: getattr(flag_values, field.name)
        for field in fields(Declaration)
        if not flag_values[field.name].using_default_value
    }


def read_reading(flag_values: flags.FlagValues) -> Declaration:
    """The declaration that the flags make."""
    return Declaration(**given_reading(flag_values))
