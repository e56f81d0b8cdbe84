"""Image sets as TFRecord shards: few large files instead of many small ones.

An image that is a file goes in byte for byte. An image that is only part of a file, or is made from
one by declared rules (a tile, a page, an array, an intensity rule), goes in finished, without loss:
otherwise a stack of a thousand pages would be stored a thousand times.

Shards are written at the same time by several threads. Until the last one is done they lie in a
hidden folder beside the output, each with a note of its checksum: a process that is killed loses
the shards it was at, and the same call goes on from there to the same bytes.
"""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.read_options import declaration_of
from data_prep.manifest.scan import ImageFacts, image_facts
from data_prep.reading.headers import Decoder
from data_prep.reading.images import encode_lossless, lossless_decoder, read_image
from data_prep.sources.tfrecord import ALL, FACTS_FILE, FORMAT, Shard, SplitFacts, read_facts
from data_prep.storage import (
    check_new_folder,
    file_sha256,
    is_complete,
    may_be_complete,
    partial_folder,
    write_text,
)

_LOGGER = logging.getLogger(__name__)

SHARD_MB = 128
"""Usual size of a shard: large enough that opening it costs nothing, small enough to copy."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Split:
    """A split and what every record of it needs."""

    manifest: Manifest
    files: list[str]
    labels: np.ndarray
    facts: ImageFacts
    stamps: np.ndarray  # size and time of change of every file, int64 [n, 2]
    made: np.ndarray  # whether a record is made from its file, bool [n]
    decoders: np.ndarray  # how records are decoded, int64 [n]


@dataclass(frozen=True)
class _Job:
    """A shard to write: which records of which split."""

    file: str
    split: _Split
    indices: np.ndarray


def write_shards(
    manifest: Manifest,
    output_dir: str | os.PathLike[str],
    num_shards: int = 0,
    *,
    shard_mb: float = SHARD_MB,
    workers: int = 0,
    progress: Progress = lambda done, total: None,
) -> dict[str, SplitFacts]:
    """Writes the images of a manifest as shards, whole or not at all.

    The records of a split are dealt out in a fixed mixed order, so that a shuffle buffer smaller
    than the set sees all classes. The bytes depend on the images and the shards asked for alone,
    not on the number of workers or on interruptions.

    Args:
        manifest: The images; each split gets shards of its own.
        output_dir: A folder that does not exist yet, or is empty.
        num_shards: Shards a split, no more than it has images; 0 = by size.
        shard_mb: With `num_shards` 0: about this many megabytes (10^6 bytes) a shard.
        workers: Shards written at the same time; 0 = one a processor, 8 at most.
        progress: Called with (images done, images in all).

    Returns:
        The facts of every split (`all` if the manifest has none).

    Raises:
        UserError: The folder is in use, too many shards, or unreadable images.
    """
    target = Path(output_dir).expanduser().absolute()
    if not may_be_complete(target):
        check_new_folder(target)  # before all images are looked at
    if num_shards < 0 or shard_mb <= 0:
        raise UserError(f"{num_shards} shards of {shard_mb:g} MB: must be above 0")
    splits = {name: manifest.split(name) for name in manifest.splits} or {ALL: manifest}
    for name, part in splits.items():
        if num_shards > len(part):
            raise UserError(f"{len(part)} images of split {name} do not fill {num_shards} shards")
    prepared = {name: _prepare(part, manifest.class_names) for name, part in splits.items()}
    jobs = {name: _jobs(name, part, num_shards, shard_mb) for name, part in prepared.items()}
    plan = _plan(prepared, jobs)
    if is_complete(target, plan):
        return read_facts(target)[1]
    with partial_folder(target, plan) as folder:
        every_job = [job for part in jobs.values() for job in part]
        shards = _write_all(folder, every_job, workers or min(8, os.cpu_count() or 1), progress)
        facts = {
            name: _facts(prepared[name], tuple(shards[job.file] for job in part))
            for name, part in jobs.items()
        }
        content = {
            "format": FORMAT,
            "class_names": manifest.class_names,
            "reading": _declared(manifest),
            "splits": {name: asdict(part) for name, part in facts.items()},
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_text(folder / FACTS_FILE, text)
    return facts


def _prepare(part: Manifest, class_names: tuple[str, ...]) -> _Split:
    # Read again together with the stamps: what is written lasts longer than this process.
    facts = image_facts(Manifest(part.records, part.root))
    files = part.files()
    stamps = [(status.st_size, status.st_mtime_ns) for status in map(os.stat, files)]
    labels = part.label_indices(class_names)
    survey = facts.survey
    made = np.array([bool(record.tile or record.reading) for record in part.records])
    made |= np.isin(survey.decoder, (Decoder.DECLARED, Decoder.JPEG_TILE))
    decoders = survey.decoder.astype(np.int64)
    for index in np.flatnonzero(made):
        decoders[index] = lossless_decoder(survey.channels[index], survey.bits[index])
    return _Split(part, files, labels, facts, np.array(stamps, np.int64), made, decoders)


def _sizes(split: _Split) -> np.ndarray:
    """About how many bytes every record takes, float64 [n]."""
    survey = split.facts.survey
    values = survey.height.astype(np.float64) * survey.width * survey.channels
    decoded = values * np.where(survey.bits == 8, 1, 4)
    return np.where(split.made, decoded, split.stamps[:, 0])


def _jobs(name: str, split: _Split, num_shards: int, shard_mb: float) -> list[_Job]:
    number = len(split.files)
    if not num_shards:
        wanted = round(_sizes(split).sum() / (shard_mb * 1e6))
        num_shards = min(max(1, wanted), number)
    order = np.random.default_rng(0).permutation(number)
    return [
        _Job(f"{name}-{shard:05d}-of-{num_shards:05d}.tfrecord", split, indices)
        for shard, indices in enumerate(np.array_split(order, num_shards))
    ]


def _plan(splits: dict[str, _Split], jobs: dict[str, list[_Job]]) -> str:
    """Hash of all that decides the bytes: work left half done under another plan is of no use."""
    digest = hashlib.sha256(FORMAT.encode())
    for name, split in splits.items():
        content = [[job.file for job in jobs[name]], split.files, split.labels.tolist()]
        digest.update(json.dumps(content).encode())
        digest.update(split.manifest.sha256().encode() + split.stamps.tobytes())
    return digest.hexdigest()


def _declared(manifest: Manifest) -> dict[str, Any] | None:
    """Returns the declaration that reads other files as these were; None if these differ."""
    try:
        return declaration_of(manifest).record()
    except UserError as error:
        _LOGGER.warning("no network can be trained on these shards to read new files: %s", error)
        return None


def _write_all(
    folder: Path, jobs: list[_Job], workers: int, progress: Progress
) -> dict[str, Shard]:
    """Writes the shards that are not there yet; file name -> shard."""
    (folder.parent / "notes").mkdir(exist_ok=True)
    finished = _finished(folder, jobs)
    if finished:
        _LOGGER.info("%d of %d shards are there already", len(finished), len(jobs))
    total = sum(len(job.indices) for job in jobs)
    done = sum(shard.num_examples for shard in finished.values())
    lock, stop = threading.Lock(), threading.Event()

    def count() -> None:
        nonlocal done
        if stop.is_set():
            raise InterruptedError
        with lock:
            done += 1
            progress(done, total)

    todo = [job for job in jobs if job.file not in finished]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(_write_shard, folder, job, count) for job in todo]
        try:
            for job, future in zip(todo, futures, strict=True):
                finished[job.file] = future.result()
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    return finished


def _finished(folder: Path, jobs: list[_Job]) -> dict[str, Shard]:
    """Shards that an interrupted call completed and whose bytes are still right."""
    found = {}
    for job in jobs:
        note, file = _note(folder, job), folder / job.file
        if note.exists() and file.exists():
            try:
                shard = Shard(**json.loads(note.read_text(encoding="utf-8")))
            except (ValueError, TypeError):
                continue  # a damaged note: the shard is written again
            if file_sha256(file) == shard.sha256:
                found[job.file] = shard
    for file in folder.iterdir():
        if file.name not in found:
            file.unlink()
    return found


def _note(folder: Path, job: _Job) -> Path:
    """Returns the path of the note that keeps a finished shard's checksum until all are done."""
    return folder.parent / "notes" / f"{job.file}.json"


def _write_shard(folder: Path, job: _Job, count: Callable[[], None]) -> Shard:
    part = folder.parent / f"{job.file}.part"
    made = _made_images(job)
    with tf.io.TFRecordWriter(str(part)) as writer:
        for index in map(int, job.indices):
            encoded = made.get(index) or _read(job.split.files[index])
            # Without this flag protobuf may order the features as it likes.
            example = _example(job.split, index, encoded)
            writer.write(example.SerializeToString(deterministic=True))
            count()
    with open(part, "rb") as stream:
        os.fsync(stream.fileno())
    shard = Shard(job.file, len(job.indices), part.stat().st_size, file_sha256(part))
    write_text(_note(folder, job), json.dumps(asdict(shard)))
    part.replace(folder / job.file)
    return shard


def _made_images(job: _Job) -> dict[int, bytes]:
    """Images of a shard that are made from files, file by file: index -> encoded image."""
    split = job.split
    chosen = [int(index) for index in job.indices if split.made[index]]
    records = split.manifest.records
    images = {}
    for index in sorted(chosen, key=lambda index: (split.files[index], index)):
        record = records[index]
        pixels = read_image(split.files[index], reading=record.reading, tile=record.tile)
        images[index] = encode_lossless(pixels)
    return images


def _example(split: _Split, index: int, encoded: bytes) -> Any:
    """One record: the image, and all that the manifest and the header say of it."""
    record, survey = split.manifest.records[index], split.facts.survey
    texts = {
        "image/encoded": encoded,
        "image/filename": record.path.encode(),
        "image/class/text": record.label.encode(),
    }
    for name in ("group", "case", "tile", "reading"):
        if getattr(record, name):
            texts[f"image/{name}"] = getattr(record, name).encode()
    if record.target:
        file = os.path.join(os.path.abspath(split.manifest.root), record.target)
        texts |= {
            "image/target/filename": record.target.encode(),
            "image/target/encoded": _read(file),
        }
    numbers = {
        "image/index": index,
        "image/class/label": int(split.labels[index]),
        "image/height": int(survey.height[index]),
        "image/width": int(survey.width[index]),
        "image/channels": int(survey.channels[index]),
        "image/decoder": int(split.decoders[index]),
    }
    feature = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in texts.items()
    } | {
        name: tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        for name, value in numbers.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=feature))


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None


def _facts(split: _Split, shards: tuple[Shard, ...]) -> SplitFacts:
    return SplitFacts(
        shards=shards,
        num_examples=len(split.files),
        encoded_bytes=sum(shard.num_bytes for shard in shards),
        channels=split.facts.channels,
        bits=split.facts.bits,
        decoders=tuple(np.unique(split.decoders).tolist()),
        sha256=split.manifest.sha256(),
    )
