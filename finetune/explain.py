"""Pictures for the report: feature maps and Grad-CAM.

Selvaraju et al. 2017, "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", equations 1 and 2.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from matplotlib.figure import Figure

from data_prep.augment.color import to_float
from data_prep.errors import UserError
from data_prep.manifest.identity import image_name, page_text
from data_prep.manifest.manifest import Manifest, Record
from data_prep.page import Picture, Section
from data_prep.sources.manifest_source import ManifestSource
from finetune.classifier import Classifier
from finetune.data import LabeledData
from finetune.inputs import ImageSteps
from finetune.keras_backbones import inputs_of, layer_of, trunk_of
from simclr_tf.evaluation.figures import WIDTH, bare_figure, plain, to_png

CHANNELS = 7
_NAME = 16  # letters of an image's name beside its row


def feature_maps(
    backbone: keras.Model, layers: Sequence[str], images: np.ndarray
) -> dict[str, np.ndarray]:
    """The outputs of layers, in inference mode.

    Args:
        backbone: From `build_backbone`.
        layers: Names of layers of the network of `keras.applications`.
        images: [n, S, S, channels] in [0, 1].

    Returns:
        Layer -> float32 [n, h, w, c].

    Raises:
        UserError: There is no such layer, or its output is no map.
    """
    trunk = trunk_of(backbone)
    outputs = [layer_of(trunk, name, "feature_maps").output for name in layers]
    for name, output in zip(layers, outputs, strict=True):
        if len(output.shape) != 4:
            raise UserError(
                "puts out no maps; name a layer before it", setting="feature_maps", value=name
            )
    found = keras.Model(trunk.input, outputs)(inputs_of(backbone)(images), training=False)
    found = found if isinstance(found, list) else [found]
    return {
        name: np.asarray(keras.ops.cast(maps, "float32"))
        for name, maps in zip(layers, found, strict=True)
    }


def liveliest(maps: np.ndarray, count: int = CHANNELS) -> np.ndarray:
    """Channels whose maps vary most over the images and within them; int [<= count], falling.

    Args:
        maps: [n, h, w, c].
        count: How many at most; channels that are constant do not count.
    """
    spread = maps.std(axis=(0, 1, 2), dtype=np.float64)
    order = np.argsort(-spread, kind="stable")[:count]
    return order[spread[order] > 0]


def feature_map_figure(
    images: np.ndarray, maps: np.ndarray, names: Sequence[str], *, title: str = ""
) -> Figure:
    """One row per image: the image, then its maps in the liveliest channels.

    A channel has one grey scale over all rows, so rows can be compared.

    Args:
        images: [n, H, W, C] in [0, 1], 1 or 3 channels.
        maps: [n, h, w, c] of one layer.
        names: Of the images, written below their rows.
        title: Of the figure.

    Returns:
        The figure.
    """
    channels = liveliest(maps)
    columns = 1 + max(len(channels), 1)
    cell = WIDTH / (1 + CHANNELS)
    figure = bare_figure(len(images) * (cell + 0.06) + (0.6 if title else 0.3), title)
    grid = figure.subplots(len(images), columns, squeeze=False)
    for row, image in enumerate(images):
        pictures = [(image.squeeze(), 0.0, 1.0)]
        for channel in channels:
            own = maps[..., channel]
            pictures.append((maps[row, ..., channel], float(own.min()), float(own.max())))
        for column, axes in enumerate(grid[row]):
            axes.set_xticks([])
            axes.set_yticks([])
            if column < len(pictures):
                pixels, low, high = pictures[column]
                axes.imshow(pixels, cmap="gray", vmin=low, vmax=high)
            else:
                axes.axis("off")
        grid[row, 0].set_ylabel(plain(names[row], _NAME), fontsize=6)
    grid[0, 0].set_title("image", fontsize=8)
    for column, channel in enumerate(channels, 1):
        grid[0, column].set_title(f"channel {channel}", fontsize=8)
    if not len(channels):
        grid[0, 1].text(0.5, 0.5, "constant", ha="center", va="center", fontsize=8)
    return figure


Watched = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]

_OPACITY = 0.5
_MOST_COLUMNS = 4
_LONGEST = 22  # letters of a line above a picture


def grad_cam(
    watched: Watched, images: np.ndarray, classes: Sequence[int] | np.ndarray
) -> np.ndarray:
    """Heat maps of the evidence for one class in every image.

    Args:
        watched: Images [n, H, W, C] -> feature maps [n, h, w, c] and the logits [n, K] computed
            from them, in inference mode.
        images: [n, H, W, C] as the network takes them.
        classes: Of every image the class asked about, int [n].

    Returns:
        float32 [n, H, W] in [0, 1], each map divided by its maximum; all 0 where nothing speaks
        for the class.
    """
    shown = tf.convert_to_tensor(images, tf.float32)
    with tf.GradientTape() as tape:
        # Frozen layers are not recorded unless something before them is watched.
        tape.watch(shown)
        maps, logits = watched(shown)
        asked = tf.gather(logits, tf.constant(classes, tf.int64), axis=1, batch_dims=1)
    gradient = tape.gradient(asked, maps)
    weights = tf.reduce_mean(gradient, axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1, keepdims=True))
    heat = tf.image.resize(tf.cast(heat, tf.float32), shown.shape[1:3])[..., 0]
    highest = tf.reduce_max(heat, axis=(1, 2), keepdims=True)
    return tf.math.divide_no_nan(heat, highest).numpy()


def overlay_figure(images: np.ndarray, heat: np.ndarray, titles: Sequence[str]) -> Figure:
    """Every image, and beside it the image under its heat map.

    Args:
        images: [n, H, W, C] in [0, 1], 1 or 3 channels.
        heat: [n, H, W] in [0, 1], from `grad_cam`.
        titles: A few lines above each pair.

    Returns:
        The figure.
    """
    pairs = min(_MOST_COLUMNS // 2, len(images))
    rows = -(-len(images) // pairs)
    lines = max(title.count("\n") + 1 for title in titles)
    figure = bare_figure(rows * (WIDTH / 4 + 0.15 * lines + 0.1) + 0.1)
    figure.set_layout_engine("constrained", h_pad=0.06)
    grid = figure.subplots(rows, 2 * pairs, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for index, (image, map_, title) in enumerate(zip(images, heat, titles, strict=True)):
        row, column = divmod(index, pairs)
        left, right = grid[row, 2 * column : 2 * column + 2]
        for axes in (left, right):
            axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=1)
        right.imshow(map_, cmap="inferno", alpha=_OPACITY, vmin=0, vmax=1)
        text = "\n".join(plain(line, 2 * _LONGEST) for line in title.split("\n"))
        left.set_title(text, fontsize=8, loc="left")
    return figure


log = logging.getLogger(__name__)

_DPI = 200
_MOST = 24
_HELD_OUT = ("test", "validation")


@dataclass(frozen=True)
class ExplainedImages:
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
            raise UserError(
                "puts out no feature maps; name a layer before it", setting=flag, value=name
            )


def choose_images(asked: str, data: LabeledData, flag: str) -> Manifest:
    """The images that a flag names.

    Args:
        asked: A number of held-out images (of test, or else validation, from each class in turn),
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
            raise UserError(f"there is no image {text}; give a number or paths", setting=flag)
        chosen += records or [Record(path)]
    if len(chosen) > _MOST:
        raise UserError(f"names {len(chosen)} images; {_MOST} fit", setting=flag)
    return data.manifest.subset(chosen)


def _some(data: LabeledData, count: int) -> list[Record]:
    """Held-out images: the first of every class, the second, ..."""
    split = next((s for s in _HELD_OUT if s in data.sources), data.train_split)
    records = data.manifest.split(split).records
    seen: dict[str, int] = {}
    ranked = []
    for position, record in enumerate(records):
        seen[record.label] = seen.get(record.label, 0) + 1
        ranked.append((seen[record.label], position))
    return [records[position] for _, position in sorted(ranked)[:count]]


def read_shown(chosen: Manifest, data: LabeledData, steps: ImageSteps) -> ExplainedImages:
    """Reads images as they are scored."""
    source = ManifestSource(chosen, data.class_names, data.channels, cache="false")
    elements = source.elements(seed=0, shuffle=False, start=0, batch_size=1)
    images = [to_float(steps.scored(source.decode(element))).numpy() for element in elements]
    records = chosen.records
    return ExplainedImages(
        np.clip(np.stack(images), 0, 1),
        tuple(
            image_name(Path(record.path).name, record.reading, record.tile) for record in records
        ),
        tuple(record.label for record in records),
    )


def watched_classifier(model: Classifier, layer: str = "") -> tuple[Watched, str]:
    """Prepares a classifier on a backbone of `keras.applications` for Grad-CAM.

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
    model: Classifier, layers: Sequence[str], shown: ExplainedImages
) -> Iterator[tuple[str, Figure]]:
    """Figures of feature maps, one per layer."""
    for name, maps in feature_maps(model.backbone, layers, shown.images).items():
        sizes = f"{name}: {maps.shape[3]} maps of {maps.shape[1]} x {maps.shape[2]}"
        yield name, feature_map_figure(shown.images, maps, shown.names, title=sizes)


def grad_cam_picture(
    model: Classifier, layer: str, shown: ExplainedImages, class_names: Sequence[str]
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
    maps: tuple[Sequence[str], ExplainedImages] | None,
    cam: tuple[str, ExplainedImages] | None,
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
