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
import sys

if "google.colab" in sys.modules:
    print("Installing the package on this Colab machine.")
    # %pip install --quiet simclr-tf

# %% [markdown]
# ## Settings
#
# Environment variables, so the commands see them; what is set before keeps its value. Everything is written below `WORK`. Where
# `SIMCLR_TF_DATA` names a folder with the set `lens_sim` (450 simulated lenses, PNG that are stretched already), these images are taken;
# else lenses are ray-traced and written as NPY, with borders of NaN.

# %% tags=["parameters"]
import os
import sysconfig
import tempfile
from pathlib import Path

os.environ.setdefault("STEPS", "400")  # updates of each pretraining
os.environ.setdefault("EPOCHS", "20")  # of each fine-tuning
os.environ.setdefault("IMAGES_PER_CLASS", "100")
os.environ.setdefault("SIZE", "48")  # side of the network's input, in pixels
os.environ.setdefault("WIDTH", "0.25")  # of the ResNet-18
os.environ.setdefault("BACKBONE", "hybrid")  # the second one; or vit_tiny
os.environ.setdefault(
    "BLOCKS", "2"
)  # transformer blocks of the second backbone; the full one has 8 (vit_tiny: 12)
os.environ.setdefault("BATCH", "32")
real = Path(os.environ.get("SIMCLR_TF_DATA", "")).resolve() / "lens_sim"
found = bool(os.environ.get("SIMCLR_TF_DATA")) and real.is_dir()
os.environ.setdefault("IMAGES", str(real) if found else "images")
os.environ.setdefault("READING", "" if found else "--nan=min --intensity=arcsinh:0.1,1,99.7")
os.environ.setdefault("WORK", tempfile.mkdtemp(prefix="c_lenses_"))
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no word of a missing graphics card
os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]
os.makedirs(os.environ["WORK"], exist_ok=True)
os.chdir(os.environ["WORK"])
print(f"Everything is written below {Path.cwd()}")

# %% language="bash" magic_args="-e"
# if [ ! -e "$IMAGES" ]; then
#     simclr-synthesize --kind=lensing --output="$IMAGES" --images_per_class="$IMAGES_PER_CLASS" --image_size=64 \
#         --format=npy --nan_border=0,0.1 --classes=no_lens,smooth,vortex
# fi

# %% [markdown]
# ## 1. Say how the files are read, once
#
# NaN is refused until you say what it becomes (`--nan=min`: the image's least value). Floating point values need an intensity
# rule: `arcsinh` shows the faint arcs beside the bright galaxy. The rule goes into the manifest and from there into every
# checkpoint, so new images are read the same way. More than two axes would want `--axes`; nothing is guessed or reshaped.

# %% language="bash" magic_args="-e"
# simclr-manifest --image_dir="$IMAGES" $READING --output=all.csv
# simclr-split --manifest=all.csv --ratios=train:0.6,validation:0.1,test:0.3 --output=split.csv

# %%
import matplotlib.pyplot as plt
import numpy as np

from data_prep.manifest.manifest import Manifest
from data_prep.reading.images import read_image, read_stored

# %matplotlib inline

train = Manifest.load("split.csv").split("train")
classes = train.class_names
figure, grid = plt.subplots(
    2, len(classes), figsize=(2.6 * len(classes), 5.4), layout="constrained"
)
for (above, below), name in zip(grid.T, classes, strict=True):
    chosen = train.subset(record for record in train.records if record.label == name)
    raw = [read_stored(file) for file in chosen.files()]
    gaps = [np.isnan(values).mean() if values.dtype.kind == "f" else 0.0 for values in raw]
    k = int(np.argmax(gaps))
    read = read_image(chosen.files()[k], 1, chosen.records[k].reading)
    print(
        f"{name}: stored as {raw[k].dtype} {raw[k].shape}, {gaps[k]:.0%} NaN; read as {read.dtype} {read.shape}, {read.min()} to {read.max()}"
    )
    above.imshow(raw[k][..., 0], cmap="gray")
    above.set_title(f"{name}, as stored", fontsize=9)
    below.imshow(read[..., 0], cmap="gray", vmin=0, vmax=255 if read.dtype == np.uint8 else 1)
    below.set_title("as the network reads it", fontsize=9)
for axes in grid.flat:
    axes.axis("off")
plt.show()

# %% [markdown]
# ## 2. Twenty updates are not a training
#
# A first, very short run shows that everything works. It also shows what the example ran into: the command **warns that so few
# updates cannot teach anything**. Look for the line `warning: only 20 updates in all`.

# %% language="bash" magic_args="-e"
# set -o pipefail
# common="--manifest=split.csv --image_size=$SIZE --train_batch_size=$BATCH --min_crop_area=0.5 --min_crop_aspect=1
#     --vertical_flip --right_angle_rotation --nouse_blur --color_jitter_strength=0.5 --temperature=0.2"
# simclr-run --train_mode=pretrain $common --resnet_depth=18 --width_multiplier="$WIDTH" \
#     --optimizer=adam --learning_rate=0.008 --train_steps=20 --checkpoint_steps=20 --model_dir=too_short 2>&1 | tee short.log
# grep --quiet "updates in all" short.log

# %% [markdown]
# ## 3. Two backbones, pretrained
#
# Blur would wipe out what substructure does to an arc, so it is off; lenses have no up and down, so flips and turns are on; crops
# keep at least half of the image and its aspect. Transformers want AdamW at a small rate. The images have one channel, and so do the
# networks.

# %% language="bash" magic_args="-e"
# common="--manifest=split.csv --image_size=$SIZE --train_batch_size=$BATCH --min_crop_area=0.5 --min_crop_aspect=1
#     --vertical_flip --right_angle_rotation --nouse_blur --color_jitter_strength=0.5 --temperature=0.2"
# simclr-run --train_mode=pretrain $common --resnet_depth=18 --width_multiplier="$WIDTH" \
#     --optimizer=adam --learning_rate=0.008 --train_steps="$STEPS" --checkpoint_steps="$STEPS" --model_dir=resnet
# simclr-run --train_mode=pretrain $common --backbone="$BACKBONE" --transformer_depth="$BLOCKS" --width_multiplier="$WIDTH" \
#     --optimizer=adamw --learning_rate=0.008 --weight_decay=0.05 \
#     --train_steps="$STEPS" --checkpoint_steps="$STEPS" --model_dir=transformer

# %%
import math


def table(file: str) -> np.ndarray:
    """A CSV of numbers; `table[name]` is a column."""
    return np.atleast_1d(np.genfromtxt(file, delimiter=",", names=True, deletechars=""))


figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
names = {"resnet": "ResNet-18", "transformer": os.environ["BACKBONE"]}
for folder, name in names.items():
    steps = table(f"{folder}/metrics.csv")
    axes.plot(steps["step"], steps["contrast_loss"], linewidth=1, label=name)
chance = 2 * math.log(2 * int(os.environ["BATCH"]) - 1)
axes.axhline(chance, color="grey", linestyle="--", label="chance")
axes.set(xlabel="step", ylabel="contrastive loss")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 4. Fine-tune, and measure from scores
#
# The epoch with the best ROC AUC on validation is kept. The test scores are probabilities; the macro AUC is the mean over the classes,
# each against the rest, and its interval comes from drawing the test images anew.

# %% language="bash" magic_args="-e"
# for run in resnet transformer; do
#     simclr-finetune --encoder="$run" --manifest=split.csv --train_epochs="$EPOCHS" --train_batch_size=16 --noscore_train \
#         --min_crop_area=0.5 --min_crop_aspect=1 --vertical_flip --right_angle_rotation --monitor=roc_auc --output="$run-classifier"
# done

# %%
from IPython.display import display

from finetune.report.files import read_results
from simclr_tf.evaluation.classifier_figures import roc_figure
from simclr_tf.evaluation.curves import roc_curve
from simclr_tf.evaluation.metrics import roc_auc, roc_auc_scores

results = {name: read_results(f"{folder}-classifier") for folder, name in names.items()}
for name, one in results.items():
    test = one.results.splits["test"]
    auc = test.metrics["roc_auc"]
    print(
        f"{name}: macro ROC AUC {auc.value:.3f} (95 % interval {auc.low:.3f} to {auc.high:.3f}), {test.images} test images"
    )
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
# One run each says nothing of the luck of a seed: `simclr-folds --seeds=0,1,2` does.

# %%
from simclr_tf.evaluation.intervals import paired_difference

first, second = (one.splits["test"] for one in results.values())
assert first.paths == second.paths
gain = paired_difference(roc_auc, first.labels, first.scores, second.scores, resamples=500)
print(
    f"{' minus '.join(results)}: {gain.value:+.3f} (95 % interval {gain.low:+.3f} to {gain.high:+.3f})"
)

# %% [markdown]
# ## Where to go on
#
# * **FITS and HDF5:** `pip install 'simclr-tf[science]'`, then `--axes`, `--array_name` as in `docs/data.md`. `--nan=zero` or `median` for other gaps.
# * **Real size.** `--image_size=96 --width_multiplier=1 --train_batch_size=256` and some thousand updates; `--transformer_depth=8` for the whole
#   `hybrid`; `--backbone=vit_tiny --patch_size=8`.
# * **215 real images** want few labels and many updates: pretrain on all that are not test, then `--head_only`, and folds
#   (`simclr-split --folds=5`, `simclr-folds`), for 22 test images carry no number.
# * **Simulate more:** `simclr-synthesize --kind=lensing --help`. `docs/finetune.md` explains report, intervals and thresholds.
