"""Pictures of what a trained classifier sees, for the report: feature maps and Grad-CAM."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from matplotlib.figure import Figure

from data_prep.augment.photometry import to_float
from data_prep.errors import UserError
from data_prep.manifest.identity import image_name, page_text
from data_prep.manifest.manifest import Manifest, Record
from data_prep.page import Picture, Section
from data_prep.sources.manifest_source import ManifestSource
from finetune.classifier import Classifier
from finetune.data import LabelledData
from finetune.feature_maps import feature_map_figure, feature_maps
from finetune.grad_cam import Watched, grad_cam, overlay_figure
from finetune.inputs import ImageSteps
from finetune.keras_backbones import inputs_of, layer_of, trunk_of
from simclr_tf.evaluation.drawing import WIDTH, to_png

log = logging.getLogger(__name__)

_DPI = 200
_MOST = 24
_HELD_OUT = ("test", "validation")


@dataclass(frozen=True)
class Shown:
    """Images to look at.

    Attributes:
        images: float32 [n, S, S, C] in [0, 1], as they are scored.
        names: File names, with page and tile.
        labels: Class names, "" = not known.
    """

    images: np.ndarray
    names: tuple[str, ...]
    labels: tuple[str, ...]


def check_layers(backbone: keras.Model, layers: Sequence[str], flag: str) -> None:
    """Raises UserError for a layer that is not there or puts out no feature maps."""
    for name in layers:
        if len(layer_of(trunk_of(backbone), name, flag).output.shape) != 4:
            raise UserError(f"--{flag}={name}: puts out no feature maps; name a layer before it")


def choose_images(asked: str, data: LabelledData, flag: str) -> Manifest:
    """The images that a flag names.

    Args:
        asked: A number of held-out images (of test, or else validation, a class after the other),
            or paths: of the data, as a manifest has them, or of any image file. A file that gives
            several images stands for all of them; `FILE:PAGE` for one of its pages.
        data: The images of the run.
        flag: For the message.

    Raises:
        UserError: No such image, or too many.
    """
    if asked.isdigit():
        records = _some(data, min(int(asked), _MOST))
        return data.manifest.subset(records)
    known: dict[str, list[Record]] = defaultdict(list)
    for record, file in zip(data.manifest.records, data.manifest.files(), strict=True):
        for name in {record.path, file}:
            known[name].append(record)
            if page := page_text(record.reading):
                known[f"{name}:{page}"].append(record)
    chosen: list[Record] = []
    for text in (part.strip() for part in asked.split(",") if part.strip()):
        path = str(Path(text).absolute())
        records = known.get(text) or known.get(path, [])
        if not records and not Path(text).is_file():
            raise UserError(f"--{flag}: there is no image {text}; give a number or paths")
        chosen += records or [Record(path)]
    if len(chosen) > _MOST:
        raise UserError(f"--{flag}: names {len(chosen)} images; {_MOST} fit")
    return data.manifest.subset(chosen)


def _some(data: LabelledData, count: int) -> list[Record]:
    """Held-out images: the first of every class, the second, ..."""
    split = next((s for s in _HELD_OUT if s in data.sources), data.train_split)
    records = data.manifest.split(split).records
    seen: dict[str, int] = {}
    ranked = []
    for position, record in enumerate(records):
        seen[record.label] = seen.get(record.label, 0) + 1
        ranked.append((seen[record.label], position))
    return [records[position] for _, position in sorted(ranked)[:count]]


def read_shown(chosen: Manifest, data: LabelledData, steps: ImageSteps) -> Shown:
    """Reads images as they are scored."""
    source = ManifestSource(chosen, data.class_names, data.channels, cache="false")
    elements = source.elements(seed=0, shuffle=False, start=0, batch_size=1)
    images = [to_float(steps.scored(source.decode(element))).numpy() for element in elements]
    records = chosen.records
    return Shown(
        np.clip(np.stack(images), 0, 1),
        tuple(
            image_name(Path(record.path).name, record.reading, record.tile) for record in records
        ),
        tuple(record.label for record in records),
    )


def watched_classifier(model: Classifier, layer: str = "") -> tuple[Watched, str]:
    """What Grad-CAM needs of a classifier on a backbone of `keras.applications`.

    Args:
        model: The classifier.
        layer: Of its network; empty = the last one that is no pooling.

    Returns:
        Images in [0, 1] -> maps and logits; and the layer's name.
    """
    trunk = trunk_of(model.backbone)
    inner = layer_of(trunk, layer, "grad_cam_layer") if layer else _last_maps(trunk)
    both = keras.Model(trunk.input, [inner.output, trunk.output])
    pool = model.backbone.layers[-1]

    def watched(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        maps, out = both(inputs_of(model.backbone)(images), training=False)
        return maps, model.head(pool(out), training=False)

    return watched, inner.name


def _last_maps(trunk: keras.Model) -> keras.layers.Layer:
    maps = [layer for layer in trunk.layers if len(layer.output.shape) == 4]
    return next((m for m in reversed(maps) if "pool" not in type(m).__name__.lower()), maps[-1])


def feature_map_pictures(
    model: Classifier, layers: Sequence[str], shown: Shown
) -> Iterator[tuple[str, Figure]]:
    """A figure a layer."""
    for name, maps in feature_maps(model.backbone, layers, shown.images).items():
        sizes = f"{name}: {maps.shape[3]} maps of {maps.shape[1]} x {maps.shape[2]}"
        yield name, feature_map_figure(shown.images, maps, shown.names, title=sizes)


def grad_cam_picture(
    model: Classifier, layer: str, shown: Shown, class_names: Sequence[str]
) -> tuple[str, Figure]:
    """The layer's name, and a figure with the evidence for the predicted class of every image."""
    watched, name = watched_classifier(model, layer)
    scores = np.asarray(model(shown.images, training=False))
    predicted = scores.argmax(axis=1)
    heat = grad_cam(watched, shown.images, predicted)
    titles = []
    for i, winner in enumerate(predicted):
        said = f"predicted {class_names[winner]}, {scores[i, winner]:.2f}"
        true = f"true {shown.labels[i]}" if shown.labels[i] else "true class not known"
        titles.append(f"{shown.names[i]}\n{true}\n{said}")
    return name, overlay_figure(shown.images, heat, titles)


def write_pictures(
    model: Classifier,
    folder: Path,
    *,
    maps: tuple[Sequence[str], Shown] | None,
    cam: tuple[str, Shown] | None,
) -> tuple[Section, ...]:
    """Draws what is asked for, each as a PNG in the folder and in a section of the report.

    Args:
        model: The trained classifier, in float32.
        folder: Where `feature_maps_LAYER.png` and `grad_cam.png` go.
        maps: Layers and images of feature maps; None = none.
        cam: Layer ("" = the last) and images of Grad-CAM; None = none.
    """
    sections = []
    if cam:
        name, figure = grad_cam_picture(model, *cam, model.class_names)
        picture = _saved(figure, folder / "grad_cam.png")
        text = (
            f"Grad-CAM (Selvaraju et al. 2017) at layer {name}: the brighter a place, the more it "
            "speaks for the predicted class; each picture has its own scale. It tells where the "
            "network looks, not whether it is right."
        )
        sections.append(Section("Where the evidence lies", (text,), pictures=(picture,)))
    if maps:
        pictures = tuple(
            _saved(figure, folder / f"feature_maps_{name}.png")
            for name, figure in feature_map_pictures(model, *maps)
        )
        text = (
            "Each row is an image, then the maps that vary most; a channel has one grey scale over "
            "all rows."
        )
        sections.append(Section("Feature maps", (text,), pictures=pictures))
    return tuple(sections)


def _saved(figure: Figure, file: Path) -> Picture:
    data = to_png(figure, dpi=_DPI)
    temporary = file.with_name(f".{file.name}")
    temporary.write_bytes(data)
    temporary.replace(file)
    log.info("drew %s", file)
    return Picture(data, width=round(96 * WIDTH), least=520)
