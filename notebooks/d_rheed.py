# %% [markdown]
# # D. RHEED: four methods, looked at through their embeddings
#
# Over a thousand diffraction images and no labels: what do they show, and which way of learning sees it? Four self-supervised
# methods (SimCLR, MoCo, SwAV, BYOL) are trained on one split by one call and measured against the floor, a network that was not
# trained. Then one is looked at: scatter, neighbours, and the labels an expert gives afterwards.
#
# The mistakes this avoids: methods compared by one pretty scatter; nobody asking what an untrained network would give; features
# without file names, so experts' labels could not be joined; dark images fed as they are.

# %%
import importlib.util
import os
import sys

if "google.colab" in sys.modules:
    source = os.environ.get("SIMCLR_TF_INSTALL") or "simclr-tf"  # a wheel or a URL; else the index
    # %pip install --quiet "{source}"
    importlib.invalidate_caches()
    if importlib.util.find_spec("simclr_tf") is None:
        print(
            "Not installed: set SIMCLR_TF_INSTALL to the wheel of simclr-tf or its URL, run again."
        )

# %% [markdown]
# ## Settings
#
# Environment variables; what is set before keeps its value. Everything is written below `WORK`. Where
# `SIMCLR_TF_DATA` names a folder with the set `rheed_si111` (40 real patterns of Si(111), for show: too few to measure anything), these images
# are taken; else patterns are computed.

# %% tags=["parameters"]
import os
import tempfile
from pathlib import Path


def setting(name, default):
    """The environment variable of a name, of the default's type; it becomes the default if it is not set."""
    return type(default)(os.environ.setdefault(name, str(default)))


METHODS = setting("METHODS", "simclr,moco,swav,byol")
STEPS = setting("STEPS", 250)  # updates of each run
UNTRAINED = setting("UNTRAINED", "true")  # also the floor: the network without training
IMAGES_PER_CLASS = setting("IMAGES_PER_CLASS", 40)
PATTERNS = setting("PATTERNS", "spots,streaks,rings,1x1,2x2,root3")  # kinds that are made
SIZE = setting("SIZE", 48)  # side of the network's input, in pixels; published: 128
BACKBONE = setting("BACKBONE", "resnet")  # a ResNet-18
WIDTH = setting("WIDTH", 0.25)  # of the ResNet-18
real = Path(os.environ.get("SIMCLR_TF_DATA", "")).resolve() / "rheed_si111"
found = bool(os.environ.get("SIMCLR_TF_DATA")) and real.is_dir()
IMAGES = setting("IMAGES", str(real) if found else "images")
BATCH = setting("BATCH", 16 if found else 32)
QUEUE = setting("QUEUE", 16 if found else 64)  # fewer than there are training images
WORK = Path(setting("WORK", tempfile.mkdtemp(prefix="d_rheed_")))
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no word of a missing graphics card
WORK.mkdir(parents=True, exist_ok=True)
os.chdir(WORK)
print(f"Everything is written below {Path.cwd()}")

# %%
import simclr_tf as st

if not Path(IMAGES).exists():
    st.synthesize(
        IMAGES,
        kind="rheed",
        images_per_class=IMAGES_PER_CLASS,
        image_size="64",
        format="png16",
        classes=PATTERNS.split(","),
    )

# %% [markdown]
# ## 1. Bring out what is in dark images
#
# Diffraction spots are brighter than all the rest by powers of ten. An intensity rule (here the square root between two
# percentiles) makes faint streaks visible, to you and to the network. It is written into the manifest and goes with every checkpoint.

# %%
images = st.images(IMAGES, intensity="sqrt")
images.split({"train": 0.7, "validation": 0.3}, near_duplicates="ignore").to_csv("split.csv")
images = st.images("split.csv")
images

# %%
import csv

import matplotlib.pyplot as plt
import numpy as np

from data_prep.reading.images import read_stored

# %matplotlib inline


def picture(file: str) -> np.ndarray:
    """A pattern as the network reads it, at most 96 pixels wide."""
    pixels = st.read_image(file, intensity="sqrt")[..., 0]
    step = -(-max(pixels.shape) // 96)
    return pixels[::step, ::step]


classes = images.class_names
figure, grid = plt.subplots(
    2, len(classes), figsize=(1.9 * len(classes), 4.2), squeeze=False, layout="constrained"
)
for (above, below), name in zip(grid.T, classes, strict=True):
    file = images.paths[images.labels.index(name)]
    stored_values = read_stored(file)[..., 0]
    above.imshow(stored_values, cmap="gray", vmin=0, vmax=np.iinfo(stored_values.dtype).max)
    above.set_title(name, fontsize=9)
    below.imshow(picture(file), cmap="gray", vmin=0, vmax=1)
for axes in grid.flat:
    axes.set(xticks=[], yticks=[])
grid[0, 0].set_ylabel("as stored")
grid[1, 0].set_ylabel("by its root")
plt.show()

# %% [markdown]
# ## 2. Four methods by one call
#
# What the methods share is `training`; what each needs of its own is a row of a table. These are the settings of the published
# comparison (`preset="rheed_simclr"` and so on) scaled down: smaller queue, fewer prototypes, Adam for a short run. The published views turned
# the patterns by 90 degrees and upside down. Diffraction knows no such symmetry, for the shadow edge lies on one side, so both stay off here;
# each is a switch, and `vary=["vertical_flip=false,true"]` would ask the images.

# %%
own = {
    "simclr": {"temperature": 0.5},
    "moco": {"temperature": 0.1, "queue_size": QUEUE, "target_momentum": 0.99},
    "swav": {"temperature": 0.1, "prototypes": 32, "small_crops": 2, "frozen_prototype_steps": 20},
    "byol": {"target_momentum": 0.99, "momentum_schedule": "constant"},
}
flags = ["method", *dict.fromkeys(flag for settings in own.values() for flag in settings)]
with open("grid.csv", "w", newline="") as file:
    rows = csv.DictWriter(file, flags)
    rows.writeheader()
    rows.writerows({"method": name, **own[name]} for name in METHODS.split(","))
print(Path("grid.csv").read_text())

# %%
sweep = st.sweep(
    images,
    "sweep",
    grid="grid.csv",
    untrained=UNTRAINED == "true",
    parallel=2,
    training={
        "image_size": SIZE,
        "backbone": BACKBONE,
        "resnet_depth": 18,
        "width_multiplier": WIDTH,
        "train_batch_size": BATCH,
        "train_steps": STEPS,
        "optimizer": "adam",
        "learning_rate": 0.008,
        "warmup_epochs": 2,
        "weight_decay": 1e-4,
        "horizontal_flip": False,
        "vertical_flip": False,
        "color_jitter_strength": 0.5,
        "use_blur": False,
        "min_crop_area": 0.3,
    },
)

# %% [markdown]
# k-NN accuracy asks whether a pattern's neighbours in feature space are of its kind. Each point has a 95 % interval. Methods whose intervals
# overlap much are **not ranked** by this; `sweep/index.html` tells differences image by image, and several seeds (`vary=["seed=0,1,2"]`) tell luck. Where `untrained` does
# as well as the rest, these images and labels cannot tell whether anything was learnt; nor where raw pixels do (dotted).

# %%
runs = sweep.rows()
names = ["untrained" if run["untrained"] == "true" else run["method"] for run in runs]
value, low, high = (
    np.array([float(run[f"knn_accuracy{end}"]) for run in runs]) for end in ("", "_low", "_high")
)
for name, *numbers in zip(names, value, low, high, strict=True):
    print("{:10} 10-NN accuracy {:.3f} ({:.3f} to {:.3f})".format(name, *numbers))
first = next(run["run"] for run in runs if run["untrained"] != "true")
pixels = sweep.runs[first].floors["raw_pixels/accuracy"]
print(
    f"logistic regression on raw pixels: {pixels.value:.3f} ({pixels.low:.3f} to {pixels.high:.3f})"
)
print(sweep.runs[first].verdict)
figure, axes = plt.subplots(figsize=(7, 0.8 + 0.5 * len(runs)), layout="constrained")
axes.errorbar(value, range(len(runs)), xerr=[value - low, high - value], fmt="o", capsize=4)
axes.axvline(1 / len(classes), color="grey", linestyle="--", label="guessing")
axes.axvline(pixels.value, color="black", linestyle=":", label="raw pixels")
axes.set(
    yticks=range(len(runs)), yticklabels=names, xlim=(0, 1.02), xlabel="10-NN accuracy, validation"
)
axes.set_ylim(len(runs) - 0.5, -0.5)
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# ## 3. Look at one of them
#
# `st.embed` writes the features with file names, finds neighbours, clusters, outliers and near duplicates, suggests which
# images are worth an expert's label, and makes `explore.html`, a page with a scatter, the image under the pointer and its neighbours on a click.

# %%
chosen = sweep.runs[first]  # change it to look at another one
print(chosen)
embedding = st.embed(chosen, images, "embedding", suggest_labels=12, projections="pca,tsne")

# %%
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from simclr_tf.evaluation.features import l2_normalize
from simclr_tf.evaluation.figures import project_2d

rows = embedding.rows()
features = np.asarray(embedding.features, np.float32)
files = embedding.images.paths
points = project_2d(l2_normalize(features), "tsne")
labels = np.array([row["label"] for row in rows])

figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5.6), layout="constrained")
for name in classes:
    left.scatter(*points[labels == name].T, s=14, label=name)
left.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.02), ncols=3)
apart = np.ptp(points, axis=0).max() / 10
shown: list[int] = []
for k, point in enumerate(points):
    if all(np.abs(point - points[other]).max() > apart for other in shown):
        shown.append(k)
        right.add_artist(
            AnnotationBbox(
                OffsetImage(picture(files[k]), zoom=0.42, cmap="gray"), point, frameon=False
            )
        )
right.set(xlim=left.get_xlim(), ylim=left.get_ylim())
for axes in (left, right):
    axes.set(xticks=[], yticks=[])
left.set_title("t-SNE of the features, coloured by kind")
right.set_title("the same places, with images")
plt.show()

# %% [markdown]
# A scatter flattens hundreds of dimensions into two and may show groups that are not there. Neighbours are safer: their distances
# are those of the full feature space. Left in each row the image asked for, then its seven nearest with their cosine distance.

# %%
position = {row["path"]: k for k, row in enumerate(rows)}
neighbours: dict[int, list[tuple[int, float]]] = {}
with open(embedding.path / "neighbours.csv", newline="") as file:
    for row in csv.DictReader(file):
        near = position[row["neighbour"]], 1 - float(row["similarity"])
        neighbours.setdefault(position[row["path"]], []).append(near)

asked = [int(np.flatnonzero(labels == name)[0]) for name in classes[:4]]
figure, grid = plt.subplots(
    len(asked), 8, figsize=(11, 1.75 * len(asked)), squeeze=False, layout="constrained"
)
for row, k in zip(grid, asked, strict=True):
    row[0].imshow(picture(files[k]), cmap="gray")
    row[0].set_title(labels[k], fontsize=9, fontweight="bold")
    for axes, (other, distance) in zip(row[1:], neighbours[k], strict=False):
        axes.imshow(picture(files[other]), cmap="gray")
        axes.set_title(f"{labels[other]} {distance:.3f}", fontsize=8)
for axes in grid.flat:
    axes.axis("off")
plt.show()

# %% [markdown]
# ## 4. An expert's labels, joined afterwards
#
# `embedding/suggestions.csv` lists images that show much of what there is. The expert fills the column `expert`; any CSV with a
# column of paths or file names will do. Here the folder's name plays the expert. Joining needs neither encoder nor images, and all
# measures are made for the new column too.

# %%
with open(embedding.path / "suggestions.csv", newline="") as file:
    suggestions = list(csv.DictReader(file))
with open("expert.csv", "w", newline="") as file:
    table = csv.DictWriter(file, ["path", "expert"])
    table.writeheader()
    for row in suggestions:
        table.writerow({"path": row["path"], "expert": labels[position[row["path"]]]})
print(Path("expert.csv").read_text())

# %%
embedding.join("expert.csv")
joined = [row["expert"] for row in embedding.rows()]
print(f"{sum(map(bool, joined))} of {len(joined)} images now have an expert's label")
page = embedding.page
print(
    f"open {page.resolve()} in a browser ({page.stat().st_size / 1e6:.1f} MB; it loads nothing from the network)"
)

# %% [markdown]
# ## Where to go on
#
# * **Unlabelled folders** work the same way; the k-NN numbers are then missing, and neighbours and clusters are what you have.
# * **Published size:** `st.run(images, DIR, preset="rheed_simclr")` (also `rheed_moco`, `rheed_swav`, `rheed_byol`): ResNet-18, 128 px, 50 epochs.
# * **Methods with their own papers' views:** `preset="moco_views"` and so on. **Augmentations side by side:** `vary=["color_jitter_strength=0,0.5"]`.
# * **Runs side by side with pinned images:** `sweep/comparison.html`; `pinned=["a.png", "b.png"]` chooses the images.
# * The best of several settings is flattered by having been chosen: score it on a test split. `docs/embed.md` has the rest.
