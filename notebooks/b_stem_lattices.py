# %% [markdown]
# # B. Lattices under the electron microscope: transfer from VGG16 and ResNet50
#
# Which crystal lattice does a micrograph show? The published way: networks of `keras.applications` with frozen weights, a new head,
# once fed by `tf.data`, once by Keras' `ImageDataGenerator`. Both are one command each here.
#
# What went wrong in the original, and cannot here: images were scaled twice (`rescale` *and* `preprocess_input`), or not as ResNet50 wants
# them; augmented images were cached, so every epoch saw the same; labels and predictions came from two passes over a shuffled
# set; early stopping looked at the training loss; there was no test set; a flattened head of hundreds of millions of weights.

# %%
import sys

if "google.colab" in sys.modules:
    print("Installing the package on this Colab machine.")
    # %pip install --quiet simclr-tf

# %% [markdown]
# ## Settings
#
# Environment variables, so the commands see them; what is set before keeps its value. Everything is written below `WORK`. Where
# `SIMCLR_TF_DATA` names a folder with the set `stem_2d_lattices` (simulated micrographs of two-dimensional crystals), these images are
# taken; they have a white margin, which `CROP` cuts off. Else lattices are made.
#
# **Weights.** Nothing is downloaded unless you ask for it. With `none` the networks are drawn at random: the commands do the
# same, but the features know nothing of images, so expect little. Set `VGG16` and `RESNET50` to files, or to `imagenet`.

# %% tags=["parameters"]
import os
import sysconfig
import tempfile
from pathlib import Path

os.environ.setdefault("EPOCHS", "30")  # of the head on VGG16
os.environ.setdefault(
    "GENERATOR_EPOCHS", "6"
)  # of ResNet50 behind the generator: every epoch passes through the network
os.environ.setdefault("IMAGES_PER_CLASS", "30")
os.environ.setdefault(
    "LATTICES", "cubic_bcc,cubic_bcc_2atom,hexagon,hexagon_2atom,tetragonal_c,triclinic_rhomboh"
)  # of 13
os.environ.setdefault(
    "SIZE", "64"
)  # side of the network's input, in pixels; published: 400 and 600
os.environ.setdefault(
    "VGG16", "none"
)  # file of weights without the head, or imagenet (which Keras downloads)
os.environ.setdefault("RESNET50", "none")  # the same
real = Path(os.environ.get("SIMCLR_TF_DATA", "")).resolve() / "stem_2d_lattices"
found = bool(os.environ.get("SIMCLR_TF_DATA")) and real.is_dir()
os.environ.setdefault("IMAGES", str(real) if found else "images")
os.environ.setdefault("CROP", "0.8" if found else "0")  # central share that is kept; 0 = all
for name in ("VGG16", "RESNET50"):
    if Path(os.environ[name]).is_file():
        os.environ[name] = str(Path(os.environ[name]).resolve())
os.environ.setdefault("WORK", tempfile.mkdtemp(prefix="b_stem_lattices_"))
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no word of a missing graphics card
os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]
os.makedirs(os.environ["WORK"], exist_ok=True)
os.chdir(os.environ["WORK"])
print(f"Everything is written below {Path.cwd()}")

# %% language="bash" magic_args="-e"
# if [ ! -e "$IMAGES" ]; then
#     simclr-synthesize --kind=lattice --output="$IMAGES" --images_per_class="$IMAGES_PER_CLASS" --image_size=96 --classes="$LATTICES"
# fi
# simclr-check --image_dir="$IMAGES" --output=check --fail_on=never
# simclr-split --image_dir="$IMAGES" --ratios=train:0.55,validation:0.2,test:0.25 --output=split.csv

# %% [markdown]
# `simclr-check` names margins with the box to cut out, classes that are rare, and files that are there twice (the split keeps those
# together). Look at `check/report.html` in your own case.

# %%
import io

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from data_prep.manifest.manifest import Manifest
from data_prep.reading.thumbnails import thumbnail

# %matplotlib inline


def picture(file: str, reading: str = "") -> np.ndarray:
    """An image of any format and bit depth, made small enough to show."""
    return np.asarray(Image.open(io.BytesIO(thumbnail(file, reading=reading))))


train = Manifest.load("split.csv").split("train")
classes = train.class_names
figure, grid = plt.subplots(
    2, len(classes), figsize=(1.8 * len(classes), 4), squeeze=False, layout="constrained"
)
for column, name in zip(grid.T, classes, strict=True):
    files = train.subset(record for record in train.records if record.label == name).files()
    for axes in column:
        axes.axis("off")
    for axes, file in zip(column, files, strict=False):
        axes.imshow(picture(file), cmap="gray")
    column[0].set_title(name.replace("_", "\n"), fontsize=9)
figure.suptitle("Training images")
plt.show()

# %% [markdown]
# ## 1. VGG16 by tf.data
#
# The network's own preprocessing is a layer of the model, so it happens once, and the model that comes out takes plain images.
# Grey is repeated to three channels. The head sits on pooled features (`--pooling=flatten` brings the huge one back). As nothing
# augments here, the features are computed once and the head trains on them in seconds. The epoch that is best on *validation* is
# kept, rare classes weigh as much as frequent ones, test images are scored once.

# %% language="bash" magic_args="-e"
# simclr-transfer --manifest=split.csv --backbone=vgg16 --weights="$VGG16" --image_size="$SIZE" --central_crop="$CROP" \
#     --pipeline=tf_data --head=64 --dropout=0.2 --class_weights=balanced --monitor=balanced_accuracy \
#     --train_epochs="$EPOCHS" --early_stopping_patience=10 --train_batch_size=16 \
#     --feature_maps=block1_conv2,block3_conv3 --feature_map_images=1 --grad_cam=0 --output=vgg16

# %% [markdown]
# ## 2. ResNet50 by ImageDataGenerator
#
# The generator itself, with its own arguments: here turned by up to 30 degrees and mirrored. Turning keeps the lattice; a different
# stretch in x and y would make a rectangle of a square, so leave that out. Every epoch sees new turns.

# %% language="bash" magic_args="-e"
# simclr-transfer --manifest=split.csv --backbone=resnet50 --weights="$RESNET50" --image_size="$SIZE" --central_crop="$CROP" \
#     --pipeline=image_data_generator --rotation_range=30 --horizontal_flip --noscore_train \
#     --head=64 --dropout=0.2 --class_weights=balanced --monitor=balanced_accuracy \
#     --train_epochs="$GENERATOR_EPOCHS" --early_stopping_patience=10 --train_batch_size=16 --grad_cam=0 --output=resnet50

# %%
from IPython.display import display

from finetune.report.files import read_results
from simclr_tf.evaluation.classifier_figures import confusion_figure
from simclr_tf.evaluation.metrics import balanced_accuracy, confusion_matrix

stored = {"VGG16": read_results("vgg16"), "ResNet50": read_results("resnet50")}
chance = 1 / len(classes)
print(
    f"balanced accuracy by guessing: {chance:.3f}; weights: {os.environ['VGG16']}, {os.environ['RESNET50']}"
)
for name, one in stored.items():
    interval = one.results.splits["test"].metrics["balanced_accuracy"]
    print(
        f"{name}: test balanced accuracy {interval.value:.3f} (95 % interval {interval.low:.3f} to {interval.high:.3f})"
    )

# %%
figure, grid = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True, layout="constrained")
for axes, (name, one) in zip(grid, stored.items(), strict=True):
    for column, values in one.history.items():
        if column.endswith("/balanced_accuracy"):
            axes.plot(one.history["epoch"], values, marker=".", label=column.split("/")[0])
    axes.axhline(chance, color="grey", linestyle="--", label="chance")
    axes.set(title=name, xlabel="epoch", ylim=(0, 1.02))
    axes.legend(frameon=False)
grid[0].set_ylabel("balanced accuracy")
plt.show()

# %% [markdown]
# ## 3. A confusion matrix from one pass
#
# Class and prediction of each image come out of the same pass, with its file name (`vgg16/predictions.csv`). The cell also shows
# what two passes over a shuffled set do: the same predictions against labels in another order. The matrix then says "chance" beside
# whatever accuracy training reported. If you ever see that, look there first.

# %%
scored = stored["VGG16"].splits["test"]
said = scored.scores.argmax(axis=1)
shuffled = np.random.default_rng(0).permutation(scored.labels)
print(f"one pass: balanced accuracy {balanced_accuracy(scored.labels, said):.3f}")
print(f"labels from another pass: {balanced_accuracy(shuffled, said):.3f}")
display(
    confusion_figure(
        confusion_matrix(scored.labels, said, len(classes)), classes, title="VGG16, test images"
    )
)

# %% [markdown]
# ## 4. What layers make of an image
#
# `--feature_maps` draws the liveliest channels of any layer. Early layers keep the atoms, later ones the pattern, if the weights
# know anything; random weights blur and mix.

# %%
from IPython.display import Image as ShownImage

for file in sorted(Path("vgg16").rglob("*feature*.png"))[:2]:
    print(file)
    display(ShownImage(str(file), width=800))

# %% [markdown]
# ## Where to go on
#
# * **Weights first.** `VGG16=imagenet RESNET50=imagenet`, or files `*_notop`. Then a second stage:
#   `--unfreeze_after=block4_pool --unfreeze_epochs=10 --unfreeze_learning_rate=1e-5`.
# * **The published runs** are presets: `--preset=vgg16_generator`, `vgg16_tfdata`, `resnet50_tfdata`, `vgg16_block4` (400 or 600 pixels,
#   flattened heads, Adam 1e-4, 15 epochs).
# * **Where does it look?** `--grad_cam=6`. **Your own `Model.fit`?** `finetune.image_data_generator.flow_from_split` and `predict_once`.
# * **Folds:** `simclr-folds --command=transfer`. **Is SimCLR on my own images better?** `simclr-compare`, and notebook A.
# * `docs/finetune.md` has all flags, `docs/data.md` crops, tiles and checks.
