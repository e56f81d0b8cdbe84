"""From data settings to the sources of a run: what is trained on, what is scored."""

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.open_images import find_set_limits, open_declared
from data_prep.manifest.read_options import Declaration, declaration_of
from data_prep.manifest.splits import labels_per_class, parse_ratios, stratified_split
from data_prep.names import clean_name
from data_prep.reading.training_files import TrainingFiles, look_at
from data_prep.sources.source import Source
from simclr_tf.config.run_config import RunConfig
from simclr_tf.config.sections import DataSettings

if TYPE_CHECKING:
    from data_prep.sources.streams import TFDSSource
    from simclr_tf.checkpoints.load import Checkpoint

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunData:
    """The images of a run, by split.

    Attributes:
        train: What is trained on.
        splits: Every split that can be scored, by name.
        manifest: Which image is in which split; None for sets that have no files of their own.
        reading: How the files become images, as the network's record should say.
        files: What the training files are like; None = not known.
    """

    train: Source
    splits: dict[str, Source]
    manifest: Manifest | None
    reading: Declaration = field(default_factory=Declaration)
    files: TrainingFiles | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes; empty without labels."""
        return self.train.class_names

    @property
    def channels(self) -> int:
        """Channels of every image."""
        return self.train.channels

    @property
    def identity(self) -> str:
        """Hash of what is trained on."""
        return self.train.identity

    def image_files(self) -> list[str]:
        """The files that the images lie in; none if they come from elsewhere."""
        if self.manifest is not None:
            return self.manifest.files()
        return [file for source in self.splits.values() for file in getattr(source, "files", ())]

    def evaluation(self, split: str) -> Source:
        """The source of a split.

        Raises:
            UserError: There is no such split.
        """
        if split not in self.splits:
            raise UserError(
                f"the data has only {', '.join(self.splits)}", setting="eval_split", value=split
            )
        return self.splits[split]


def open_data(config: RunConfig, teacher: "Checkpoint | None" = None) -> RunData:
    """Opens the images that the settings name.

    Args:
        config: `data` says where the images are; fine-tuning needs labels of two classes or more.
        teacher: The network whose classes a student learns; None without one.

    Returns:
        The sources.

    Raises:
        UserError: Folder, split, labels or number of classes are not as the settings say.
    """
    data = config.data
    if data.image_dir or data.manifest:
        opened = _open_manifest(config, read_manifest(data, config.reading), teacher)
    elif data.tfrecord_dir:
        opened = _open_tfrecords(data)
    else:
        opened = _open_tfds(data)
    if opened.manifest is None and config.reading.changes():
        log.warning(
            "images are read as they were written: %s not looked at",
            ", ".join(f"--{name}" for name in config.reading.changes()),
        )
    _check_classes(opened.class_names, config)
    if data.labels == "random":
        log.warning("labels are drawn at random, as a control: no accuracy below means anything")
    return opened


def read_manifest(data: DataSettings, declaration: Declaration | None = None) -> Manifest:
    """The images of a folder or a manifest, each in a split.

    Images without a split get a seeded, stratified one, which is logged.

    Args:
        data: Where the images are and how to split them.
        declaration: How files are read; None = as they say themselves.

    Returns:
        A manifest in which every record has a split, and every intensity rule its limits: those
        of the whole set are found over the training images.
    """
    manifest = open_declared(
        data.image_dir,
        data.manifest,
        declaration or Declaration(),
        skip_unreadable=data.skip_unreadable,
    )
    return with_splits(manifest, data)


def with_splits(manifest: Manifest, data: DataSettings) -> Manifest:
    """Gives images without a split a seeded one, and intensity rules of the set their limits.

    Args:
        manifest: The images.
        data: How to split them, and which split is trained on.
    """
    if not manifest.splits:
        manifest = stratified_split(manifest, parse_ratios(data.split_ratios), data.split_seed)
        log.info("the images come without a split; made one with seed %d", data.split_seed)
    log.info("%s", manifest.table())
    training = manifest.subset(r for r in manifest.records if r.split == data.train_split)
    return find_set_limits(manifest, training)


def _open_manifest(config: RunConfig, manifest: Manifest, teacher: "Checkpoint | None") -> RunData:
    from data_prep.sources.manifest_source import ManifestSource

    data = config.data
    if data.train_split not in manifest.splits:
        raise UserError(
            f"the data has only {', '.join(manifest.splits)}",
            setting="train_split",
            value=data.train_split,
        )
    channels: int | str = (
        data.image_channels if data.image_channels == "auto" else int(data.image_channels)
    )
    random = data.labels == "random"
    names = _class_names(config, manifest, teacher)

    # What a data service decodes cannot be kept in memory here.
    cache = "false" if data.data_service and data.cache_dataset == "auto" else data.cache_dataset

    def source(part: Manifest, channels: int | str) -> ManifestSource:
        return ManifestSource(part, names, channels, cache, _control(data))

    train_part = manifest.split(data.train_split)
    if config.train.train_mode == "finetune" and not random:
        train_part = _labeled(train_part, data)
    elif config.train.train_mode == "distill" and data.labels_per_class:
        train_part = _few_labels(train_part, data)
    train = source(train_part, channels)
    splits: dict[str, Source] = {
        name: train if name == data.train_split else source(manifest.split(name), train.channels)
        for name in manifest.splits
    }
    return RunData(train, splits, manifest, declaration_of(manifest), look_at(train_part))


def _class_names(
    config: RunConfig, manifest: Manifest, teacher: "Checkpoint | None"
) -> tuple[str, ...]:
    """The classes that labels are numbered by: a teacher's, or those of the images."""
    data, names = config.data, manifest.class_names
    if teacher is not None:
        return _taught_classes(config.distill.teacher, teacher, names)
    if data.labels == "random" and not names:
        return tuple(str(i) for i in range(data.num_of_classes))
    return names


def _taught_classes(path: str, teacher: "Checkpoint", names: tuple[str, ...]) -> tuple[str, ...]:
    """A teacher's classes; those of the images, or numbers, if it knows only how many they are."""
    classes = teacher.network.num_classes
    if not classes:
        raise UserError(
            "has no supervised head to learn from; give a fine-tuned network",
            setting="teacher",
            value=path,
        )
    taught = tuple(teacher.preprocessing.get("class_names", ()))
    if len(taught) != classes:
        taught = names if len(names) == classes else tuple(str(i) for i in range(classes))
    unknown = set(names) - {clean_name(name) for name in taught}
    if unknown:
        raise UserError(
            f"does not know the class {min(unknown)!r}; it knows {', '.join(taught[:12])}",
            setting="teacher",
            value=path,
        )
    return taught


def _few_labels(part: Manifest, data: DataSettings) -> Manifest:
    """All images, with only so many labels of each class left."""
    labeled = part.subset(r for r in part.records if r.label)
    kept = set(labels_per_class(labeled, data.labels_per_class, data.label_seed).records)
    return part.subset(r if r in kept else replace(r, label="") for r in part.records)


def _labeled(part: Manifest, data: DataSettings) -> Manifest:
    labeled = part.subset(r for r in part.records if r.label)
    if not len(labeled):
        raise UserError(
            "no training image has a label; use class folders",
            setting="train_mode",
            value="finetune",
        )
    if data.labels_per_class:
        return labels_per_class(labeled, data.labels_per_class, data.label_seed)
    return labeled


def _open_tfrecords(data: DataSettings) -> RunData:
    from data_prep.sources.streams import TFRecordSource
    from data_prep.sources.tfrecord import read_declaration, read_facts

    _, facts = read_facts(data.tfrecord_dir)
    if data.train_split not in facts:
        raise UserError(
            f"{data.tfrecord_dir} has only {', '.join(facts)}",
            setting="train_split",
            value=data.train_split,
        )
    labels = _control(data)
    splits: dict[str, Source] = {
        name: TFRecordSource(data.tfrecord_dir, name, channels=data.image_channels, labels=labels)
        for name in facts
    }
    return RunData(splits[data.train_split], splits, None, read_declaration(data.tfrecord_dir))


def _open_tfds(data: DataSettings) -> RunData:
    from data_prep.sources.streams import NotPreparedError, TFDSSource

    try:
        return _open_splits(data, TFDSSource)
    except NotPreparedError as error:
        unnamed = not data.data_dir and data.dataset == DataSettings().dataset
        if not unnamed or data.download:
            raise
        raise UserError(
            "no images were given: name them with --image_dir=FOLDER, --manifest=FILE or"
            " --tfrecord_dir=FOLDER, or a set of TensorFlow Datasets with --dataset=NAME (the"
            f" default: {error})"
        ) from None


def _open_splits(data: DataSettings, source: type["TFDSSource"]) -> RunData:
    splits: dict[str, Source] = {
        name: source(
            data.dataset,
            data.data_dir or None,
            name,
            channels=data.image_channels,
            labels=_control(data),
            download=data.download,
        )
        for name in dict.fromkeys((data.train_split, data.eval_split))
    }
    # Their own decoder knows nothing of EXIF.
    return RunData(splits[data.train_split], splits, None, Declaration(exif="ignore"))


def _control(data: DataSettings) -> Literal["given", "random"]:
    return "random" if data.labels == "random" else "given"


def _check_classes(class_names: tuple[str, ...], config: RunConfig) -> None:
    expected, found = config.data.num_of_classes, len(class_names)
    if expected and found and expected != found:
        raise UserError(
            f"the data has {found} classes "
            f"({', '.join(class_names[:12])}); correct the number or the folders",
            setting="num_of_classes",
            value=expected,
        )
    if config.train.train_mode == "finetune" and found < 2:
        have = f"only the class {class_names[0]!r}" if found else "no labels"
        raise UserError(
            f"the data has {have}; give two classes or more", setting="train_mode", value="finetune"
        )
