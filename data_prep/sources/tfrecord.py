"""Facts about a set of TFRecord shards, and checks that its files are still as written.

A set is a folder of shards with a file `dataset.json` beside them that holds what a reader must
know first: classes, splits, and of every shard its records, bytes and SHA-256. Each record is a
`tf.train.Example` with the customary keys (`image/encoded`, `image/class/label`, ...; see
`tfrecord_writer`).
"""

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from data_prep.errors import UserError
from data_prep.manifest.read_options import Declaration, carried
from data_prep.storage import file_sha256

FACTS_FILE = "dataset.json"
ALL = "all"
"""Name of the only split of a set without splits."""

FORMAT = "simclr-tf image shards 2"
_HASHING_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class Shard:
    """One file.

    Attributes:
        file: Its name in the folder.
        num_examples: Records in it.
        num_bytes: Its size.
        sha256: Hash of its bytes, in hexadecimal.
    """

    file: str
    num_examples: int
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class SplitFacts:
    """Facts about one split of a sharded set.

    Attributes:
        shards: Its files, in order.
        num_examples: Records in all of them.
        encoded_bytes: Size of all records.
        channels: 1, 3 or n.
        bits: Of a value, see `headers.Header.bits`.
        decoders: The `picture.Decoder` values that occur.
        sha256: Hash of the manifest of the split.
    """

    shards: tuple[Shard, ...]
    num_examples: int
    encoded_bytes: int
    channels: int
    bits: int
    decoders: tuple[int, ...]
    sha256: str

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the shards, in order."""
        return tuple(shard.file for shard in self.shards)


def read_facts(folder: str | os.PathLike[str]) -> tuple[tuple[str, ...], dict[str, SplitFacts]]:
    """Class names and the facts of every split of a sharded set.

    Raises:
        UserError: No such set, or one that another program wrote.
    """
    content = _read(folder)
    try:
        splits = {name: _split_facts(part) for name, part in content["splits"].items()}
        return tuple(content["class_names"]), splits
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{FACTS_FILE} in {folder} is damaged: {error!r}") from None


def read_declaration(folder: str | os.PathLike[str]) -> Declaration:
    """Returns the declaration by which the set's files were read, and new ones are to be read.

    Raises:
        UserError: No such set, or its images were made by different rules.
    """
    declared = _read(folder).get("reading")
    if declared is None:
        raise UserError(
            f"the shards in {folder} were made by different intensity rules, so nobody could tell"
            " how to read new images; write them by one rule"
        )
    try:
        return Declaration(**carried(declared))
    except TypeError as error:
        raise UserError(f"{FACTS_FILE} in {folder} is damaged: {error}") from None


def _read(folder: str | os.PathLike[str]) -> dict[str, Any]:
    path = Path(folder).expanduser() / FACTS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no image shards in {path.parent}: {FACTS_FILE} is missing") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(
            f"{path} is of another format than {FORMAT!r}; write the shards anew with"
            " simclr-tfrecord"
        )
    return content


def _split_facts(part: dict[str, Any]) -> SplitFacts:
    values = {field.name: part[field.name] for field in fields(SplitFacts)}
    values["shards"] = tuple(Shard(**shard) for shard in values["shards"])
    values = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    return SplitFacts(**values)


def wrong_sizes(folder: str | os.PathLike[str], shards: tuple[Shard, ...]) -> dict[str, str]:
    """Shards that are missing or of another size than was written: name -> what is wrong.

    Cheap: nothing is read.
    """
    problems = {}
    for shard in shards:
        try:
            size = os.stat(os.path.join(folder, shard.file)).st_size
        except FileNotFoundError:
            problems[shard.file] = "missing"
            continue
        if size != shard.num_bytes:
            problems[shard.file] = f"{size} bytes instead of {shard.num_bytes}"
    return problems


def damaged_shards(
    folder: str | os.PathLike[str],
    shards: tuple[Shard, ...],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, str]:
    """Reads shards again and compares them with their checksums.

    Args:
        folder: Folder of the set.
        shards: The shards to check.
        progress: Called with (shards done, shards in all).

    Returns:
        Name of a damaged shard -> what is wrong with it, in the order of the shards.
    """
    problems = wrong_sizes(folder, shards)

    def problem(shard: Shard) -> str:
        if shard.file in problems:
            return problems[shard.file]
        try:
            same = file_sha256(os.path.join(folder, shard.file)) == shard.sha256
        except OSError as error:
            return error.strerror or str(error)
        return "" if same else "its bytes have changed (SHA-256 differs)"

    found = {}
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        results = pool.map(problem, shards)
        for done, (shard, text) in enumerate(zip(shards, results, strict=True), 1):
            if text:
                found[shard.file] = text
            progress(done, len(shards))
    return found


def damage_error(folder: str | os.PathLike[str], problems: dict[str, str]) -> UserError:
    """The error that names damaged shards."""
    shown = "; ".join(f"{name} ({text})" for name, text in list(problems.items())[:3])
    more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return UserError(
        f"shards missing or damaged in {folder}: {shown}{more}. Copy them again, or write the set"
        " anew"
    )
