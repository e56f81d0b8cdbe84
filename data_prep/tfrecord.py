"""Image sets as TFRecord shards: few large files instead of many small ones.

Each record is a tf.train.Example with the customary keys `image/encoded` (the file, byte for
byte), `image/filename`, `image/class/label` and `image/class/text`, and `image/decoder` (how to
decode it). A file `dataset.json` beside the shards holds what a reader must know first.
"""

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.files import write_text
from data_prep.manifest import Manifest
from data_prep.scan import image_facts

FACTS_FILE = "dataset.json"
ALL = "all"
"""Name of the only split of a set without splits."""

_FORMAT = "simclr-tf image shards 1"


@dataclass(frozen=True)
class ShardFacts:
    """What one split of a sharded set holds.

    Attributes:
        files: Names of the shards, in order.
        num_examples: Records in all of them.
        encoded_bytes: Size of the encoded images.
        channels: 1, 3 or n.
        bits: 8, 16 or 32.
        decoders: The `headers.Decoder` values that occur.
        sha256: Hash of the manifest the shards were made from.
    """

    files: tuple[str, ...]
    num_examples: int
    encoded_bytes: int
    channels: int
    bits: int
    decoders: tuple[int, ...]
    sha256: str


def write_shards(
    manifest: Manifest, output_dir: str | os.PathLike[str], num_shards: int
) -> dict[str, ShardFacts]:
    """Writes the images of a manifest as shards, whole or not at all.

    The records of a split are written in a fixed mixed order, so that a shuffle buffer smaller
    than the set sees all classes.

    Args:
        manifest: The images; each split gets shards of its own.
        output_dir: A folder that does not exist yet, or is empty.
        num_shards: Shards a split; no more than it has images.

    Returns:
        The facts of every split (`all` if the manifest has none).

    Raises:
        UserError: The folder is in use, too many shards, or unreadable images.
    """
    target = Path(output_dir).expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"{target} exists and is not empty; give a new folder")
    splits = {name: manifest.split(name) for name in manifest.splits} or {ALL: manifest}
    for name, part in splits.items():
        if not 1 <= num_shards <= len(part):
            raise UserError(f"{len(part)} images of split {name} do not fill {num_shards} shards")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        facts = {
            name: _write_split(part, manifest.class_names, temporary, name, num_shards)
            for name, part in splits.items()
        }
        content = {
            "format": _FORMAT,
            "class_names": manifest.class_names,
            "splits": {name: asdict(part) for name, part in facts.items()},
        }
        write_text(temporary / FACTS_FILE, json.dumps(content, indent=1, ensure_ascii=False))
        temporary.chmod(0o755)
        temporary.replace(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return facts


def _write_split(
    manifest: Manifest, class_names: tuple[str, ...], folder: Path, split: str, num_shards: int
) -> ShardFacts:
    facts = image_facts(manifest)
    files, labels = manifest.files(), manifest.label_indices(class_names)
    names = [f"{split}-{shard:05d}-of-{num_shards:05d}.tfrecord" for shard in range(num_shards)]
    order = np.random.default_rng(0).permutation(len(manifest))
    size = 0
    for name, part in zip(names, np.array_split(order, num_shards), strict=True):
        with tf.io.TFRecordWriter(str(folder / name)) as writer:
            for index in part:
                encoded = Path(files[index]).read_bytes()
                size += len(encoded)
                record = manifest.records[index]
                decoder = int(facts.survey.decoder[index])
                example = _example(encoded, record.path, int(labels[index]), record.label, decoder)
                writer.write(example.SerializeToString())
    decoders = tuple(np.unique(facts.survey.decoder).tolist())
    return ShardFacts(
        tuple(names), len(manifest), size, facts.channels, facts.bits, decoders, manifest.sha256()
    )


def _example(encoded: bytes, path: str, label: int, text: str, decoder: int) -> Any:
    def strings(value: bytes) -> Any:
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    def integer(value: int) -> Any:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    feature = {
        "image/encoded": strings(encoded),
        "image/filename": strings(path.encode()),
        "image/class/label": integer(label),
        "image/class/text": strings(text.encode()),
        "image/decoder": integer(decoder),
    }
    return tf.train.Example(features=tf.train.Features(feature=feature))


def read_facts(folder: str | os.PathLike[str]) -> tuple[tuple[str, ...], dict[str, ShardFacts]]:
    """Class names and the facts of every split of a sharded set.

    Raises:
        UserError: No such set, or one that another program wrote.
    """
    path = Path(folder).expanduser() / FACTS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no image shards in {path.parent}: {FACTS_FILE} is missing") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if content.get("format") != _FORMAT:
        raise UserError(f"{path} is of another format than {_FORMAT!r}")
    splits = {
        name: ShardFacts(**{key: _tuple(value) for key, value in part.items()})
        for name, part in content["splits"].items()
    }
    return tuple(content["class_names"]), splits


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
