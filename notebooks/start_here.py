# %% [markdown]
# # Start here: from a folder of images to a classifier whose number can be trusted
#
# You have many images and few labels. This notebook goes the whole way once, on two processor cores and in a few
# minutes: look at the folder, divide it, **pretrain** a network on the images alone, **fine-tune** it with a handful
# of labels, **measure** it on images that no step has seen, and classify new ones.
#
# The images are made by a command (photographs of drill cores), so nothing has to be at hand. To use your own, set
# `IMAGES` in the cell after next to a folder with one sub-folder for each class. All work is done by commands; the same lines
# run in a terminal.

# %%
import sys

if "google.colab" in sys.modules:
    print("Installing the package on this Colab machine.")
    # %pip install --quiet simclr-tf

# %% [markdown]
# ## Settings
#
# Every setting is an environment variable, so the commands below see it, and so does whoever runs this notebook from
# outside. What you set before keeps its value. Everything is written below the folder `WORK`.

# %% tags=["parameters"]
import os
import sysconfig
import tempfile
from pathlib import Path

os.environ.setdefault("STEPS", "400")  # updates of the pretraining
os.environ.setdefault("EPOCHS", "40")  # of each fine-tuning
os.environ.setdefault("LABELS", "10")  # labelled images of each class in fine-tuning
os.environ.setdefault("IMAGES_PER_CLASS", "120")
os.environ.setdefault("SIZE", "64")  # side of the network's input, in pixels
os.environ.setdefault("WIDTH", "0.25")  # of the network; 1 is the usual ResNet-18
os.environ.setdefault("BATCH", "64")
os.environ.setdefault("WORK", tempfile.mkdtemp(prefix="start_here_"))
os.environ.setdefault("IMAGES", "images")  # your own folder may stand here
os.environ.setdefault("NEW_IMAGES", "new_images")
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no word of a missing graphics card
os.environ["PATH"] = sysconfig.get_path("scripts") + os.pathsep + os.environ["PATH"]
os.makedirs(os.environ["WORK"], exist_ok=True)
os.chdir(os.environ["WORK"])
print(f"Everything is written below {Path.cwd()}")

# %% [markdown]
# ## 1. The images
#
# Four kinds of drill core: massive rock (`none`), `layered`, cracked and brecciated. A folder for each class is all
# the structure that is needed. A folder of images without classes would do as well for pretraining.

# %% language="bash" magic_args="-e"
# if [ ! -e "$IMAGES" ]; then
#     simclr-synthesize --kind=core --output="$IMAGES" --images_per_class="$IMAGES_PER_CLASS" --image_size=96
# fi

# %% [markdown]
# ## 2. What is wrong with the folder?
#
# Ask this before anything is trained. `simclr-check` looks for damaged files, identical and similar images, classes that
# are few, and for a class that the *file* gives away (its size, its format) rather than what it shows. A network finds
# such a short cut at once and is then useless on other images. It writes a page, `check/report.html`, with a contact
# sheet of each class.

# %% language="bash" magic_args="-e"
# simclr-check --image_dir="$IMAGES" --output=check --fail_on=never

# %% [markdown]
# ## 3. Divide the images once, and keep to it
#
# Train, validation and test are drawn with a seed and with the same shares of each class, and written to `split.csv`, which
# all later commands read. Images that look alike stay on one side. Several images of one specimen must do so too: then add
# `--group_by`. The test images are looked at once, at the very end.

# %% language="bash" magic_args="-e"
# simclr-split --image_dir="$IMAGES" --ratios=train:0.6,validation:0.15,test:0.25 --output=split.csv

# %%
import io

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from data_prep.manifest.manifest import Manifest
from data_prep.reading.thumbnails import thumbnail

# %matplotlib inline


def picture(file: str) -> np.ndarray:
    """An image of any format and bit depth, made small enough to show."""
    return np.asarray(Image.open(io.BytesIO(thumbnail(file))))


manifest = Manifest.load("split.csv")
classes = manifest.class_names
train = manifest.split("train")

figure, grid = plt.subplots(
    len(classes), 6, figsize=(9, 1.6 * len(classes)), squeeze=False, layout="constrained"
)
for row, name in zip(grid, classes, strict=True):
    files = train.subset(record for record in train.records if record.label == name).files()
    for axes, file in zip(row, files, strict=False):
        axes.imshow(picture(file), cmap="gray")
    for axes in row:
        axes.set(xticks=[], yticks=[])
    row[0].set_ylabel(name)
figure.suptitle("Training images, six of each class")
plt.show()

# %% [markdown]
# ## 4. Pretrain on the images alone
#
# SimCLR shows the network two random crops of each image and asks it to find, among all crops of the batch, the other
# crop of the same image. **No label takes part.** The crops must still show what matters: here at least a fifth of the
# image (`--min_crop_area`), turned upside down at times, for a core has no up and down.
#
# The loss begins near 2 ln(2 · 64 - 1) = 9.7 for batches of 64, which is chance, and must fall. Whether the features are of
# *use* is told by the labels of the validation images: the accuracy of the 10 nearest neighbours, every so many steps.

# %% language="bash" magic_args="-e"
# simclr-run --mode=train_then_eval --train_mode=pretrain \
#     --manifest=split.csv --model_dir=pretrain \
#     --image_size="$SIZE" --resnet_depth=18 --width_multiplier="$WIDTH" \
#     --train_batch_size="$BATCH" --train_steps="$STEPS" --checkpoint_steps=$((STEPS / 5)) --validate_every=1 \
#     --optimizer=adam --learning_rate=0.008 --temperature=0.2 \
#     --color_jitter_strength=0.5 --nouse_blur --vertical_flip --min_crop_area=0.2

# %% [markdown]
# First look at what the network saw. If the two views of an image show nothing in common, nothing can be learnt.

# %%
from IPython.display import Image as ShownImage
from IPython.display import display

display(ShownImage("pretrain/views.png", width=800))

# %% [markdown]
# Then at the curves. *Left:* the loss should leave the dashed line. *Right:* the nearest neighbours should rise above chance.
# A curve that has not levelled off wants more `STEPS`.

# %%
import csv
import json
import math


def table(file: str) -> np.ndarray:
    """A CSV of numbers; `table[name]` is a column."""
    return np.atleast_1d(np.genfromtxt(file, delimiter=",", names=True, deletechars=""))


steps, validations = table("pretrain/metrics.csv"), table("pretrain/validation.csv")
batch = int(os.environ["BATCH"])
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
left.plot(steps["step"], steps["contrast_loss"], linewidth=1)
left.axhline(2 * math.log(2 * batch - 1), color="grey", linestyle="--", label="chance")
left.set(xlabel="step", ylabel="contrastive loss")
left.legend(frameon=False)
knn = validations["validation/knn_accuracy"]
low, high = (validations[f"validation/knn_accuracy_{end}"] for end in ("low", "high"))
right.errorbar(validations["step"], knn, yerr=[knn - low, high - knn], marker="o", capsize=3)
right.axhline(1 / len(classes), color="grey", linestyle="--", label="chance")
right.set(xlabel="step", ylabel="10-NN accuracy, validation", ylim=(0, 1.02))
right.legend(frameon=False)
plt.show()

facts = json.loads(Path("pretrain/result.json").read_text())
print(f"10-NN accuracy on the validation images: {facts['validation/knn_accuracy']:.3f}")

# %% [markdown]
# ## 5. Fine-tune with few labels, and compare with no pretraining
#
# A number alone says little. So the same network is trained twice on the *same few labels*: once from the pretrained weights,
# once from scratch (`--fresh_weights`). Both make the same number of updates, keep the epoch that is best on validation and
# score the test images once. Each writes a page, `report.html`. Batches are small, for a network learns by updates: with 40
# labelled images, batches of 64 would make one update an epoch.

# %% language="bash" magic_args="-e"
# how="--manifest=split.csv --labels_per_class=$LABELS --train_batch_size=8 --train_epochs=$EPOCHS
#     --vertical_flip --min_crop_area=0.5 --noscore_train"
# simclr-finetune --encoder=pretrain $how --layer_decay=0.75 --output=finetuned
# simclr-finetune --encoder=pretrain $how --fresh_weights --output=from_scratch

# %%
from finetune.report.files import read_results
from simclr_tf.evaluation.classifier_figures import confusion_figure
from simclr_tf.evaluation.figures import accuracy_bars

stored = {"pretrained": read_results("finetuned"), "from scratch": read_results("from_scratch")}
accuracies = {}
for name, one in stored.items():
    accuracies[name] = interval = one.results.splits["test"].metrics["accuracy"]
    print(
        f"{name}: test accuracy {interval.value:.3f} (95 % interval {interval.low:.3f} to {interval.high:.3f})"
    )
display(accuracy_bars(accuracies, chance=1 / len(classes), title="Test accuracy with few labels"))

# %% [markdown]
# Do not read a difference off two bars. Both classifiers were scored on the same images, so the difference can be
# measured image by image, and it is real only if its interval leaves out 0. If it holds 0, the honest sentence is
# "not told apart": label more test images, or repeat over folds (`simclr-folds`).

# %%
from simclr_tf.evaluation.intervals import paired_difference
from simclr_tf.evaluation.metrics import accuracy

tests = [one.splits["test"] for one in stored.values()]
assert tests[0].paths == tests[1].paths, "the same images in the same order"
said = [test.scores.argmax(axis=1) for test in tests]
gain = paired_difference(accuracy, tests[0].labels, *said)
print(
    f"pretrained minus from scratch: {gain.value:+.3f} (95 % interval {gain.low:+.3f} to {gain.high:+.3f})"
)
verdict = "leaves out 0" if gain.low * gain.high > 0 else "holds 0: not told apart"
print(f"The interval {verdict}.")

# %% [markdown]
# Which classes are taken for which? Rows are the truth, columns what was said.

# %%
best = stored["pretrained"].results
display(
    confusion_figure(
        best.splits["test"].confusion, best.class_names, title="Pretrained, test images"
    )
)

# %% [markdown]
# ## 6. Classify new images
#
# These were made with another seed, as if they came from the next borehole. The images are read and prepared exactly as in
# training; nothing has to be remembered.

# %% language="bash" magic_args="-e"
# if [ ! -e "$NEW_IMAGES" ]; then
#     simclr-synthesize --kind=core --output="$NEW_IMAGES" --images_per_class=4 --image_size=96 --seed=1
# fi
# simclr-predict --model=finetuned --image_dir="$NEW_IMAGES" --output=predictions.csv

# %%
with open("predictions.csv", newline="") as lines:
    predictions = list(csv.DictReader(lines))
print("columns:", ", ".join(predictions[0]))

chosen = predictions[:: max(1, len(predictions) // 8)][:8]
figure, grid = plt.subplots(2, 4, figsize=(9, 5), layout="constrained")
for axes, row in zip(grid.flat, chosen, strict=False):
    axes.imshow(picture(row["path"]), cmap="gray")
    axes.set_title(f"{row['predicted']} ({float(row['score_1']):.2f})", fontsize=10)
for axes in grid.flat:
    axes.axis("off")
figure.suptitle("New images, what is said of them, and how surely")
plt.show()

# %% [markdown]
# ## Where to go on
#
# * **Your own folder.** Set `IMAGES`, and leave out step 6 or set `NEW_IMAGES`. First look at `check/report.html`.
# * **Real size.** With a GPU: `--image_size=224 --resnet_depth=50 --width_multiplier=1 --train_batch_size=256` and the
#   epochs that make some thousand updates. `simclr-stats` suggests batch and epochs.
# * **Public weights.** `simclr-zoo` lists the published SimCLR checkpoints; `--checkpoint=` and `--encoder=` take their names.
# * **Which way is best for my images?** `simclr-compare --image_dir=... --minutes=30` answers it (`docs/compare.md`).
# * `docs/data.md` (images of any kind, splits), `docs/finetune.md` (classifiers, folds, export), `docs/embed.md`
#   (looking at features); and the notebooks beside this one: drill cores (A), lattices (B), lenses (C), diffraction (D), depth (E).
