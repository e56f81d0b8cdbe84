"""The headers of many image files at once: facts in flat arrays, and which files are unusable."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from data_prep.errors import UserError
from data_prep.reading.headers import read_header

_CHUNK = 128
_THREADS = min(32, 4 * (os.cpu_count() or 1))
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Survey:
    """Facts of n files, arrays [n]; files with a problem have zeros.

    Attributes:
        height: int32, pixels.
        width: int32, pixels.
        channels: int32, 1 grey, 3 colour, or bands.
        bits: int32, as in `headers.Header.bits`: 8, or more for values that become float32.
        decoder: int32, `headers.Decoder`.
        device: int64, with `inode` the identity of the file on disk (links share it).
        inode: int64; 0 where the file system has none.
        problems: Index of an unusable file -> what is wrong with it, in index order.
    """

    height: np.ndarray
    width: np.ndarray
    channels: np.ndarray
    bits: np.ndarray
    decoder: np.ndarray
    device: np.ndarray
    inode: np.ndarray
    problems: dict[int, str]


def survey(files: Sequence[str], readings: Sequence[str] = (), tiles: Sequence[str] = ()) -> Survey:
    """Reads the headers of all files with several threads (waiting for disks overlaps).

    Args:
        files: File names.
        readings: What is declared of each, as in a manifest; none if empty.
        tiles: The part of each that counts, as in a manifest; all if empty.
    """
    if any(readings) or any(tiles):
        declared = list(zip(files, readings or [""] * len(files), tiles or [""] * len(files),
                            strict=True))  # fmt: skip
        return _survey(declared)
    return _survey([(file, "", "") for file in files])


def _survey(files: Sequence[tuple[str, str, str]]) -> Survey:
    facts = np.zeros((7, len(files)), dtype=np.int64)
    problems: dict[int, str] = {}
    starts = range(0, len(files), _CHUNK)
    with ThreadPoolExecutor(_THREADS) as pool:
        chunks = pool.map(lambda start: list(_read(files[start : start + _CHUNK])), starts)
        for start, rows in zip(starts, chunks, strict=True):
            for index, row in enumerate(rows, start):
                if isinstance(row, str):
                    problems[index] = row
                else:
                    facts[:, index] = row
    height, width, channels, bits, decoder = facts[:5].astype(np.int32)
    device, inode = facts[5:]
    return Survey(height, width, channels, bits, decoder, device, inode, problems)


def _read(files: Sequence[tuple[str, str, str]]) -> Iterator[str | tuple[int, ...]]:
    for file, reading, tile in files:
        try:
            header = read_header(file, reading, tile)
            status = os.stat(file)
        except UserError as error:
            yield str(error)
        else:
            yield (
                header.height,
                header.width,
                header.channels,
                header.bits,
                header.decoder,
                # Identities are unsigned 64 bits on some systems.
                status.st_dev & 0x7FFF_FFFF_FFFF_FFFF,
                status.st_ino & 0x7FFF_FFFF_FFFF_FFFF,
            )


def unusable(files: Sequence[str], problems: dict[int, str]) -> UserError:
    """The error that names the first unusable files."""
    shown = "; ".join(
        f"{files[index]} ({problem})" for index, problem in list(problems.items())[:_SHOWN]
    )
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return UserError(
        f"{len(problems)} of {len(files)} images cannot be read: {shown}{more}."
        " Mend or remove them, or leave them out with --skip_unreadable"
    )


def in_short(error: Exception) -> str:
    """What an error says, in one line and without TensorFlow's names of ops and nodes."""
    text = re.sub(r"\{\{.*?\}\}|\[Op:\w*\]", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for line in lines:
        if "UserError: " in line:
            return line.partition("UserError: ")[2]
    return lines[0] if lines else type(error).__name__


def find_undecodable(files: Sequence[str], decode: Callable[[int], object]) -> UserError | None:
    """Decodes every file to find those that cannot be.

    Args:
        files: File names.
        decode: Decodes the file of an index, and raises if it cannot.

    Returns:
        The error that names the first files at fault, or None.
    """

    def problem(index: int) -> str | None:
        try:
            decode(index)
        except Exception as error:  # Whatever it is, it is the answer.
            return in_short(error).removeprefix(f"{files[index]}: ")
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = enumerate(pool.map(problem, range(len(files))))
        problems = {index: text for index, text in found if text}
    return unusable(files, problems) if problems else None
