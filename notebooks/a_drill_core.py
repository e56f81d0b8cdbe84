# %% [markdown]
# # A. Drill cores: pretrain on one's own images, then fine-tune, frozen up to a block
#
# A published study trained SimCLRv2 on 12,827 photographs of drill cores and asked whether self-supervision on one's own images
# beats transfer from ImageNet. Its two commands, *pretrain* and *fine-tune*, are called here with their flags as they stand but for paths and sizes. Then
# some blocks are frozen, one of the two fine-tuned networks is chosen on validation images, and only that one is scored on the test images.
#
# What went wrong in the original code, and cannot here: the evaluation read the training folder; the probe learnt from random
# labels; F1 was a mean over batches; the test images were scored every epoch; frozen blocks moved in their batch normalisation.

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
# `SIMCLR_TF_DATA` names a folder with the set `carbonate_thin_sections` (thin sections of rock under the microscope), these
# images are taken; else photographs of drill cores are made.

# %% tags=["parameters"]
import os
import tempfile
from pathlib import Path


def setting(name, default):
    """The environment variable of a name, of the default's type; it becomes the default if it is not set."""
    return type(default)(os.environ.setdefault(name, str(default)))


STEPS = setting("STEPS", 400)  # updates of the pretraining
FINETUNE_STEPS = setting("FINETUNE_STEPS", 200)  # updates of each fine-tuning
HEAD_EPOCHS = setting("HEAD_EPOCHS", 25)  # of the linear head
IMAGES_PER_CLASS = setting("IMAGES_PER_CLASS", 100)
SIZE = setting("SIZE", 64)  # side of the network's input, in pixels; the study had 224
BACKBONE = setting("BACKBONE", "resnet")  # a ResNet-18; the study had a ResNet-50
WIDTH = setting("WIDTH", 0.25)  # of the network; 1 is the usual ResNet
BATCH = setting("BATCH", 64)
real = Path(os.environ.get("SIMCLR_TF_DATA", "")).resolve() / "carbonate_thin_sections"
found = bool(os.environ.get("SIMCLR_TF_DATA")) and real.is_dir()
IMAGES = setting("IMAGES", str(real) if found else "images")
CLASSES = setting("CLASSES", 3 if found else 4)
WORK = Path(setting("WORK", tempfile.mkdtemp(prefix="a_drill_core_")))
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no word of a missing graphics card
WORK.mkdir(parents=True, exist_ok=True)
os.chdir(WORK)
print(f"Everything is written below {Path.cwd()}")

# %%
import simclr_tf as st

if not Path(IMAGES).exists():
    st.synthesize(IMAGES, kind="core", images_per_class=IMAGES_PER_CLASS, image_size="96")
images = st.images(IMAGES)
images

# %% [markdown]
# ## 1. Pretrain
#
# The first command of the study; keywords are its flags. The images lie in a folder for each class, or have no labels; the labels
# teach the network nothing (they only let the run report nearest neighbours). The split is seeded and written down: the same folder
# gives the same split in every call below. The number of images is counted, not typed in. `num_of_classes` is only checked.

# %%
both = {
    "mode": "train_then_eval",
    "train_batch_size": BATCH,
    "sk_ratio": 0.0,
    "weight_decay": 1e-4,
    "temperature": 0.5,
    "dataset": "imagenet2012",
    "image_size": SIZE,
    "eval_split": "validation",
    "backbone": BACKBONE,
    "resnet_depth": 18,
    "use_blur": False,
    "color_jitter_strength": 0.5,
    "width_multiplier": WIDTH,
    "use_tpu": False,
    "num_of_classes": CLASSES,
}
pretrained = st.run(
    images,
    "pretrain",
    train_mode="pretrain",
    train_steps=STEPS,
    checkpoint_steps=max(STEPS // 5, 5),
    validate_every=1,
    learning_rate=1.0,
    **both,
)

# %% [markdown]
# What to look for: views that still show the rock, a loss that leaves chance (dashed), neighbours that rise above chance.

# %%
import csv
import json
import math

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image, display

from simclr_tf.evaluation.bootstrap import bootstrap_metrics
from simclr_tf.evaluation.classifier_figures import confusion_figure
from simclr_tf.evaluation.figures import accuracy_bars
from simclr_tf.evaluation.intervals import wilson_interval
from simclr_tf.evaluation.metrics import confusion_matrix

# %matplotlib inline


def table(file) -> np.ndarray:
    """A CSV of numbers; `table[name]` is a column."""
    return np.atleast_1d(np.genfromtxt(file, delimiter=",", names=True, deletechars=""))


display(Image(pretrained.path / "views.png", width=800))

steps, validations = table("pretrain/metrics.csv"), table("pretrain/validation.csv")
classes = pretrained.images.class_names
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
left.plot(steps["step"], steps["contrast_loss"], linewidth=1)
chance = 2 * math.log(2 * BATCH - 1)
left.axhline(chance, color="grey", linestyle="--", label="chance")
left.set(xlabel="step", ylabel="contrastive loss")
left.legend(frameon=False)
right.plot(validations["step"], validations["validation/knn_accuracy"], marker="o")
right.axhline(1 / len(classes), color="grey", linestyle="--", label="chance")
right.set(xlabel="step", ylabel="10-NN accuracy, validation", ylim=(0, 1.02))
right.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 2. Fine-tune, whole and frozen
#
# The second command of the study: the pretrained weights, a new head, all of the network at a small rate
# (`fine_tune_after_block=-1`). Beside it the same with the stem and block groups 1 to 3 frozen (`fine_tune_after_block=3`).
# Frozen means frozen: weights *and* statistics of batch normalisation.

# %%
tuned = {}
for block in (-1, 3):
    name = f"finetune_after_{block}"
    tuned[name] = st.run(
        images,
        name,
        train_mode="finetune",
        train_steps=FINETUNE_STEPS,
        checkpoint_steps=FINETUNE_STEPS,
        learning_rate=0.1,
        warmup_epochs=2.0,
        checkpoint=pretrained,
        fine_tune_after_block=block,
        labels="yep",
        floors=False,
        **both,
    )

# %% [markdown]
# The proof, from hashes of each block before the first step and after the last:

# %%
for name, run in tuned.items():
    blocks = json.loads((run.path / "result.json").read_text())["blocks"]
    print(name)
    print("  moved: ", ", ".join(block for block, hashes in blocks.items() if hashes["moved"]))
    print(
        "  stayed:",
        ", ".join(block for block, hashes in blocks.items() if not hashes["moved"]) or "nothing",
    )

# %% [markdown]
# ## 3. The head of the study
#
# A linear head on frozen features: LARS, rate 0.1, batches of 64, 25 epochs (`preset="him003"`). The features are computed
# once, so this takes seconds. After each epoch the whole training and validation sets are scored; test images are scored once,
# with the kept epoch.

# %%
head = st.finetune(pretrained, "head", pretrained.images, preset="him003", train_epochs=HEAD_EPOCHS)

# %%
history = table(head.path / "history.csv")
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for axes, quantity in ((left, "loss"), (right, "accuracy")):
    for split in ("train", "validation"):
        axes.plot(history["epoch"], history[f"{split}/{quantity}"], marker=".", label=split)
    axes.set(xlabel="epoch", ylabel=quantity)
    axes.legend(frameon=False)
right.set_ylim(0, 1.02)
figure.suptitle("Linear head on frozen features")
plt.show()

# %% [markdown]
# ## 4. Choose on validation, score the test images once
#
# Accuracy and weighted F1 over **all** validation images at once, with 95 % intervals. With few validation images the
# intervals overlap and the order is mostly luck: the choice is then one of convenience, not a finding.
# The linear head stands beside them; `st.finetune` scored its test images by itself, once.


# %%
def answers(file) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted class of every image of a run's predictions."""
    with open(file, newline="") as lines:
        rows = list(csv.DictReader(lines))
    true, predicted = ([classes.index(row[name]) for row in rows] for name in ("true", "predicted"))
    return np.array(true), np.array(predicted)


right_answers = {}
for name, run in tuned.items():
    true, predicted = answers(run.path / "predictions_validation.csv")
    right = wilson_interval(true == predicted)
    said = np.eye(len(classes))[predicted]
    f1 = bootstrap_metrics(true, said, predicted).overall["weighted_f1"]
    print(f"{name:18} validation accuracy {right:.3f}, weighted F1 {f1:.3f}")
    right_answers[name] = right.value
right, f1 = (head.results[f"validation/{name}"] for name in ("accuracy", "weighted_f1"))
print(f"{'head':18} validation accuracy {right:.3f}, weighted F1 {f1:.3f}")
chosen = max(right_answers, key=right_answers.get)
print("of the two fine-tuned ones goes on:", chosen)

# %% [markdown]
# The evaluation takes the run's own settings. Its result stands beside the first. Below both networks the **floors**, which `st.finetune`
# has measured beside the head: what much simpler methods reach on the same test images. A network that is not above them has learnt nothing that pays.

# %%
st.evaluate(tuned[chosen], "test", eval_name="test", floors=False)
true, predicted = answers(sorted(tuned[chosen].path.glob("*predictions_test*.csv"))[-1])
accuracies = {chosen: wilson_interval(true == predicted)}
accuracies["head on frozen features"] = head.results["test/accuracy"]
floors = {
    "raw_pixels": "raw pixels",
    "untrained features": "untrained features",
    "majority": "most frequent class",
}
accuracies |= {words: head.floors[f"{name}/accuracy"] for name, words in floors.items()}
for name, found in accuracies.items():
    print(
        f"{name}: test accuracy {found.value:.3f} ({found.low:.3f} to {found.high:.3f}), {len(true)} images"
    )
display(accuracy_bars(accuracies, chance=1 / len(classes), title="Test images"))
display(
    confusion_figure(confusion_matrix(true, predicted, len(classes)), classes, title="Test images")
)


# %%
test = pretrained.images.subset("test").paths
wrong = [file for file, ok in zip(test, true == predicted, strict=True) if not ok][:6]
shown = wrong or test[:6]
figure, grid = plt.subplots(1, 6, figsize=(11, 2.6), layout="constrained")
for axes in grid:
    axes.axis("off")
for axes, file in zip(grid, shown, strict=False):
    k = test.index(file)
    axes.imshow(st.read_image(file), cmap="gray")
    axes.set_title(f"is {classes[true[k]]}\nsaid {classes[predicted[k]]}", fontsize=8)
figure.suptitle("Test images that were misjudged" if wrong else "Test images, all judged rightly")
plt.show()

# %% [markdown]
# ## Where to go on
#
# * **Is it worth it for my images?** All six experiments of the study are one call, on one split with one test set:
#   `st.compare(IMAGES, DIR, preset="six_experiments", imagenet_checkpoint="simclrv2/pretrained/r50_1x_sk0", download=True,
#   imagenet_weights="vgg16_notop.weights.h5")` (`docs/compare.md`). Without any weights at hand:
#   `strategies=["scratch", "untrained", "simclr"], minutes=30`.
# * **Folds.** `st.folds(IMAGES, DIR, folds=4)` repeats this with other training images.
# * **Groups.** Several photographs of one core must not lie on both sides of a split: `images.split(..., group_by=...)`. Flipped copies
#   are found and kept together; make such copies *after* the split, with `simclr augment`.
# * **Real size.** `image_size=224, resnet_depth=50, width_multiplier=1, train_batch_size=256, train_epochs=100` on a GPU.
# * `docs/python.md`, `docs/data.md`, `docs/finetune.md`; README, "Training on, frozen where told".
