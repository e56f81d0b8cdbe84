# %% [markdown]
# # E. Depth from SEM images: pairs, a router, and errors in nanometres
#
# How deep is a hole, seen from above? Simulations give pairs of image and depth map; the real microscope gives images and, per
# site, one mean depth. The published way is followed: a classifier tells which of four cases an image shows (the *router*), a network for
# each case makes the depth map.
#
# What went wrong there, and cannot here: pairs by the order of two file lists; an "RMSE" that was the root of an L1 loss after a cast to 8-bit
# integers; two images of one depth map on both sides of the split. Here pairs stand in a manifest, images of one map stay together, and errors
# are in the unit of depth over all pixels.

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
# Environment variables; what is set before keeps its value. Everything is written below `WORK`.

# %% tags=["parameters"]
import os
import tempfile
from pathlib import Path


def setting(name, default):
    """The environment variable of a name, of the default's type; it becomes the default if it is not set."""
    return type(default)(os.environ.setdefault(name, str(default)))


MAPS_PER_CASE = setting("MAPS_PER_CASE", 60)  # depth maps of each case; two images each
CASES = setting("CASES", "case_1,case_2,case_3,case_4")
DEPTH_EPOCHS = setting("DEPTH_EPOCHS", 24)  # of each case's network
FILTERS = setting(
    "FILTERS", "8,16,32"
)  # of the U-Net, from level to level; the usual one has 16,32,64,128
ROUTER_STEPS = setting("ROUTER_STEPS", 400)  # updates of the classifier
SIZE = setting("SIZE", 48)  # side of the classifier's input, in pixels
BACKBONE = setting("BACKBONE", "resnet")  # of the classifier, a ResNet-18
WIDTH = setting("WIDTH", 0.25)  # of the classifier; 1 is the usual ResNet-18
WORK = Path(setting("WORK", tempfile.mkdtemp(prefix="e_depth_")))
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # no word of a missing graphics card
WORK.mkdir(parents=True, exist_ok=True)
os.chdir(WORK)
print(f"Everything is written below {Path.cwd()}")

# %% [markdown]
# ## 1. Pairs
#
# `holes/manifest.csv` names for each simulated image its depth map (`target`), how many units a stored unit is (`target_scale`), the
# `case`, and the `group`: both images of one map. The split keeps groups whole. Images of one case look alike by nature, so looking for
# near duplicates is turned off here; the groups do that job.

# %%
import simclr_tf as st

st.synthesize(
    "holes",
    kind="sem_depth",
    images_per_class=MAPS_PER_CASE,
    classes=CASES.split(","),
    format="png16",
)
pairs = st.images("holes/manifest.csv").split(
    {"train": 0.6, "validation": 0.2, "test": 0.2}, group_by="group", near_duplicates="ignore"
)
pairs.to_csv("split.csv")
pairs = st.images("split.csv")

# %%
import json

import matplotlib.pyplot as plt
import numpy as np

from data_prep.reading.images import read_stored

# %matplotlib inline

manifest = pairs.manifest
cases = sorted({record.case for record in manifest.records})
table = list(zip(manifest.records, manifest.files(), manifest.target_files(), strict=True))


def true_depth(record, target: str) -> np.ndarray:
    """The depth map of a target file, in nm."""
    return read_stored(target)[..., 0] * float(record.target_scale)


sides: dict[str, set[str]] = {}
for record in manifest.records:
    sides.setdefault(record.group, set()).add(record.split)
print(
    f"{len(sides)} depth maps, {len(manifest)} images; on two sides of the split: {sum(len(s) > 1 for s in sides.values())}"
)

figure, grid = plt.subplots(
    2, len(cases), figsize=(2 * len(cases) + 1, 5.6), squeeze=False, layout="constrained"
)
examples = [next(row for row in table if row[0].case == case) for case in cases]
depths = [true_depth(record, target) for record, _, target in examples]
limits = {"vmin": min(d.min() for d in depths), "vmax": max(d.max() for d in depths)}
for (above, below), (record, file, _), depth in zip(grid.T, examples, depths, strict=True):
    above.imshow(read_stored(file)[..., 0], cmap="gray")
    above.set_title(record.case)
    drawn = below.imshow(depth, cmap="viridis", **limits)
for axes in grid.flat:
    axes.set(xticks=[], yticks=[])
grid[0, 0].set_ylabel("SEM image")
grid[1, 0].set_ylabel("depth map")
figure.colorbar(drawn, ax=grid, label="depth (nm)", shrink=0.6)
plt.show()

# %% [markdown]
# ## 2. The router: which case is it?
#
# A small classifier whose classes are the cases, trained from scratch. The cases differ in the depth of the hole, so the grey level of the bottom
# gives them away. No colour jitter here: brightness *is* the signal.

# %%
router = st.run(
    pairs,
    "router",
    mode="train_then_eval",
    train_mode="finetune",
    image_size=SIZE,
    backbone=BACKBONE,
    resnet_depth=18,
    width_multiplier=WIDTH,
    train_batch_size=32,
    train_steps=ROUTER_STEPS,
    checkpoint_steps=ROUTER_STEPS,
    optimizer="adam",
    learning_rate=0.008,
    warmup_epochs=1.0,
    weight_decay=1e-4,
    color_jitter_strength=0.0,
    vertical_flip=True,
    min_crop_area=0.5,
    eval_split="validation",
)
print(router.verdict)

# %% [markdown]
# ## 3. A network of depth for each case
#
# A U-Net on pairs, L1 loss, for each case on its own (`per_case`). Of each the epoch with the least validation RMSE is kept: over all pixels
# of all validation images, in nm.

# %%
networks = st.depth_train(
    pairs,
    "depth_per_case",
    model="unet",
    filters=FILTERS,
    unit="nm",
    per_case=True,
    train_batch_size=8,
    train_epochs=DEPTH_EPOCHS,
    sample_every=0,
)

# %%
figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
for folder in sorted(networks.path.glob("case_*")):
    history = np.atleast_1d(
        np.genfromtxt(folder / "history.csv", delimiter=",", names=True, deletechars="")
    )
    column = next(
        name for name in history.dtype.names if "validation" in name and "rmse" in name.lower()
    )
    axes.plot(
        history["epoch"], history[column], marker=".", label=folder.name.removeprefix("case_")
    )
axes.set(xlabel="epoch", ylabel="validation RMSE (nm)", ylim=(0, None))
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 4. Test images, routed, with true errors
#
# Each test image is sent to the network of the case that the router sees in it, writes the depth maps (16-bit PNG and NPY), and
# measures them. A number needs something to be held against: `constant` is the error of the best single depth, `one map` that of the
# best single map for all images, both without looking at any image. A network worth having lies well below. An image that the router sends
# astray gets the bottom of another case: look at the last line before blaming the networks.

# %%
tested = networks.predict(pairs, "depth_test", router=router, split="test")

# %%
metrics = json.loads((tested.path / "metrics.json").read_text())
unit = metrics["unit"]
measured = metrics["splits"]["test"]
for name, numbers in [("all", measured["all"]), *measured["cases"].items()]:
    rmse = numbers["rmse"]
    spread = "one image" if rmse["low"] is None else f"{rmse['low']:.2f} to {rmse['high']:.2f}"
    print(
        f"{name:7} RMSE {rmse['value']:.2f} {unit} ({spread}), "
        f"best constant {numbers['constant_rmse']:.2f}, best single map {numbers['map_rmse']:.2f}, {numbers['images']} images"
    )
routed = metrics["routing"]["accuracy"]
print(
    f"sent to the network of their case: {routed['value']:.3f} ({routed['low']:.3f} to {routed['high']:.3f})"
)

# %% [markdown]
# The maps beside the truth, and the error on a scale of its own. Look where the error sits: at the rim, or everywhere (then the depth of the
# bottom is wrong).

# %%
test = [row for row in table if row[0].split == "test"]
predicted_files = {path.stem: path for path in (tested.path / "float").rglob("*.npy")}
figure, grid = plt.subplots(
    4, len(cases), figsize=(2 * len(cases) + 1.4, 10), squeeze=False, layout="constrained"
)
triples = []
for case in cases:
    record, file, target = next(row for row in test if row[0].case == case)
    triples.append(
        (record, file, true_depth(record, target), np.load(predicted_files[Path(file).stem]))
    )
widest = max(np.percentile(np.abs(made - true), 99) for _, _, true, made in triples)
for column, (record, file, true, made) in zip(grid.T, triples, strict=True):
    column[0].imshow(read_stored(file)[..., 0], cmap="gray")
    column[0].set_title(record.case)
    column[1].imshow(true, cmap="viridis", **limits)
    maps = column[2].imshow(made, cmap="viridis", **limits)
    differences = column[3].imshow(made - true, cmap="coolwarm", vmin=-widest, vmax=widest)
    column[3].set_xlabel(f"RMSE {np.sqrt(((made - true) ** 2).mean()):.2f} nm")
for axes in grid.flat:
    axes.set(xticks=[], yticks=[])
for axes, name in zip(grid[:, 0], ("SEM image", "true depth", "predicted", "error"), strict=True):
    axes.set_ylabel(name)
figure.colorbar(maps, ax=grid, label="depth (nm)", shrink=0.5)
figure.colorbar(differences, ax=grid, label="error (nm)", location="bottom", shrink=0.8)
plt.show()

# %% [markdown]
# ## 5. The real microscope
#
# Its images differ in noise and contrast, and only the mean depth of each site is known. This is where networks that learnt from simulations
# alone are caught out: compare the error of the site means with the errors above, and look at how many images still find their case.

# %%
measured = networks.predict(
    "holes/real_manifest.csv", "depth_real", router=router, site_means="holes/site_means.csv"
)

# %%
real = json.loads((measured.path / "metrics.json").read_text())
sites = real["sites"]
for name in ("rmse", "bias"):
    print(
        "site means, {}: {value:.2f} {unit} ({low:.2f} to {high:.2f})".format(
            name, unit=real["unit"], **sites[name]
        )
    )
print(
    f"the best constant depth would give {sites['constant_rmse']:.2f} {real['unit']}; {sites['number']} sites"
)
if real["routing"]:
    print(f"sent to the network of their case: {real['routing']['accuracy']['value']:.3f}")

figure, axes = plt.subplots(figsize=(5.2, 4.6), layout="constrained")
for case in cases:
    means = [(site["known"], site["predicted"]) for site in sites["sites"] if site["case"] == case]
    axes.scatter(*np.array(means).T, s=18, label=case)
known = [site["known"] for site in sites["sites"]]
ends = min(known) - 3, max(known) + 3
axes.plot(ends, ends, color="grey", linestyle="--", label="no error")
axes.set(xlabel="known mean depth of the site (nm)", ylabel="predicted mean depth (nm)")
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Where to go on
#
# * **Bridge the gap.** `st.depth_train(pairs, DIR, model="cyclegan", direction="real", real_manifest="holes/real_manifest.csv")` learns to
#   translate real images into simulated ones; `translator=DIR` in `predict` does so first.
# * **The published networks.** `model="autoencoder", filters="64,128,256", bottleneck=2048`; `model="cyclegan", guided_weight=1.0, gan_loss="wgan_gp"`.
# * **Few pairs, many images?** Pretrain on the images and give the U-Net its contracting path: `model="unet", encoder=RUN`.
# * **Your own pairs** by name: `st.depth_train("images", DIR, target_dir="maps", pair_by="_itr[0-9]+$", target_scale="0.01")`.
# * `depth_test/report.html` has distributions per case, profiles and the worst images; `docs/depth.md` the rest.
