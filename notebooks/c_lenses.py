# %% [markdown]
# # C. Gravitational lenses: arrays with gaps, few images, and an honest ROC AUC
#
# Astronomers bring arrays, not photographs: NPY files of one channel, with NaN where the detector saw nothing, and values over
# several powers of ten. This notebook reads them by a rule that is written down, trains two backbones (a ResNet-18 and a
# convolution-transformer `hybrid`) by self-supervision, fine-tunes them and measures the macro ROC AUC from *scores*, with its interval.
#
# The example this follows reached an AUC of 0.55. Why: 20 updates in all; a reshape that scrambled the pixels; features that were
# not normalised; gradients that were never zeroed; an AUC from hard labels; 22 test images.

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
# `SIMCLR_TF_DATA` names a folder with the set `lens_sim` (450 simulated lenses, PNG that are stretched already), these images are taken;
# else lenses are ray-traced and written as NPY, with borders of NaN.

# %% tags=["parameters"]
import os
import tempfile
from pathlib import Path


def setting(name, default):
    """The environment variable of a name, of the default's type; it becomes the default if it is not set."""
    return type(default)(os.environ.setdefault(name, str(default)))


STEPS = setting("STEPS", 400)  # updates of each pretraining
EPOCHS = setting("EPOCHS", 20)  # of each fine-tuning
IMAGES_PER_CLASS = setting("IMAGES_PER_CLASS", 100)
SIZE = setting("SIZE", 48)  # side of the network's input, in pixels
WIDTH = setting("WIDTH", 0.25)  # of the ResNet-18
BASELINE = setting("BASELINE", "resnet")  # the first backbone, a ResNet-18
BACKBONE = setting("BACKBONE", "hybrid")  # the second one; or vit_tiny
BLOCKS = setting(
    "BLOCKS", 2
)  # transformer blocks of the second backbone; the full one has 8 (vit_tiny: 12)
BATCH = setting("BATCH", 32)
real = Path(os.environ.get("SIMCLR_TF_DATA", "")).resolve() / "lens_sim"
found = bool(os.environ.get("SIMCLR_TF_DATA")) and real.is_dir()
IMAGES = setting("IMAGES", str(real) if found else "images")
NAN = setting("NAN", "" if found else "min")  # what NaN becomes
INTENSITY = setting("INTENSITY", "" if found else "arcsinh:0.1,1,99.7")  # rule for the values
WORK = Path(setting("WORK", tempfile.mkdtemp(prefix="c_lenses_")))
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no word of a missing graphics card
WORK.mkdir(parents=True, exist_ok=True)
os.chdir(WORK)
print(f"Everything is written below {Path.cwd()}")

# %%
import simclr_tf as st

if not Path(IMAGES).exists():
    st.synthesize(
        IMAGES,
        kind="lensing",
        images_per_class=IMAGES_PER_CLASS,
        image_size="64",
        format="npy",
        nan_border=(0.0, 0.1),
        classes=["no_lens", "smooth", "vortex"],
    )

# %% [markdown]
# ## 1. Say how the files are read, once
#
# NaN is refused until you say what it becomes (`nan="min"`: the image's least value). Floating point values need an intensity
# rule: `arcsinh` shows the faint arcs beside the bright galaxy. The rule goes into the manifest and from there into every
# checkpoint, so new images are read the same way. More than two axes would want `axes`; nothing is guessed or reshaped.

# %%
images = st.images(IMAGES, nan=NAN, intensity=INTENSITY)
images.split({"train": 0.6, "validation": 0.1, "test": 0.3}).to_csv("split.csv")
images = st.images("split.csv")
images

# %%
import matplotlib.pyplot as plt
import numpy as np

from data_prep.reading.images import read_stored

# %matplotlib inline

train = images.subset("train")
classes = images.class_names
figure, grid = plt.subplots(
    2, len(classes), figsize=(2.6 * len(classes), 5.4), layout="constrained"
)
for (above, below), name in zip(grid.T, classes, strict=True):
    files = [file for file, label in zip(train.paths, train.labels, strict=True) if label == name]
    raw = [read_stored(file) for file in files]
    gaps = [np.isnan(values).mean() if values.dtype.kind == "f" else 0.0 for values in raw]
    k = int(np.argmax(gaps))
    read = st.read_image(files[k], nan=NAN, intensity=INTENSITY)
    print(
        f"{name}: stored as {raw[k].dtype} {raw[k].shape}, {gaps[k]:.0%} NaN; read as {read.dtype} {read.shape}, {read.min():g} to {read.max():g}"
    )
    above.imshow(raw[k][..., 0], cmap="gray")
    above.set_title(f"{name}, as stored", fontsize=9)
    below.imshow(read[..., 0], cmap="gray", vmin=0, vmax=1)
    below.set_title("as the network reads it", fontsize=9)
for axes in grid.flat:
    axes.axis("off")
plt.show()

# %% [markdown]
# ## 2. Twenty updates are not a training
#
# A first, very short run shows that everything works. It also shows what the example ran into: the run **warns that so few
# updates cannot teach anything**. Its warnings are kept.

# %%
both = {
    "train_mode": "pretrain",
    "image_size": SIZE,
    "width_multiplier": WIDTH,
    "train_batch_size": BATCH,
    "min_crop_area": 0.5,
    "min_crop_aspect": 1.0,
    "vertical_flip": True,
    "right_angle_rotation": True,
    "use_blur": False,
    "color_jitter_strength": 0.5,
    "temperature": 0.2,
    "learning_rate": 0.008,
}
too_short = st.run(
    images,
    "too_short",
    backbone=BASELINE,
    resnet_depth=18,
    optimizer="adam",
    train_steps=20,
    checkpoint_steps=20,
    **both,
)
print("\n".join(too_short.warnings))

# %% [markdown]
# ## 3. Two backbones, pretrained
#
# Blur would wipe out what substructure does to an arc, so it is off; lenses have no up and down, so flips and turns are on; crops
# keep at least half of the image and its aspect. Transformers want AdamW at a small rate. The images have one channel, and so do the
# networks.

# %%
resnet = st.run(
    images,
    "resnet",
    backbone=BASELINE,
    resnet_depth=18,
    optimizer="adam",
    train_steps=STEPS,
    checkpoint_steps=STEPS,
    **both,
)
transformer = st.run(
    images,
    "transformer",
    backbone=BACKBONE,
    transformer_depth=BLOCKS,
    optimizer="adamw",
    weight_decay=0.05,
    train_steps=STEPS,
    checkpoint_steps=STEPS,
    **both,
)

# %%
import math


def table(file) -> np.ndarray:
    """A CSV of numbers; `table[name]` is a column."""
    return np.atleast_1d(np.genfromtxt(file, delimiter=",", names=True, deletechars=""))


figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
runs = {"ResNet-18" if BASELINE == "resnet" else BASELINE: resnet, BACKBONE: transformer}
for name, run in runs.items():
    steps = table(run.path / "metrics.csv")
    axes.plot(steps["step"], steps["contrast_loss"], linewidth=1, label=name)
chance = 2 * math.log(2 * BATCH - 1)
axes.axhline(chance, color="grey", linestyle="--", label="chance")
axes.set(xlabel="step", ylabel="contrastive loss")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 4. Fine-tune, and measure from scores
#
# The epoch with the best ROC AUC on validation is kept. The test scores are probabilities; the macro AUC is the mean over the classes,
# each against the rest, and its interval comes from drawing the test images anew. Beside it the **floors**: what much simpler methods reach on
# the same images. A network that is not above them has learnt nothing that pays.

# %%
classifiers = {
    name: st.finetune(
        run,
        f"{run.path}-classifier",
        images,
        train_epochs=EPOCHS,
        train_batch_size=16,
        score_train=False,
        min_crop_area=0.5,
        min_crop_aspect=1.0,
        vertical_flip=True,
        right_angle_rotation=True,
        monitor="roc_auc",
    )
    for name, run in runs.items()
}

# %%
from IPython.display import display

from finetune.report.files import read_results
from simclr_tf.evaluation.classifier_figures import roc_figure
from simclr_tf.evaluation.curves import roc_curve
from simclr_tf.evaluation.metrics import roc_auc, roc_auc_scores

for name, classifier in classifiers.items():
    auc = classifier.results["test/roc_auc"]
    print(
        f"{name}: macro ROC AUC {auc.value:.3f} (95 % interval {auc.low:.3f} to {auc.high:.3f}), {len(images.subset('test'))} test images"
    )
    for floor in ("raw_pixels", "untrained features", "majority"):
        print(f"  {floor}: {classifier.floors[f'{floor}/roc_auc']:.3f}")
    print(" ", classifier.verdict)
results = {name: read_results(classifier) for name, classifier in classifiers.items()}
for name, one in results.items():
    scored = one.splits["test"]
    curves = {c: roc_curve(scored.labels == k, scored.scores[:, k]) for k, c in enumerate(classes)}
    areas = dict(zip(classes, roc_auc_scores(scored.labels, scored.scores), strict=True))
    display(
        roc_figure(
            {c: curve for c, curve in curves.items() if curve}, areas, title=f"{name}, test images"
        )
    )

# %% [markdown]
# ### What hard labels do to the same AUC
#
# The same predictions, once as scores and once as 0 and 1. The second number is not a ROC AUC of the classifier; it is one point of the
# curve joined to the corners.

# %%
for name, one in results.items():
    scored = one.splits["test"]
    hard = np.eye(len(classes))[scored.scores.argmax(axis=1)]
    print(
        f"{name}: from scores {roc_auc(scored.labels, scored.scores):.3f}, from hard labels {roc_auc(scored.labels, hard):.3f}"
    )

# %% [markdown]
# ### Is one backbone better?
#
# Both saw the same test images, so the difference is measured on the same redrawn images. It tells something only if its interval leaves out 0.
# One run each says nothing of the luck of a seed: `st.folds(..., seeds=["0", "1", "2"])` does.

# %%
first, second = classifiers.values()
gain = first.difference(second, "roc_auc")
print(
    f"{' minus '.join(results)}: {gain.value:+.3f} (95 % interval {gain.low:+.3f} to {gain.high:+.3f})"
)

# %% [markdown]
# ## Where to go on
#
# * **FITS and HDF5:** `pip install 'simclr-tf[science]'`, then `axes`, `array_name` as in `docs/data.md`. `nan="zero"` or `"median"` for other gaps.
# * **Real size.** `image_size=96, width_multiplier=1, train_batch_size=256` and some thousand updates; `transformer_depth=8` for the whole
#   `hybrid`; `backbone="vit_tiny", patch_size=8`.
# * **215 real images** want few labels and many updates: pretrain on all that are not test, then `head_only=True`, and folds
#   (`st.folds(images, DIR, folds=5)`), for 22 test images carry no number.
# * **Simulate more:** `help(st.synthesize)`. `docs/finetune.md` explains report, intervals and thresholds, `docs/python.md` the functions.
