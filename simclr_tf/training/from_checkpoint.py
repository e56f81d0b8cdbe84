"""Settings, checks and facts that a run takes from the checkpoint that it starts from."""

import logging
import os
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.augment.views import SMALL_IMAGE
from data_prep.errors import UserError, setting_renamed
from data_prep.manifest.identity import ALL_AS_CHANNELS, Picture, shares_file
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.read_options import READING_FIELDS
from data_prep.phrases import counted
from data_prep.reading.training_files import TrainingReading
from data_prep.storage import file_sha256, read_object
from simclr_tf.checkpoints.find import locate
from simclr_tf.checkpoints.identify import IdentifiedNetwork
from simclr_tf.checkpoints.load import Checkpoint, Checkpoints
from simclr_tf.checkpoints.preprocessing import Preprocessing
from simclr_tf.config.run_config import RunConfig
from simclr_tf.models.architectures import RESNET, ResNetArchitecture, normalize_backbone_name
from simclr_tf.training.run_dir import RunDir
from simclr_tf.training.run_warnings import ALARM, RunWarning, warn

log = logging.getLogger(__name__)


_STARTS = ("checkpoint", "encoder", "teacher")  # settings that name where weights come from
_LEVELS = 4  # run/saved_model/STEP/variables/variables


def warn_of_leaks(checkpoint: Checkpoint, manifest: Manifest, train_split: str) -> None:
    """Warns if images to be scored were trained on by the run that the weights come from."""
    for text in seen_before(checkpoint, manifest, train_split):
        warn(log, RunWarning(0, ALARM, text))


def seen_before(checkpoint: Checkpoint, manifest: Manifest, train_split: str) -> tuple[str, ...]:
    """Finds images to be scored that the run of the checkpoint was trained on.

    Args:
        checkpoint: Where the weights come from; its folder may tell of its run.
        manifest: The images of the new run.
        train_split: The split that it trains on.

    Returns:
        A sentence for each split that holds such images.
    """
    return seen_by(checkpoint.stored.path, manifest, train_split)


def seen_by(weights: str, manifest: Manifest, train_split: str = "train") -> tuple[str, ...]:
    """Finds images to be scored that the run of a file of weights was trained on.

    The runs that this run itself took weights from count too, and so do copies of their images
    under other names.

    Args:
        weights: File or prefix of the weights; its folder may tell of its run.
        manifest: The images that are to be used, in splits.
        train_split: The split whose images are learned from.

    Returns:
        A sentence for each split that holds such images.
    """
    told: dict[str, str] = {}
    for path in _ancestors(weights):
        if len(told) == len(set(manifest.splits) - {train_split}):
            break
        trained_on = _trained_on(_folder(path))
        if trained_on is None:
            continue
        for name in manifest.splits:
            if name == train_split or name in told:
                continue
            images = manifest.split(name)
            pictures = images.pictures()
            seen = {p for p, was in zip(pictures, _seen(trained_on, images), strict=True) if was}
            if seen:
                total = counted(len(set(pictures)), f"{name} image".strip())
                were = "was a training image" if len(seen) == 1 else "were training images"
                told[name] = f"{len(seen)} of {total} {were} of {path}: scores on them are too good"
    return tuple(told[name] for name in manifest.splits if name in told)


def _ancestors(weights: str) -> Iterator[str]:
    """Yields the weights, and those that their runs began with or learned from, nearest first."""
    todo, known = [weights], {os.path.realpath(weights)}
    while todo:
        path = todo.pop(0)
        yield path
        config = _settings(RunDir(_folder(path)))
        for name in _STARTS:
            before = next((part[name] for part in config.values() if part.get(name)), "")
            try:
                found = locate(str(before)).path if before else ""
            except UserError:
                found = str(before)  # gone since; its folder may still tell
            if found and os.path.realpath(found) not in known:
                known.add(os.path.realpath(found))
                todo.append(found)


def _folder(weights: str) -> Path:
    """The folder of the run that weights belong to: the nearest above that holds one."""
    near = list(Path(weights).parents)[:_LEVELS]
    return next((folder for folder in near if RunDir(folder).config_file.exists()), near[0])


def _settings(run: RunDir) -> dict[str, dict[str, Any]]:
    """The settings of a run by topic; nothing where there are none to be read."""
    try:
        found = read_object(run.config_file)
    except (UserError, OSError):
        return {}
    return {topic: part for topic, part in found.items() if isinstance(part, dict)}


def _trained_on(folder: Path) -> Manifest | None:
    run = RunDir(folder)
    if not (run.manifest_file.exists() and run.config_file.exists()):
        return None
    try:
        # Runs of all commands name the split alike; their other settings do not matter here.
        split = read_object(run.config_file)["data"]["train_split"]
        if fault := run.checksums.fault(run.manifest_file.name):
            raise UserError(f"{run.manifest_file} is damaged: it {fault}")
        return Manifest.load(run.manifest_file).split(split)
    except (UserError, KeyError, TypeError) as error:
        log.warning("%s: which images that run was trained on is not known", error)
        return None


def _seen(trained_on: Manifest, images: Manifest) -> list[bool]:
    """Marks the images that were trained on, or are copies of such images."""
    known = _Pictures(trained_on)
    seen = [picture in known for picture in images.pictures()]
    if not all(seen):
        copies = _copies(trained_on, images)
        seen = [a or b for a, b in zip(seen, copies, strict=True)]
    return seen


def _copies(trained_on: Manifest, images: Manifest) -> list[bool]:
    """Marks the images whose whole file has the content of one that was trained on."""
    known: dict[int, list[str]] = defaultdict(list)
    noted: set[str] = set()
    for record, file in zip(trained_on.records, trained_on.files(), strict=True):
        if shares_file(record.reading, record.tile):
            continue
        if record.sha256:
            noted.add(record.sha256)
        elif os.path.isfile(file):
            known[os.path.getsize(file)].append(file)
    digests = {size: set(map(file_sha256, files)) for size, files in _needed(known, images)}
    found = []
    for record, file in zip(images.records, images.files(), strict=True):
        whole = not shares_file(record.reading, record.tile) and os.path.isfile(file)
        same_size = digests.get(os.path.getsize(file), set()) if whole else set()
        if not whole or not (noted or same_size):
            found.append(False)
            continue
        digest = record.sha256 or file_sha256(file)
        found.append(digest in noted or digest in same_size)
    return found


def _needed(
    known: Mapping[int, Sequence[str]], images: Manifest
) -> Iterator[tuple[int, Sequence[str]]]:
    """The known files by size; only sizes that some image has, as no other can be its copy."""
    sizes = {os.path.getsize(file) for file in images.files() if os.path.isfile(file)}
    return ((size, files) for size, files in known.items() if size in sizes)


class _Pictures:
    """The pictures of a manifest, wherever links lead to them.

    An array without a name matches each array of its file, and all pages as channels each page.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._parts: dict[str, set[tuple[str, int]]] = {}
        for picture in manifest.pictures():
            self._parts.setdefault(os.path.realpath(picture.file), set()).add(picture[1:])

    def __contains__(self, picture: Picture) -> bool:
        known = self._parts.get(os.path.realpath(picture.file), set())
        return any(
            (array == picture.array or not (array and picture.array))
            and (page == picture.page or ALL_AS_CHANNELS in (page, picture.page))
            for array, page in known
        )


def network_facts(network: IdentifiedNetwork) -> dict[str, Any]:
    """Description of a network, by the names of the flags that set it.

    Returns:
        `backbone` and what goes with it (`resnet_depth`, `width_multiplier`, `sk_ratio`,
        `se_ratio`, `stem` of a ResNet); what the projection head is, if there is one; and
        `num_of_classes`, 0 without a supervised head.
    """
    a, p = network.architecture, network.projection
    facts: dict[str, Any]
    if isinstance(a, ResNetArchitecture):
        facts = {
            "backbone": RESNET,
            "resnet_depth": a.depth,
            "width_multiplier": a.width_multiplier,
            "sk_ratio": a.sk_ratio,
            "se_ratio": a.se_ratio,
            "stem": "cifar" if a.cifar_stem else "imagenet",
        }
    else:
        facts = a.facts()
    facts["num_of_classes"] = network.num_classes or 0
    if p.depth:
        facts |= {
            "proj_head_mode": p.mode,
            "proj_out_dim": p.out_dim,
            "num_proj_layers": p.num_layers,
        }
    return facts


def refuse_contradictions(checkpoint: Checkpoint, given: Mapping[str, Any]) -> None:
    """Refuses flags that contradict the checkpoint.

    Args:
        checkpoint: The opened checkpoint.
        given: Values by flag.

    Raises:
        UserError: Says both what was given and what the checkpoint is.
    """
    wrong = list(_contradictions(network_facts(checkpoint.network), given))
    if wrong:
        raise UserError(
            f"is {checkpoint.network.name}, but "
            f"{'; '.join(wrong)}; leave the flag out or correct it",
            setting="checkpoint",
            value=checkpoint.stored.path,
        )


def _contradictions(facts: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[str]:
    for name, asked in given.items():
        value = normalize_backbone_name(asked) if name == "backbone" else asked
        # One ratio of selective kernels is like another where blocks have none (ResNet-18, 34).
        alike = name == "sk_ratio" and bool(value) == bool(facts.get(name)) and (
            facts.get("resnet_depth") in (18, 34)
        )  # fmt: skip
        if name in facts and value != facts[name] and not alike:
            yield f"you asked for --{name}={value} and it has {facts[name]}"


_BACKBONE = (
    "backbone",
    "resnet_depth",
    "width_multiplier",
    "sk_ratio",
    "se_ratio",
    "stem",
    "patch_size",
    "transformer_depth",
)
_PROJECTION = ("proj_head_mode", "proj_out_dim", "num_proj_layers")
_IMAGES = ("image_size", "central_crop", "whole_image")


@dataclass(frozen=True)
class Origins:
    """The networks that a run takes from, each opened once.

    Attributes:
        start: Of `--checkpoint`, whose weights the run starts from; None for fresh weights.
        teacher: Of `--teacher`, whose answers the run learns; None without one.
    """

    start: Checkpoint | None = None
    teacher: Checkpoint | None = None


def open_origins(config: RunConfig, opened: Checkpoints | None = None) -> Origins:
    """Opens the networks that the settings of a run name.

    Args:
        config: The settings.
        opened: Checkpoints that were opened before; None = none were.

    Raises:
        UserError: There is no such checkpoint.
    """
    opened = opened or Checkpoints()
    start, teacher = config.start.checkpoint, config.distill.teacher
    first = opened.open(start, ema=config.start.ema) if start else None
    with setting_renamed(checkpoint="teacher"):
        return Origins(first, opened.open(teacher) if teacher else None)


def adopt_checkpoint(
    config: RunConfig, given: Collection[str], origins: Origins | None = None
) -> RunConfig:
    """Completes the settings of a run that starts from a checkpoint, or learns from a teacher.

    Network, image size, central crop and the way files are read (tiles excepted) are those of
    `--checkpoint`; without one, of `--teacher`.

    Args:
        config: The settings, defaults where nothing was given.
        given: Names of the settings that were given.
        origins: The networks, opened; None = they are opened here.

    Returns:
        The completed settings.

    Raises:
        UserError: There is no such checkpoint, or what was given contradicts it.
    """
    origins = origins or open_origins(config)
    checkpoint = origins.start or origins.teacher
    if checkpoint is None:
        return config
    values = config.values()
    given = {name for name in given if name != "stem" or values["stem"] != "auto"}
    known: dict[str, Any] = network_facts(checkpoint.network)
    if config.start.checkpoint:
        refuse_contradictions(checkpoint, {n: values[n] for n in _BACKBONE if n in given})
    if "backbone" in given and normalize_backbone_name(values["backbone"]) != known.get("backbone"):
        # A student of another kind than its teacher.
        known = {name: value for name, value in known.items() if name not in _BACKBONE}
    known |= Preprocessing.known_settings(checkpoint.preprocessing)
    size = values["image_size"] if "image_size" in given else known.get("image_size", 0)
    if values["stem"] == "auto" and (size <= SMALL_IMAGE) == (known.get("stem") == "cifar"):
        known.pop("stem", None)  # as auto has it
    adopted = {
        name: known[name]
        for name in (*_BACKBONE, *_PROJECTION, *_IMAGES, *READING_FIELDS)
        if name in known and name not in given and known[name] != values[name]
    }
    if adopted:
        said = ", ".join(f"--{name}={value}" for name, value in adopted.items())
        log.info("from %s: %s", checkpoint.stored.path, said)
    _say_other_reading(values, known, given)
    say_exif(checkpoint.preprocessing, values["exif"])
    return RunConfig.from_values({**values, **adopted})


def say_exif(record: Mapping[str, Any], exif: str) -> None:
    """Logs if images are turned upright for a network that has seen them as stored.

    Args:
        record: How the network to start from saw images.
        exif: What the new run does.
    """
    if exif == "apply" and TrainingReading.from_record(record).declaration.exif == "ignore":
        log.info(
            "the network to start from has seen photographs as stored; here they are turned"
            " upright (--exif=ignore leaves them as they are)"
        )


def _say_other_reading(
    values: dict[str, Any], known: dict[str, Any], given: Collection[str]
) -> None:
    for name in ("intensity", "nan"):
        if name in given and name in known and values[name] != known[name]:
            log.warning(
                "--%s=%s: the network has seen images read with %s",
                name,
                values[name],
                known[name],
            )
