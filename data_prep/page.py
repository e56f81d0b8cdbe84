"""One self-contained HTML page: everything inline, readable on a phone and in print."""

import base64
import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import jinja2
from markupsafe import Markup, escape

from data_prep.phrases import sentence
from data_prep.storage import write_text

_NUMERIC = re.compile(r"^[\s\d.,%+\-−–±×()\[\]e]*\d[\s\d.,%+\-−–±×()\[\]e]*$")


@dataclass(frozen=True)
class Table:
    """A table; cells are plain text, in which a line break is kept.

    Attributes:
        headers: one a column.
        rows: cells, as many a row as headers.
        caption: above the table.
        highlight: positions of rows to set off.
        note: below the table.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    highlight: tuple[int, ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        if any(len(row) != len(self.headers) for row in self.rows):
            raise ValueError(f"every row needs {len(self.headers)} cells")

    @cached_property
    def numeric(self) -> tuple[bool, ...]:
        """For every column, True if it holds numbers alone and so is set flush right."""
        columns = zip(*self.rows, strict=True) if self.rows else ((),) * len(self.headers)
        return tuple(
            any(cells) and all(_NUMERIC.match(cell) for cell in cells if cell)
            for cells in map(tuple, columns)
        )

    def text(self) -> str:
        """The table as aligned text, for a terminal."""
        rows = [
            tuple(cell.replace("\n", " ") for cell in row) for row in (self.headers, *self.rows)
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        )


@dataclass(frozen=True)
class Picture:
    """An embedded picture.

    Attributes:
        data: the file's bytes.
        caption: below the picture.
        alt: for readers who do not see it; the caption if empty.
        kind: of file.
        width: in CSS pixels (96 an inch) where there is room; 0 = as many as it has dots.
        least: CSS pixels below which it is not shrunk: on a narrow screen it scrolls instead.
        half: takes half the page's width, beside the next such picture, where there is room.
    """

    data: bytes
    caption: str = ""
    alt: str = ""
    kind: Literal["png", "jpeg", "svg+xml"] = "png"
    width: int = 0
    least: int = 0
    half: bool = False

    @property
    def uri(self) -> str:
        """The picture as a `data:` URI."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode('ascii')}"


@dataclass(frozen=True)
class Section:
    """A part of the page: its text and links, then tables, pictures, a gallery and commands.

    Attributes:
        title: heading.
        text: paragraphs, plain text.
        tables: in order.
        pictures: in order.
        gallery: small pictures, side by side.
        rows: small pictures that belong together, a row each: none is broken over two lines.
        commands: shell commands, shown as they are typed.
        links: text -> address, such as a file beside the page.
    """

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    pictures: tuple[Picture, ...] = ()
    gallery: tuple[Picture, ...] = ()
    rows: tuple[tuple[Picture, ...], ...] = ()
    commands: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def anchor(self) -> str:
        """The section's anchor in the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        title: of the page.
        summary: the result in a few paragraphs, plain text.
        sections: in order.
        facts: name -> value, small print at the end (versions, machine, time).
    """

    title: str
    summary: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


def software() -> str:
    """The versions of the packages that made a page, in one line."""
    packages = {"TensorFlow": "tensorflow", "Keras": "keras", "scikit-learn": "scikit-learn"}
    named = ", ".join(f"{name} {version(package)}" for name, package in packages.items())
    return f"simclr-tf {version('simclr-tf')}, {named}, Python {platform.python_version()}"


def shell_command(arguments: Sequence[str], width: int = 88) -> str:
    """A command as it can be pasted into a shell, broken between arguments.

    Args:
        arguments: program and arguments; quoted where the shell needs it.
        width: columns a line.

    Returns:
        Lines joined by a backslash.
    """
    lines = [""]
    for word in map(shlex.quote, arguments):
        if lines[-1] and len(lines[-1]) + len(word) + 3 > width:
            lines.append(" ")
        lines[-1] += f" {word}" if lines[-1] else word
    return " \\\n".join(lines)


def repeat_section(
    *commands: Sequence[str], text: tuple[str, ...] = (), tables: tuple[Table, ...] = ()
) -> Section:
    """The section with the commands that make the page's results again.

    Args:
        commands: Program and arguments of each.
        text: Says what they do.
        tables: Settings that they rest on.
    """
    return Section(
        "To repeat it", text=text, tables=tables, commands=tuple(map(shell_command, commands))
    )


def warnings_section(who: str, text: str, said: Mapping[str, Sequence[str]]) -> tuple[Section, ...]:
    """The section of warnings, a row for each that has warned; none if there are no warnings.

    Args:
        who: Heading of the first column, such as `run`.
        text: Says whose warnings they are.
        said: Name -> warnings.
    """
    rows = tuple((name, "\n".join(map(sentence, own))) for name, own in said.items() if own)
    if not rows:
        return ()
    return (Section("Warnings", (text,), (Table((who, "warnings"), rows),)),)


def warning_paragraphs(warnings: Sequence[str], said: Sequence[str] = ()) -> tuple[str, ...]:
    """Paragraphs with the warnings of a run, for the top of a page.

    Args:
        warnings: Of the run.
        said: Those that the page says already.
    """
    return tuple(f"Warning of the run: {sentence(text)}" for text in warnings if text not in said)


def render_page(page: Page) -> str:
    """The page as HTML; all text is escaped, nothing is loaded from anywhere."""
    return page_environment().get_template("page.html").render(page=page)


def page_environment(*others: jinja2.BaseLoader) -> jinja2.Environment:
    """The templates of pages.

    Args:
        others: Where further templates lie. They can extend `page.html`, which wants `page`, and
            add to its blocks `style`, `content` (the end of it) and `scripts`.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader("data_prep", "templates"), *others]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    return environment


def _breakable(text: str) -> Markup:
    """The escaped text, which may go on in a new line after an underscore."""
    return Markup(str(escape(text)).replace("_", "_<wbr>"))


def write_page(page: Page, path: str | os.PathLike[str]) -> None:
    """Writes the page, complete or not at all."""
    write_text(Path(path), render_page(page))
