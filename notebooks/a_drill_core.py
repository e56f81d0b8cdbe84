# %% [markdown]
# # A. Drill cores: pretrain on one's own images, then fine-tune, frozen up to a block
#
# A published study trained SimCLRv2 on 12,827 photographs of drill cores and asked whether self-supervision on one's own images
# beats transfer from ImageNet. Its two commands, *pretrain* and *fine-tune*, run here as they stand but for paths and sizes. Then
# some blocks are frozen, one of the two fine-tuned networks is chosen on validation images, and only that one is scored on the test images.
#
# What went wrong in the original code, and cannot here: the evaluation read the training folder; the probe learnt from random
# labels; F1 was a mean over batches; the test images were scored every epoch; frozen blocks moved in their batch normalisation.

# %%
import sys

if "google.colab" in sys.modules:
    print("Installing the package on this Colab machine.")
    # %pip install --quiet simclr-tf

# %% [markdown]
# ## Settings
#
# Environment variables, so the commands see them; what is set before keeps its value. Everything is written below `WORK`. Where
# `SIMCLR_TF_DATA` names a folder with the set `carbonate_thin_sections` (thin sections of rock under the microscope), these
# images are taken; else photographs of drill cores are made.

# %% tags=["parameters"]
import os
import sysconfig
import tempfile
from pathlib import Path

os.environ.setdefault("STEPS", "400")  # updates of the pretraining
os.environ.setdefault("FINETUNE_STEPS", "200")  # updates of each fine-tuning
os.environ.setdefault("HEAD_EPOCHS", "25")  # of the linear head
os.environ.setdefault("IMAGES_PER_CLASS", "100")
os.environ.setdefault("SIZE", "64")  # side of the network's input, in pixels; the study had 224
os.environ.setdefault("WIDTH", "0.25")  # of the network; 1 is the usual ResNet
os.environ.setdefault("BATCH", "64")
real = Path(os.environ.get("SIMCLR_TF_DATA", "")).resolve() / "carbonate_thin_sections"
found = bool(os.environ.get("SIMCLR_TF_DATA")) and real.is_dir()
os.environ.setdefault("IMAGES", str(real) if found else "images")
os.environ.setdefault("CLASSES", "3" if found else "4")
os.environ.setdefault("WORK", tempfile.mkdtemp(prefix="a_drill_core_"))
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no word of a missing graphics card
os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]
os.makedirs(os.environ["WORK"], exist_ok=True)
os.chdir(os.environ["WORK"])
print(f"Everything is written below {Path.cwd()}")

# %% language="bash" magic_args="-e"
# if [ ! -e "$IMAGES" ]; then
#     simclr-synthesize --kind=core --output="$IMAGES" --images_per_class="$IMAGES_PER_CLASS" --image_size=96
# fi

# %% [markdown]
# ## 1. Pretrain
#
# The first command of the study. `--image_dir` holds a folder for each class, or images alone; the labels teach the network
# nothing (they only let the run report nearest neighbours). The split is seeded and written down: the same folder gives the same
# split in every command below. The number of images is counted, not typed in. `--num_of_classes` is only checked.

# %% language="bash" magic_args="-e"
# simclr-run --mode=train_then_eval --train_mode=pretrain \
#     --train_batch_size="$BATCH" --train_steps="$STEPS" --checkpoint_steps=$((STEPS / 5)) --validate_every=1 \
#     --sk_ratio=0 --learning_rate=1.0 --weight_decay=1e-4 --temperature=0.5 \
#     --dataset=imagenet2012 --image_size="$SIZE" --eval_split=validation --resnet_depth=18 \
#     --use_blur=False --color_jitter_strength=0.5 --width_multiplier="$WIDTH" --model_dir=pretrain --use_tpu=False \
#     --num_of_classes="$CLASSES" --image_dir="$IMAGES"

# %% [markdown]
# What to look for: views that still show the rock, a loss that leaves chance (dashed), neighbours that rise above chance.

# %%
import csv
import io
import json
import math

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Image as ShownImage
from IPython.display import display
from PIL import Image

from data_prep.manifest.manifest import Manifest
from data_prep.reading.thumbnails import thumbnail
from simclr_tf.evaluation.classifier_figures import confusion_figure
from simclr_tf.evaluation.intervals import bootstrap_interval, wilson_interval
from simclr_tf.evaluation.metrics import confusion_matrix, weighted_f1

# %matplotlib inline


def table(file: str) -> np.ndarray:
    """A CSV of numbers; `table[name]` is a column."""
    return np.atleast_1d(np.genfromtxt(file, delimiter=",", names=True, deletechars=""))


display(ShownImage("pretrain/views.png", width=800))

steps, validations = table("pretrain/metrics.csv"), table("pretrain/validation.csv")
classes = Manifest.load("pretrain/manifest.csv").class_names
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
left.plot(steps["step"], steps["contrast_loss"], linewidth=1)
chance = 2 * math.log(2 * int(os.environ["BATCH"]) - 1)
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
# (`--fine_tune_after_block=-1`). Beside it the same with the stem and block groups 1 to 3 frozen (`--fine_tune_after_block=3`).
# Frozen means frozen: weights *and* statistics of batch normalisation.

# %% language="bash" magic_args="-e"
# for block in -1 3; do
#     simclr-run --mode=train_then_eval --train_mode=finetune \
#         --train_batch_size="$BATCH" --train_steps="$FINETUNE_STEPS" --checkpoint_steps="$FINETUNE_STEPS" \
#         --sk_ratio=0 --learning_rate=0.1 --warmup_epochs=2 --weight_decay=1e-4 --temperature=0.5 \
#         --dataset=imagenet2012 --image_size="$SIZE" --eval_split=validation --resnet_depth=18 \
#         --use_blur=False --color_jitter_strength=0.5 --width_multiplier="$WIDTH" --use_tpu=False \
#         --num_of_classes="$CLASSES" --image_dir="$IMAGES" \
#         --checkpoint=pretrain --fine_tune_after_block="$block" --labels="yep" --model_dir="finetune_after_$block"
# done

# %% [markdown]
# The proof, from hashes of each block before the first step and after the last:

# %%
for name in ("finetune_after_-1", "finetune_after_3"):
    blocks = json.loads(Path(name, "result.json").read_text())["blocks"]
    print(name)
    print("  moved: ", ", ".join(block for block, hashes in blocks.items() if hashes["moved"]))
    print(
        "  stayed:",
        ", ".join(block for block, hashes in blocks.items() if not hashes["moved"]) or "nothing",
    )

# %% [markdown]
# ## 3. The head of the study
#
# A linear head on frozen features: LARS, rate 0.1, batches of 64, 25 epochs (`--preset=him003`). The features are computed
# once, so this takes seconds. After each epoch the whole training and validation sets are scored; test images are scored once,
# with the kept epoch.

# %% language="bash" magic_args="-e"
# simclr-finetune --preset=him003 --encoder=pretrain --manifest=pretrain/manifest.csv \
#     --train_epochs="$HEAD_EPOCHS" --output=head

# %%
history = table("head/history.csv")
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
# The linear head stands beside them; `simclr-finetune` scored its test images by itself, once.

# %%
from finetune.report.files import read_results


def answers(file: str) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted class of every image of a run's predictions."""
    with open(file, newline="") as lines:
        rows = list(csv.DictReader(lines))
    true, predicted = ([classes.index(row[name]) for row in rows] for name in ("true", "predicted"))
    return np.array(true), np.array(predicted)


candidates = {
    name: answers(f"{name}/predictions_validation.csv")
    for name in ("finetune_after_-1", "finetune_after_3")
}
head = read_results("head")
scored = head.splits["validation"]
candidates["head"] = scored.labels, scored.scores.argmax(axis=1)

for name, (true, predicted) in candidates.items():
    right = wilson_interval(true == predicted)
    f1 = bootstrap_interval(weighted_f1, true, predicted)
    print(
        f"{name:18} validation accuracy {right.value:.3f} ({right.low:.3f} to {right.high:.3f}), "
        f"weighted F1 {f1.value:.3f} ({f1.low:.3f} to {f1.high:.3f})"
    )
tuned = [name for name in candidates if name != "head"]
os.environ["CHOSEN"] = max(
    tuned, key=lambda name: (candidates[name][0] == candidates[name][1]).mean()
)
print("of the two fine-tuned ones goes on:", os.environ["CHOSEN"])

# %% [markdown]
# `--flagfile` repeats a run's own settings, so the evaluation needs three more words. Its result stands beside the first.

# %% language="bash" magic_args="-e"
# simclr-run --flagfile="$CHOSEN/flags.txt" --model_dir="$CHOSEN" --mode=eval --eval_split=test --eval_name=test

# %%
files = sorted(Path(os.environ["CHOSEN"]).glob("*predictions_test*.csv"))
true, predicted = answers(str(files[-1]))
right = wilson_interval(true == predicted)
print(
    f"{os.environ['CHOSEN']}: test accuracy {right.value:.3f} ({right.low:.3f} to {right.high:.3f}), {len(true)} images"
)
whole = head.results.splits["test"].metrics["accuracy"]
print(
    f"head on frozen features: test accuracy {whole.value:.3f} ({whole.low:.3f} to {whole.high:.3f})"
)
display(
    confusion_figure(confusion_matrix(true, predicted, len(classes)), classes, title="Test images")
)


# %%
def picture(file: str, reading: str = "") -> np.ndarray:
    """An image of any format and bit depth, made small enough to show."""
    return np.asarray(Image.open(io.BytesIO(thumbnail(file, reading=reading))))


test = Manifest.load("pretrain/manifest.csv").split("test").files()
wrong = [file for file, ok in zip(test, true == predicted, strict=True) if not ok][:6]
shown = wrong or test[:6]
figure, grid = plt.subplots(1, 6, figsize=(11, 2.6), layout="constrained")
for axes in grid:
    axes.axis("off")
for axes, file in zip(grid, shown, strict=False):
    k = test.index(file)
    axes.imshow(picture(file), cmap="gray")
    axes.set_title(f"is {classes[true[k]]}\nsaid {classes[predicted[k]]}", fontsize=8)
figure.suptitle("Test images that were misjudged" if wrong else "Test images, all judged rightly")
plt.show()

# %% [markdown]
# ## Where to go on
#
# * **Is it worth it for my images?** All six experiments of the study are one command, on one split with one test set:
#   `simclr-compare --image_dir=IMAGES --preset=six_experiments --imagenet_checkpoint=simclrv2/pretrained/r50_1x_sk0 --download
#   --imagenet_weights=vgg16_notop.weights.h5 --output=DIR` (`docs/compare.md`). Without any weights at hand:
#   `--strategies=scratch,untrained,simclr --minutes=30`.
# * **Folds.** `simclr-split --folds=4 --sealed=test:0.1` and `simclr-folds` repeat this with other training images.
# * **Groups.** Several photographs of one core must not lie on both sides of a split: `simclr-split --group_by`. Flipped copies
#   are found and kept together; make such copies *after* the split, with `simclr-augment`.
# * **Real size.** `--image_size=224 --resnet_depth=50 --width_multiplier=1 --train_batch_size=256 --train_epochs=100` on a GPU.
# * `docs/data.md`, `docs/finetune.md`; README, "Training on, frozen where told".
