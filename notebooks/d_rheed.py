# %% [markdown]
# # D. RHEED: four methods, looked at through their embeddings
#
# Over a thousand diffraction images and no labels: what do they show, and which way of learning sees it? Four self-supervised
# methods (SimCLR, MoCo, SwAV, BYOL) are trained on one split by one command and measured against the floor, a network that was not
# trained. Then one is looked at: scatter, neighbours, and the labels an expert gives afterwards.
#
# The mistakes this avoids: methods compared by one pretty scatter; nobody asking what an untrained network would give; features
# without file names, so experts' labels could not be joined; dark images fed as they are.

# %%
import sys

if "google.colab" in sys.modules:
    print("Installing the package on this Colab machine.")
    # %pip install --quiet simclr-tf

# %% [markdown]
# ## Settings
#
# Environment variables, so the commands see them; what is set before keeps its value. Everything is written below `WORK`. Where
# `SIMCLR_TF_DATA` names a folder with the set `rheed_si111` (40 real patterns of Si(111), for show: too few to measure anything), these images
# are taken; else patterns are computed.

# %% tags=["parameters"]
import os
import sysconfig
import tempfile
from pathlib import Path

os.environ.setdefault("METHODS", "simclr,moco,swav,byol")
os.environ.setdefault("STEPS", "250")  # updates of each run
os.environ.setdefault("UNTRAINED", "true")  # also the floor: the network without training
os.environ.setdefault("IMAGES_PER_CLASS", "40")
os.environ.setdefault("PATTERNS", "spots,streaks,rings,1x1,2x2,root3")  # kinds that are made
os.environ.setdefault("SIZE", "48")  # side of the network's input, in pixels; published: 128
os.environ.setdefault("WIDTH", "0.25")  # of the ResNet-18
real = Path(os.environ.get("SIMCLR_TF_DATA", "")).resolve() / "rheed_si111"
found = bool(os.environ.get("SIMCLR_TF_DATA")) and real.is_dir()
os.environ.setdefault("IMAGES", str(real) if found else "images")
os.environ.setdefault("BATCH", "16" if found else "32")
os.environ.setdefault("QUEUE", "16" if found else "64")  # fewer than there are training images
os.environ.setdefault("WORK", tempfile.mkdtemp(prefix="d_rheed_"))
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no word of a missing graphics card
os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]
os.makedirs(os.environ["WORK"], exist_ok=True)
os.chdir(os.environ["WORK"])
print(f"Everything is written below {Path.cwd()}")

# %% language="bash" magic_args="-e"
# if [ ! -e "$IMAGES" ]; then
#     simclr-synthesize --kind=rheed --output="$IMAGES" --images_per_class="$IMAGES_PER_CLASS" --image_size=64 \
#         --format=png16 --classes="$PATTERNS"
# fi

# %% [markdown]
# ## 1. Bring out what is in dark images
#
# Diffraction spots are brighter than all the rest by powers of ten. An intensity rule (here the square root between two
# percentiles) makes faint streaks visible, to you and to the network. It is written into the manifest and goes with every checkpoint.

# %% language="bash" magic_args="-e"
# simclr-manifest --image_dir="$IMAGES" --intensity=sqrt --output=all.csv
# simclr-split --manifest=all.csv --ratios=train:0.7,validation:0.3 --near_duplicates=ignore --output=split.csv

# %%
import csv

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from data_prep.manifest.manifest import Manifest
from data_prep.reading.images import read_image, read_stored

# %matplotlib inline

manifest = Manifest.load("split.csv")
readings = dict(zip(manifest.files(), (record.reading for record in manifest.records), strict=True))


def picture(file: str) -> np.ndarray:
    """A pattern as the network reads it, 96 pixels wide."""
    pixels = read_image(file, 1, readings[file])[..., 0]
    levels = pixels if pixels.dtype == np.uint8 else np.uint8(255 * pixels)
    image = Image.fromarray(levels)
    image.thumbnail((96, 96))
    return np.asarray(image)


classes = manifest.class_names
figure, grid = plt.subplots(
    2, len(classes), figsize=(1.9 * len(classes), 4.2), squeeze=False, layout="constrained"
)
for (above, below), name in zip(grid.T, classes, strict=True):
    file = manifest.subset(record for record in manifest.records if record.label == name).files()[0]
    stored_values = read_stored(file)[..., 0]
    above.imshow(stored_values, cmap="gray", vmin=0, vmax=np.iinfo(stored_values.dtype).max)
    above.set_title(name, fontsize=9)
    below.imshow(picture(file), cmap="gray", vmin=0, vmax=255)
for axes in grid.flat:
    axes.set(xticks=[], yticks=[])
grid[0, 0].set_ylabel("as stored")
grid[1, 0].set_ylabel("by its root")
plt.show()

# %% [markdown]
# ## 2. Four methods by one command
#
# What the methods share stands after `--`; what each needs of its own is a row of a table. These are the settings of the published
# comparison (`--preset=rheed_simclr` and so on) scaled down: smaller queue, fewer prototypes, Adam for a short run. The published views turned
# the patterns by 90 degrees and upside down. Diffraction knows no such symmetry, for the shadow edge lies on one side, so both stay off here;
# each is a switch, and `--vary=vertical_flip=false,true` would ask the images.

# %%
own = {
    "simclr": {"temperature": 0.5},
    "moco": {"temperature": 0.1, "queue_size": os.environ["QUEUE"], "target_momentum": 0.99},
    "swav": {"temperature": 0.1, "prototypes": 32, "small_crops": 2, "frozen_prototype_steps": 20},
    "byol": {"target_momentum": 0.99, "momentum_schedule": "constant"},
}
flags = ["method", *dict.fromkeys(flag for settings in own.values() for flag in settings)]
with open("grid.csv", "w", newline="") as file:
    rows = csv.DictWriter(file, flags)
    rows.writeheader()
    rows.writerows({"method": name, **own[name]} for name in os.environ["METHODS"].split(","))
print(Path("grid.csv").read_text())

# %% language="bash" magic_args="-e"
# simclr-sweep --manifest=split.csv --output=sweep --grid=grid.csv --untrained="$UNTRAINED" --parallel=2 -- \
#     --image_size="$SIZE" --resnet_depth=18 --width_multiplier="$WIDTH" --train_batch_size="$BATCH" --train_steps="$STEPS" \
#     --optimizer=adam --learning_rate=0.008 --warmup_epochs=2 --weight_decay=1e-4 \
#     --nohorizontal_flip --novertical_flip --color_jitter_strength=0.5 --nouse_blur --min_crop_area=0.3

# %% [markdown]
# k-NN accuracy asks whether a pattern's neighbours in feature space are of its kind. Each point has a 95 % interval. Methods whose intervals
# overlap much are **not ranked** by this; `sweep/index.html` tells differences image by image, and several seeds (`--vary=seed=0,1,2`) tell luck. Where `untrained` does
# as well as the rest, these images and labels cannot tell whether anything was learnt.

# %%
with open("sweep/sweep.csv", newline="") as file:
    runs = list(csv.DictReader(file))
names = ["untrained" if run["untrained"] == "true" else run["method"] for run in runs]
value, low, high = (
    np.array([float(run[f"knn_accuracy{end}"]) for run in runs]) for end in ("", "_low", "_high")
)
for name, *numbers in zip(names, value, low, high, strict=True):
    print("{:10} 10-NN accuracy {:.3f} ({:.3f} to {:.3f})".format(name, *numbers))
figure, axes = plt.subplots(figsize=(7, 0.8 + 0.5 * len(runs)), layout="constrained")
axes.errorbar(value, range(len(runs)), xerr=[value - low, high - value], fmt="o", capsize=4)
axes.axvline(1 / len(classes), color="grey", linestyle="--", label="guessing")
axes.set(
    yticks=range(len(runs)), yticklabels=names, xlim=(0, 1.02), xlabel="10-NN accuracy, validation"
)
axes.set_ylim(len(runs) - 0.5, -0.5)
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% [markdown]
# ## 3. Look at one of them
#
# `simclr-embed` writes the features with file names, finds neighbours, clusters, outliers and near duplicates, suggests which
# images are worth an expert's label, and makes `explore.html`, a page with a scatter, the image under the pointer and its neighbours on a click.

# %%
trained = [run for run in runs if run["untrained"] != "true"]
os.environ["CHOSEN"] = "sweep/runs/" + trained[0]["run"]  # change it to look at another one
print(os.environ["CHOSEN"])

# %% language="bash" magic_args="-e"
# simclr-embed --encoder="$CHOSEN" --manifest=split.csv --output=embedding --suggest_labels=12 --projections=pca,tsne

# %%
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from simclr_tf.evaluation.features import l2_normalize
from simclr_tf.evaluation.figures import project_2d

with open("embedding/embedding.csv", newline="") as file:
    images = list(csv.DictReader(file))
features = np.load("embedding/features.npy").astype(np.float32)
files = Manifest.load("embedding/manifest.csv").files()
points = project_2d(l2_normalize(features), "tsne")
labels = np.array([row["label"] for row in images])

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
position = {row["path"]: k for k, row in enumerate(images)}
neighbours: dict[int, list[tuple[int, float]]] = {}
with open("embedding/neighbours.csv", newline="") as file:
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
with open("embedding/suggestions.csv", newline="") as file:
    suggestions = list(csv.DictReader(file))
with open("expert.csv", "w", newline="") as file:
    rows = csv.DictWriter(file, ["path", "expert"])
    rows.writeheader()
    for row in suggestions:
        rows.writerow({"path": row["path"], "expert": labels[position[row["path"]]]})
print(Path("expert.csv").read_text())

# %% language="bash" magic_args="-e"
# simclr-embed --embedding=embedding --join=expert.csv

# %%
with open("embedding/embedding.csv", newline="") as file:
    joined = [row["expert"] for row in csv.DictReader(file)]
print(f"{sum(map(bool, joined))} of {len(joined)} images now have an expert's label")
page = Path("embedding/explore.html")
print(
    f"open {page.resolve()} in a browser ({page.stat().st_size / 1e6:.1f} MB; it loads nothing from the network)"
)

# %% [markdown]
# ## Where to go on
#
# * **Unlabelled folders** work the same way; the k-NN numbers are then missing, and neighbours and clusters are what you have.
# * **Published size:** `simclr-run --preset=rheed_simclr` (also `rheed_moco`, `rheed_swav`, `rheed_byol`): ResNet-18, 128 px, 50 epochs.
# * **Methods with their own papers' views:** `--preset=moco_views` and so on. **Augmentations side by side:** `--vary=color_jitter_strength=0,0.5`.
# * **Runs side by side with pinned images:** `sweep/comparison.html`, or `simclr-embed --compare=RUN,RUN --pinned=a.png,b.png`.
# * The best of several settings is flattered by having been chosen: score it on a test split. `docs/embed.md` has the rest.
