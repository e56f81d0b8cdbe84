# %% [markdown]
# # B. Lattices under the electron microscope: transfer from VGG16 and ResNet50
#
# Which crystal lattice does a micrograph show? The published way: networks of `keras.applications` with frozen weights, a new head,
# once fed by `tf.data`, once by Keras' `ImageDataGenerator`. Both are one call each here.
#
# What went wrong in the original, and cannot here: images were scaled twice (`rescale` *and* `preprocess_input`), or not as ResNet50 wants
# them; augmented images were cached, so every epoch saw the same; labels and predictions came from two passes over a shuffled
# set; early stopping looked at the training loss; there was no test set; a flattened head of hundreds of millions of weights.

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
# `SIMCLR_TF_DATA` names a folder with the set `stem_2d_lattices` (simulated micrographs of two-dimensional crystals), these images are
# taken; they have a white margin, which `CROP` cuts off. Else lattices are made.
#
# **Weights.** Nothing is downloaded unless you ask for it. With `none` the networks are drawn at random: the calls do the
# same, but the features know nothing of images, so expect little. Set `VGG16` and `RESNET50` to files, or to `imagenet`.

# %% tags=["parameters"]
import os
import tempfile
from pathlib import Path


def setting(name, default):
    """The environment variable of a name, of the default's type; it becomes the default if it is not set."""
    return type(default)(os.environ.setdefault(name, str(default)))


EPOCHS = setting("EPOCHS", 30)  # of the head on VGG16
GENERATOR_EPOCHS = setting(
    "GENERATOR_EPOCHS", 6
)  # of ResNet50 behind the generator: every epoch passes through the network
IMAGES_PER_CLASS = setting("IMAGES_PER_CLASS", 30)
LATTICES = setting(
    "LATTICES", "cubic_bcc,cubic_bcc_2atom,hexagon,hexagon_2atom,tetragonal_c,triclinic_rhomboh"
)  # of 13
SIZE = setting("SIZE", 64)  # side of the network's input, in pixels; published: 400 and 600
VGG16 = setting(
    "VGG16", "none"
)  # file of weights without the head, or imagenet (Keras downloads it)
RESNET50 = setting("RESNET50", "none")  # the same
NETWORK = setting("NETWORK", "resnet50")  # behind the generator; any of keras.applications
real = Path(os.environ.get("SIMCLR_TF_DATA", "")).resolve() / "stem_2d_lattices"
found = bool(os.environ.get("SIMCLR_TF_DATA")) and real.is_dir()
IMAGES = setting("IMAGES", str(real) if found else "images")
CROP = setting("CROP", 0.8 if found else 0.0)  # central share that is kept; 0 = all
VGG16, RESNET50 = (
    str(Path(weights).resolve()) if Path(weights).is_file() else weights
    for weights in (VGG16, RESNET50)
)
WORK = Path(setting("WORK", tempfile.mkdtemp(prefix="b_stem_lattices_")))
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no word of a missing graphics card
WORK.mkdir(parents=True, exist_ok=True)
os.chdir(WORK)
print(f"Everything is written below {Path.cwd()}")

# %%
import simclr_tf as st

if not Path(IMAGES).exists():
    st.synthesize(
        IMAGES,
        kind="lattice",
        images_per_class=IMAGES_PER_CLASS,
        image_size="96",
        classes=LATTICES.split(","),
    )
images = st.images(IMAGES)
for finding in images.check("check").findings:
    print(finding.line())
images.split({"train": 0.55, "validation": 0.2, "test": 0.25}).to_csv("split.csv")
images = st.images("split.csv")
images

# %% [markdown]
# `check` names margins with the box to cut out, classes that are rare, and files that are there twice (the split keeps those
# together). Look at `check/report.html` in your own case.

# %%
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display

# %matplotlib inline

classes = images.class_names
display(images.subset("train").show(2 * len(classes)))

# %% [markdown]
# ## 1. VGG16 by tf.data
#
# The network's own preprocessing is a layer of the model, so it happens once, and the model that comes out takes plain images.
# Grey is repeated to three channels. The head sits on pooled features (`pooling="flatten"` brings the huge one back). As nothing
# augments here, the features are computed once and the head trains on them in seconds. The epoch that is best on *validation* is
# kept, rare classes weigh as much as frequent ones, test images are scored once.

# %%
both = {
    "image_size": SIZE,
    "central_crop": CROP,
    "head": "64",
    "dropout": 0.2,
    "class_weights": "balanced",
    "monitor": "balanced_accuracy",
    "early_stopping_patience": 10,
    "train_batch_size": 16,
    "grad_cam": "0",
}
vgg16 = st.transfer(
    images,
    "vgg16",
    backbone="vgg16",
    weights=VGG16,
    pipeline="tf_data",
    train_epochs=EPOCHS,
    feature_maps="block1_conv2,block3_conv3",
    feature_map_images="1",
    **both,
)

# %% [markdown]
# ## 2. ResNet50 by ImageDataGenerator
#
# The generator itself, with its own arguments: here turned by up to 30 degrees and mirrored. Turning keeps the lattice; a different
# stretch in x and y would make a rectangle of a square, so leave that out. Every epoch sees new turns.

# %%
generated = st.transfer(
    images,
    NETWORK,
    backbone=NETWORK,
    weights=RESNET50,
    pipeline="image_data_generator",
    rotation_range=30.0,
    horizontal_flip=True,
    score_train=False,
    train_epochs=GENERATOR_EPOCHS,
    **both,
)

# %% [markdown]
# Below them the **floors**: what much simpler methods reach on the same test images. With random weights the networks are hardly above them:
# that is what weights are for.

# %%
trained = {"VGG16": vgg16, "ResNet50" if NETWORK == "resnet50" else NETWORK: generated}
chance = 1 / len(classes)
print(f"balanced accuracy by guessing: {chance:.3f}; weights: {VGG16}, {RESNET50}")
for name, classifier in trained.items():
    interval = classifier.results["test/balanced_accuracy"]
    print(
        f"{name}: test balanced accuracy {interval.value:.3f} (95 % interval {interval.low:.3f} to {interval.high:.3f})"
    )
    for floor in ("raw_pixels", "untrained features", "majority"):
        print(f"  {floor}: {classifier.floors[f'{floor}/balanced_accuracy']:.3f}")
    print(" ", classifier.verdict)

# %%
from finetune.report.files import read_results

stored = {name: read_results(classifier) for name, classifier in trained.items()}
figure, grid = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True, layout="constrained")
for axes, (name, one) in zip(grid, stored.items(), strict=True):
    for column, values in one.history.items():
        if column.endswith("/balanced_accuracy"):
            axes.plot(one.history["epoch"], values, marker=".", label=column.split("/")[0])
    raw_pixels = trained[name].floors["raw_pixels/balanced_accuracy"].value
    axes.axhline(raw_pixels, color="black", linestyle=":", label="raw pixels, test")
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
from simclr_tf.evaluation.metrics import balanced_accuracy

scored = stored["VGG16"].splits["test"]
said = scored.scores.argmax(axis=1)
shuffled = np.random.default_rng(0).permutation(scored.labels)
print(f"one pass: balanced accuracy {balanced_accuracy(scored.labels, said):.3f}")
print(f"labels from another pass: {balanced_accuracy(shuffled, said):.3f}")
display(vgg16.confusion())

# %% [markdown]
# ## 4. What layers make of an image
#
# `feature_maps` draws the liveliest channels of any layer. Early layers keep the atoms, later ones the pattern, if the weights
# know anything; random weights blur and mix.

# %%
for file in sorted(vgg16.path.rglob("*feature*.png"))[:2]:
    print(file)
    display(Image(file, width=800))

# %% [markdown]
# ## Where to go on
#
# * **Weights first.** `VGG16=imagenet RESNET50=imagenet`, or files `*_notop`. Then a second stage:
#   `unfreeze_after="block4_pool", unfreeze_epochs=10, unfreeze_learning_rate=1e-5`.
# * **The published runs** are presets: `preset="vgg16_generator"`, `vgg16_tfdata`, `resnet50_tfdata`, `vgg16_block4` (400 or 600 pixels,
#   flattened heads, Adam 1e-4, 15 epochs).
# * **Where does it look?** `grad_cam="6"`. **Your own `Model.fit`?** `finetune.image_data_generator.flow_from_split` and `predict_once`.
# * **Folds:** `st.folds(images, DIR, "transfer")`. **Is SimCLR on my own images better?** `st.compare`, and notebook A.
# * `docs/finetune.md` has all settings, `docs/data.md` crops, tiles and checks, `docs/python.md` the functions.
