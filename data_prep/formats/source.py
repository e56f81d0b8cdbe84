"""What readers take: the name of a file, or an open one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

FileSource = str | BinaryIO


@contextmanager
def opened(source: FileSource) -> Iterator[BinaryIO]:
    """The source as an open file, at its beginning."""
    if isinstance(source, str):
        with open(source, "rb") as stream:
            yield stream
    else:
        source.seek(0)
        yield source
