"""Draws the README's picture from a finished `make demo`: images, features, few labels, numbers.

python benchmarks/overview_picture.py --demo=demo --output=docs/images/overview.png
"""

import argparse
import io
import json
from pathlib import Path

import numpy as np
import tensorflow as tf
from matplotlib.axes import Axes
from PIL import Image

from data_prep.augment.views import ViewConfig, evaluation_image
from data_prep.manifest.manifest import Manifest
from data_prep.reading.images import read_image
from finetune.compare.strategies import PRETRAINED_OR_NOT
from simclr_tf.checkpoints.load import load_encoder
from simclr_tf.evaluation.figures import (
    COLORS,
    GRAY,
    bare_figure,
    draw_classes,
    project_2d,
    to_png,
)

_BARS = {
    PRETRAINED_OR_NOT["untrained:probe"]: ("untrained features", GRAY),
    PRETRAINED_OR_NOT["scratch:full"]: ("from scratch,\nas many steps", COLORS[1]),
    PRETRAINED_OR_NOT["simclr:full"]: ("pretrained,\nfine-tuned", COLORS[0]),
}
_SHOWN = 5  # images a side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--output", type=Path, default=Path("docs/images/overview.png"))
    arguments = parser.parse_args()
    figure = bare_figure(2.7, width=10)
    axes = figure.subplots(1, 3, width_ratios=[1, 1.15, 1.25])
    manifest = Manifest.load(arguments.demo / "comparison" / "division" / "images.csv")
    draw_images(axes[0], manifest)
    draw_features(axes[1], manifest, arguments.demo / "comparison" / "encoders" / "simclr")
    draw_accuracy(axes[2], json.loads((arguments.demo / "result.json").read_text()))
    picture = Image.open(io.BytesIO(to_png(figure, dpi=110)))
    picture.convert("RGB").quantize(200, Image.Quantize.MAXCOVERAGE).save(
        arguments.output, optimize=True
    )


def draw_images(axes: Axes, manifest: Manifest) -> None:
    """Some training images, as the network gets them."""
    train = manifest.split("train").files()
    step = len(train) // _SHOWN**2
    files = train[::step][: _SHOWN**2]
    tiles = [np.pad(read_image(file, 1)[..., 0], 2, constant_values=255) for file in files]
    rows = [np.hstack(tiles[i : i + _SHOWN]) for i in range(0, len(tiles), _SHOWN)]
    axes.imshow(np.vstack(rows), cmap="gray")
    axes.set_axis_off()
    axes.set_title(f"1  {len(train):,} images without labels", fontsize=10)


def draw_features(axes: Axes, manifest: Manifest, run: Path) -> None:
    """Features of the test images, coloured by the class, which pretraining was not told."""
    encoder, pool = load_encoder(run), manifest.split("test")
    facts = encoder.preprocessing
    views = ViewConfig(facts["image_size"], facts["channels"])
    images = [evaluation_image(read_image(file, facts["channels"]), views) for file in pool.files()]
    features = encoder(tf.image.convert_image_dtype(tf.stack(images), tf.float32)).numpy()
    names = sorted({record.label for record in pool.records})
    labels = np.array([names.index(record.label) for record in pool.records])
    draw_classes(axes, project_2d(features, "tsne"), labels, names, size=9)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"2  pretrained: features (t-SNE, {len(names)} classes)", fontsize=10)


def draw_accuracy(axes: Axes, result: dict) -> None:
    """Test accuracy with few labels, with its intervals."""
    accuracy = result["test_accuracy"]
    names = {name: next(key for key in accuracy if key.startswith(f"{name}, 5 ")) for name in _BARS}
    for row, (name, (_, color)) in enumerate(_BARS.items()):
        value, low, high = accuracy[names[name]]
        axes.barh(row, value, height=0.62, color=color)
        ends = [[value - low], [high - value]]
        axes.errorbar(value, row, xerr=ends, color="black", capsize=3, linewidth=1.1)
        axes.text(high + 0.025, row, f"{value:.1%}", va="center", fontsize=9)
    axes.set_yticks(range(len(_BARS)), [label for label, _ in _BARS.values()], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.set_xticks([0, 0.5, 1], ["0 %", "50 %", "100 %"], fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    images = result["images"]["test"]
    axes.set_title(f"3  5 labels a class: accuracy on {images} test images", fontsize=10)


if __name__ == "__main__":
    main()
