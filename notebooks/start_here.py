# %% [markdown]
# # Start here: from a folder of images to a classifier whose number can be trusted
#
# You have many images and few labels. This notebook goes the whole way once, on two processor cores and in a few
# minutes: look at the folder, divide it, **pretrain** a network on the images alone, **fine-tune** it with a handful
# of labels, **measure** it on images that no step has seen, and classify new ones.
#
# The images are made by a function (photographs of drill cores), so nothing has to be at hand. To use your own, set
# `IMAGES` in the cell after next to a folder with one sub-folder for each class. Every function is a command too:
# `st.finetune(...)` is `simclr finetune` in a terminal, and keywords are its flags.

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
# Every setting is an environment variable, so whoever runs this notebook from outside can change it. What is set before
# keeps its value. Everything is written below the folder `WORK`.

# %% tags=["parameters"]
import os
import tempfile
from pathlib import Path


def setting(name, default):
    """The environment variable of a name, of the default's type; it becomes the default if it is not set."""
    return type(default)(os.environ.setdefault(name, str(default)))


STEPS = setting("STEPS", 400)  # updates of the pretraining
EPOCHS = setting("EPOCHS", 40)  # of each fine-tuning
LABELS = setting("LABELS", 10)  # labelled images of each class in fine-tuning
IMAGES_PER_CLASS = setting("IMAGES_PER_CLASS", 120)
SIZE = setting("SIZE", 64)  # side of the network's input, in pixels
BACKBONE = setting("BACKBONE", "resnet")  # a ResNet-18; st.list_backbones() has the others
WIDTH = setting("WIDTH", 0.25)  # of the network; 1 is the usual ResNet-18
BATCH = setting("BATCH", 64)
IMAGES = setting("IMAGES", "images")  # your own folder may stand here
NEW_IMAGES = setting("NEW_IMAGES", "new_images")
WORK = Path(setting("WORK", tempfile.mkdtemp(prefix="start_here_")))
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no word of a missing graphics card
WORK.mkdir(parents=True, exist_ok=True)
os.chdir(WORK)
print(f"Everything is written below {Path.cwd()}")

# %% [markdown]
# ## 1. The images
#
# Four kinds of drill core: massive rock (`none`), `layered`, cracked and brecciated. A folder for each class is all
# the structure that is needed. A folder of images without classes would do as well for pretraining.

# %%
import simclr_tf as st

if not Path(IMAGES).exists():
    st.synthesize(IMAGES, kind="core", images_per_class=IMAGES_PER_CLASS, image_size="96")
images = st.images(IMAGES)
images

# %% [markdown]
# ## 2. What is wrong with the folder?
#
# Ask this before anything is trained. `check` looks for damaged files, identical and similar images, classes that
# are few, and for a class that the *file* gives away (its size, its format) rather than what it shows. A network finds
# such a short cut at once and is then useless on other images. It writes a page, `check/report.html`, with a contact
# sheet of each class.

# %%
for finding in images.check("check").findings:
    print(finding.line())

# %% [markdown]
# ## 3. Divide the images once, and keep to it
#
# Train, validation and test are drawn with a seed and with the same shares of each class, and written to `split.csv`, which
# every command and function reads. Images that look alike stay on one side. Several images of one specimen must do so too:
# then add `group_by`. The test images are looked at once, at the very end.

# %%
images.split({"train": 0.6, "validation": 0.15, "test": 0.25}).to_csv("split.csv")
images = st.images("split.csv")
images

# %%
# %matplotlib inline
from IPython.display import display

classes = images.class_names
display(images.subset("train").show(6 * len(classes)))

# %% [markdown]
# ## 4. Pretrain on the images alone
#
# SimCLR shows the network two random crops of each image and asks it to find, among all crops of the batch, the other
# crop of the same image. **No label takes part.** The crops must still show what matters: here at least a fifth of the
# image (`min_crop_area`), turned upside down at times, for a core has no up and down.
#
# The loss begins near 2 ln(2 · 64 - 1) = 9.7 for batches of 64, which is chance, and must fall. Whether the features are of
# *use* is told by the labels of the validation images: the accuracy of the 10 nearest neighbours, every so many steps.

# %%
run = st.run(
    images,
    "pretrain",
    mode="train_then_eval",
    train_mode="pretrain",
    image_size=SIZE,
    backbone=BACKBONE,
    resnet_depth=18,
    width_multiplier=WIDTH,
    train_batch_size=BATCH,
    train_steps=STEPS,
    checkpoint_steps=max(STEPS // 5, 5),
    validate_every=1,
    optimizer="adam",
    learning_rate=0.008,
    temperature=0.2,
    color_jitter_strength=0.5,
    use_blur=False,
    vertical_flip=True,
    min_crop_area=0.2,
)

# %% [markdown]
# First look at what the network saw. If the two views of an image show nothing in common, nothing can be learnt.

# %%
from IPython.display import Image

display(Image(run.path / "views.png", width=800))

# %% [markdown]
# Then at the curves. *Left:* the loss should leave the dashed line. *Right:* the nearest neighbours should rise above chance.
# A curve that has not levelled off wants more `STEPS`. (With pandas, `run.history()` and `run.validations()` are these tables.)

# %%
import math

import matplotlib.pyplot as plt
import numpy as np


def table(file) -> np.ndarray:
    """A CSV of numbers; `table[name]` is a column."""
    return np.atleast_1d(np.genfromtxt(file, delimiter=",", names=True, deletechars=""))


steps, validations = table(run.path / "metrics.csv"), table(run.path / "validation.csv")
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
left.plot(steps["step"], steps["contrast_loss"], linewidth=1)
left.axhline(2 * math.log(2 * BATCH - 1), color="grey", linestyle="--", label="chance")
left.set(xlabel="step", ylabel="contrastive loss")
left.legend(frameon=False)
knn = validations["validation/knn_accuracy"]
low, high = (validations[f"validation/knn_accuracy_{end}"] for end in ("low", "high"))
right.errorbar(validations["step"], knn, yerr=[knn - low, high - knn], marker="o", capsize=3)
right.axhline(1 / len(classes), color="grey", linestyle="--", label="chance")
right.set(xlabel="step", ylabel="10-NN accuracy, validation", ylim=(0, 1.02))
right.legend(frameon=False)
plt.show()

found = run.results["validation/knn_accuracy"]
print(f"10-NN accuracy on the validation images: {found:.3f}")
print(run.verdict)

# %% [markdown]
# ## 5. Fine-tune with few labels, and compare with no pretraining
#
# A number alone says little. So the same network is trained twice on the *same few labels*: once from the pretrained weights,
# once from scratch (`fresh_weights`). Both make the same number of updates, keep the epoch that is best on validation and
# score the test images once. Each writes a page, `report.html`. Batches are small, for a network learns by updates: with 40
# labelled images, batches of 64 would make one update an epoch.

# %%
how = {
    "labels_per_class": LABELS,
    "train_batch_size": 8,
    "train_epochs": EPOCHS,
    "vertical_flip": True,
    "min_crop_area": 0.5,
    "score_train": False,
}
finetuned = st.finetune(run, "finetuned", images, layer_decay=0.75, **how)
from_scratch = st.finetune(run, "from_scratch", images, fresh_weights=True, floors=False, **how)

# %% [markdown]
# Below them the **floors**: what a much simpler method makes of the same few labels on the same test images (they are the same for both
# networks, so they are computed once). A network that is not above them has learnt nothing that pays, whatever its number looks like.

# %%
from simclr_tf.evaluation.figures import accuracy_bars

accuracies = {
    "pretrained": finetuned.results["test/accuracy"],
    "from scratch": from_scratch.results["test/accuracy"],
}
floors = {
    "raw pixels": "raw_pixels",
    "untrained features": "untrained features",
    "most frequent class": "majority",
}
accuracies |= {words: finetuned.floors[f"{name}/accuracy"] for words, name in floors.items()}
for name, interval in accuracies.items():
    print(
        f"{name}: test accuracy {interval.value:.3f} (95 % interval {interval.low:.3f} to {interval.high:.3f})"
    )
print(finetuned.verdict)
display(accuracy_bars(accuracies, chance=1 / len(classes), title="Test accuracy with few labels"))

# %% [markdown]
# Do not read a difference off two bars. Both classifiers were scored on the same images, so the difference can be
# measured image by image, and it is real only if its interval leaves out 0. If it holds 0, the honest sentence is
# "not told apart": label more test images, or repeat over folds (`st.folds`).

# %%
gain = finetuned.difference(from_scratch)
print(
    f"pretrained minus from scratch: {gain.value:+.3f} (95 % interval {gain.low:+.3f} to {gain.high:+.3f})"
)
verdict = "leaves out 0" if gain.low * gain.high > 0 else "holds 0: not told apart"
print(f"The interval {verdict}.")

# %% [markdown]
# Which classes are taken for which? Rows are the truth, columns what was said.

# %%
display(finetuned.confusion())

# %% [markdown]
# ## 6. Classify new images
#
# These were made with another seed, as if they came from the next borehole. The images are read and prepared exactly as in
# training; nothing has to be remembered.

# %%
if not Path(NEW_IMAGES).exists():
    st.synthesize(NEW_IMAGES, kind="core", images_per_class=4, image_size="96", seed=1)
predictions = finetuned.predict(NEW_IMAGES, "predictions.csv").rows()

# %%
print("columns:", ", ".join(predictions[0]))

chosen = predictions[:: max(1, len(predictions) // 8)][:8]
figure, grid = plt.subplots(2, 4, figsize=(9, 5), layout="constrained")
for axes, row in zip(grid.flat, chosen, strict=False):
    axes.imshow(st.read_image(row["path"]), cmap="gray")
    axes.set_title(f"{row['predicted']} ({float(row['score_1']):.2f})", fontsize=10)
for axes in grid.flat:
    axes.axis("off")
figure.suptitle("New images, what is said of them, and how surely")
plt.show()

# %% [markdown]
# ## Where to go on
#
# * **Your own folder.** Set `IMAGES`, and leave out step 6 or set `NEW_IMAGES`. First look at `check/report.html`.
# * **Real size.** With a GPU: `image_size=224, resnet_depth=50, width_multiplier=1, train_batch_size=256` and the
#   epochs that make some thousand updates; `st.pretrain` chooses them itself to suit images and machine.
# * **Public weights.** `st.list_checkpoints()` lists the published SimCLR checkpoints; `checkpoint` and `encoder` take their names.
# * **Which way is best for my images?** `st.compare(images, "which", minutes=30)` answers it (`docs/compare.md`).
# * `docs/python.md` (all functions), `docs/data.md` (images of any kind, splits), `docs/finetune.md` (classifiers, folds, export),
#   `docs/embed.md` (looking at features); and the notebooks beside this one: drill cores (A), lattices (B), lenses (C),
#   diffraction (D), depth (E).
