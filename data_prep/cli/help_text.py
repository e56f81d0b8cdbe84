"""The text of `--help`: flags by topic, with what they take and their defaults."""

import re
import shutil
import textwrap

from absl import flags

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


def render(flag_values: flags.FlagValues, name: str, description: str) -> str:
    """The whole help text, wrapped to the width of the terminal.

    Args:
        flag_values: the defined flags, in the order in which they are to appear.
        name: the command.
        description: what it does; blank lines separate paragraphs.

    Returns:
        Text without a final newline.
    """
    width = max(40, min(shutil.get_terminal_size((100, 24)).columns, _MAX_WIDTH))
    blocks = [textwrap.fill(part, width) for part in _paragraphs(description)]
    blocks.append(f"Usage: {name} --flag=value ...")
    for title, members in _by_topic(flag_values).items():
        lines = [title, *(line for flag in members for line in _entry(flag, width))]
        blocks.append("\n".join(lines))
    footer = (
        "A switch is turned off by --noswitch or --switch=false. --flagfile=FILE reads flags "
        "from a file, one a line."
    )
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
    default = flag.default
    if default is None:
        return ""
    if flag.boolean:
        default = "on" if default else "off"
    if isinstance(default, (list, tuple)):
        default = ",".join(str(item) for item in default)
    text = f"(default: {default})" if default != "" else "(default: empty)"
    return " " + (text.replace(" ", _NO_BREAK) if len(text) < 30 else text)
