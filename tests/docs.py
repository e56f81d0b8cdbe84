"""What the pages of documentation hold, and how a command is run as they give it."""

import importlib
import re
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from finetune.cli.simclr import VERBS

ROOT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
PAGES += ["benchmarks/methods.md"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Every command by the name of its script, also of those that are verbs of `simclr` alone.
COMMANDS = {f"simclr-{verb.name}": f"{verb.module}:main" for verb in VERBS}


def text_of(page: str) -> str:
    """A page, by its path from the root."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(language: str, text: str) -> list[str]:
    """The contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def inline_code(text: str) -> list[str]:
    """What stands between backquotes."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def shell_lines(text: str) -> list[list[str]]:
    """The words of every command in the `bash` blocks; comments left out, lines joined."""
    joined = "\n".join(blocks("bash", text)).replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def own_commands(text: str) -> list[tuple[str, list[str]]]:
    """Name and arguments of the commands of this package, whatever stands before them."""
    found = []
    for words in shell_lines(text):
        name, arguments = own_command(words)
        if name:
            found.append((name, arguments))
    return found


def own_command(words: Sequence[str]) -> tuple[str, list[str]]:
    """Name and arguments of the first command of this package among words; "" without one."""
    for at, word in enumerate(words):
        if word in COMMANDS:
            return word, list(words[at + 1 :])
        verb = f"simclr-{words[at + 1]}" if word == "simclr" and words[at + 1 :] else ""
        if verb in COMMANDS:
            return verb, list(words[at + 2 :])
    return "", []


def readme_arguments(name: str) -> list[str]:
    """The arguments of a command in the README, for the one test that runs it."""
    (found,) = [arguments for command, arguments in own_commands(text_of("README.md"))
                if command == name]  # fmt: skip
    return found


def table_below(heading: str, text: str) -> list[list[str]]:
    """The rows of the first table below a heading, cell by cell, its head first."""
    section = text.split(f"{heading}\n", 1)[1]
    match = re.search(r"(?:^\|.*\n)+", section, flags=re.MULTILINE)
    assert match, f"no table below {heading}"
    rows = [re.split(r"(?<!\\)\|", row.strip("|")) for row in match[0].splitlines()]
    cells = [[cell.strip() for cell in row] for row in rows]
    return [cells[0], *cells[2:]]


def anchors(text: str) -> set[str]:
    """Where links into a page may lead, as GitHub names its headings."""
    headings = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def defined_flags(command: str) -> flags.FlagValues:
    """The flags of a command, freshly defined."""
    module = importlib.import_module(COMMANDS[command].partition(":")[0])
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    module.COMMAND.define(values)
    return values


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Runs a command in this process, in the working directory; its exit code."""
    module = importlib.import_module(COMMANDS[name].partition(":")[0])
    code: int = module.main(arguments)
    return code
