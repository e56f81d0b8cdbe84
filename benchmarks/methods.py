"""The record that every method learns: `python benchmarks/methods.py --output=FOLDER`.

Trains every method of `--method` on generated lattices and, with `--image_dir`, on images of one's
own, by `simclr-sweep`: the same split for all, and the same network without training as the floor.
For each set it leaves

    FOLDER/SET/methods.md     method, k-NN, untrained k-NN, gain in points with interval, minutes,
                              and the commands that were run
    FOLDER/SET/methods.json   the same numbers
    FOLDER/SET/sweep          runs, tables and page of the sweep

and prints the table. The same command goes on where it was stopped. The settings below are data:
`COMMON` holds for all runs of a set, `METHOD` adds to it by method, and `BY_SET` by set and method.
They are meant for two CPU cores, at most about six minutes a run.
"""

from __future__ import annotations

import argparse
import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from data_prep.page import shell_command
from simclr_tf.methods.registry import METHODS

Flags = dict[str, Any]

LATTICES = (
    "--kind=lattice --images_per_class=130 --image_size=64 --noise=0.2,0.5 --rotation=10 "
    "--spacing=0.12,0.18 --seed=0"
).split()

# What all runs of a set share.
COMMON: dict[str, Flags] = {
    "lattice": {
        "image_size": 64,
        "resnet_depth": 18,
        "width_multiplier": 0.25,
        "train_batch_size": 64,
        "eval_batch_size": 128,
        "train_steps": 2000,
        "checkpoint_steps": 1000,
        "optimizer": "adam",
        "learning_rate": 0.016,
        "warmup_epochs": 5,
        "min_crop_area": 0.2,
        "min_crop_aspect": 1,
        "vertical_flip": True,
        "split_ratios": "train:0.7,validation:0.3",
    },
    "images": {
        "image_size": 64,
        "resnet_depth": 18,
        "width_multiplier": 0.5,
        "train_batch_size": 64,
        "eval_batch_size": 128,
        "train_steps": 800,
        "checkpoint_steps": 400,
        "optimizer": "lars",
        "learning_rate": 1,
        "weight_decay": 1e-4,
        "min_crop_area": 0.2,
        "vertical_flip": True,
        "right_angle_rotation": True,
        "color_jitter_strength": 0.5,
        "use_blur": False,
        "split_ratios": "train:0.7,validation:0.3",
    },
}

# What each method has of its own on every set.
METHOD: dict[str, Flags] = {
    "simclr": {"temperature": 0.2},
    "moco": {"temperature": 0.2, "queue_size": 256, "target_momentum": 0.99},
    "byol": {"target_momentum": 0.99},
    "simsiam": {},
    "barlow_twins": {},
    "vicreg": {},
    # At a weight decay of 1e-4, or a high rate, all scores become equal: the loss stays at chance.
    "swav": {
        "temperature": 0.2,
        "prototypes": 32,
        "small_crops": 4,
        "frozen_prototype_steps": 30,
        "optimizer": "adam",
        "learning_rate": 0.004,
        "weight_decay": 1e-6,
    },
}

# With Adam and plain SGD, SimSiam and SwAV learnt nothing of the lattices. A likely reason: the
# projection head begins with weights of 0.01 and changes faster than a predictor or prototypes can
# follow, while steps of LARS are a share of the weights. Small crops of a lattice have little in
# common but the noise.
_STEADY: Flags = {
    "optimizer": "lars",
    "learning_rate": 4,
    "weight_decay": 1e-4,
    "min_crop_area": 0.6,
    "train_steps": 3000,
}

# And on one set alone: {set: {method: flags}}.
BY_SET: dict[str, dict[str, Flags]] = {
    "lattice": {
        "moco": {"optimizer": "lars", "learning_rate": 1, "weight_decay": 1e-4},
        "byol": {"min_crop_area": 0.6, "train_steps": 4000, "checkpoint_steps": 2000},
        "simsiam": {**_STEADY, "predictor_dim": 128, "predictor_rate": 10},
        # Assignments ten times as sharp as predictions, so that what both views share grows. With
        # two or four times (by Adam) all scores became equal.
        "swav": {
            **_STEADY,
            "prototypes": 128,
            "small_crops": 0,
            "frozen_prototype_steps": 200,
            "assignment_epsilon": 0.02,
        },
    },
    "images": {
        "byol": {"optimizer": "adam", "learning_rate": 0.004},
        "barlow_twins": {"train_steps": 1400},
    },
}


def rows(name: str, methods: list[str]) -> list[Flags]:
    """The flags of each run of a set that are its own."""
    return [
        {"method": method, **METHOD[method], **BY_SET[name].get(method, {})} for method in methods
    ]


def toml(table: list[Flags]) -> str:
    """The runs as the table that `simclr-sweep --grid` reads."""
    runs = [
        "\n".join(["[[run]]", *(f"{k} = {json.dumps(v)}" for k, v in r.items())]) for r in table
    ]
    return "\n\n".join(runs) + "\n"


def run(module: str, arguments: list[str]) -> None:
    """Runs a command of the package in a process of its own; stops if it fails."""
    code = subprocess.run([sys.executable, "-m", module, *arguments], check=False).returncode
    if code:
        sys.exit(code)


def train(name: str, folder: Path, images: Path, args: argparse.Namespace) -> list[str]:
    """Trains all methods on a set; what was run."""
    folder.mkdir(parents=True, exist_ok=True)
    grid = folder / "grid.toml"
    grid.write_text(toml(rows(name, args.methods)))
    common = {**COMMON[name], **({"train_steps": args.steps} if args.steps else {})}
    shared = [f"--{flag}={value}" for flag, value in common.items()]
    seeds = [f"--vary=seed={args.seeds}"]
    output = [f"--image_dir={images}", f"--output={folder / 'sweep'}", f"--grid={grid}"]
    arguments = [*output, *seeds, f"--parallel={args.parallel}", "--", *shared]
    run("simclr_tf.cli.sweep", arguments)
    return ["simclr-sweep", *arguments]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def results(sweep: Path) -> list[dict[str, Any]]:
    """A row a method: accuracies from 0 to 1, gains in points, minutes of one training."""
    settings = read(sweep / "settings.csv")
    found = []
    for row in settings:
        if row["untrained"] == "true":
            continue
        numbers = {name: float(row[name]) for name in row if name.startswith("knn_") and row[name]}
        gain = {name: 100 * numbers[name] for name in ("knn_gain", "knn_gain_low", "knn_gain_high")}
        found.append(
            {
                "method": row["method"],
                "seeds": int(row["seeds"]),
                "knn": numbers["knn_accuracy_mean"],
                "knn_low": numbers["knn_accuracy_low"],
                "knn_high": numbers["knn_accuracy_high"],
                "linear_probe": float(row["linear_probe_accuracy_mean"]),
                "untrained_knn": numbers["knn_accuracy_mean"] - numbers["knn_gain"],
                "gain_points": gain["knn_gain"],
                "gain_points_low": gain["knn_gain_low"],
                "gain_points_high": gain["knn_gain_high"],
                "effective_rank": float(row["effective_rank_mean"]),
                "minutes": float(row["seconds_mean"]) / 60,
            }
        )
    return found


def markdown(found: list[dict[str, Any]], commands: list[list[str]], sweep: Path) -> str:
    """The table, and the commands that were run."""
    lines = [
        "| method | 10-NN (95 % interval) | untrained | gain, points (95 % interval) | minutes |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{r['method']}` | {r['knn']:.3f} ({r['knn_low']:.3f} to {r['knn_high']:.3f}) |"
        f" {r['untrained_knn']:.3f} | {r['gain_points']:+.1f} ({r['gain_points_low']:+.1f} to"
        f" {r['gain_points_high']:+.1f}) | {r['minutes']:.1f} |"
        for r in found
    ]
    plan = json.loads((sweep / "sweep.json").read_text())["runs"]
    own = [["simclr-run", *run["arguments"], f"--model_dir={run['name']}"] for run in plan]
    texts = [*(shell_command(command) for command in commands), "# which is, run by run:"]
    texts += [
        f"{shlex.join(command)} --mode=train_then_eval --manifest=manifest.csv" for command in own
    ]
    return "\n".join([*lines, "", "```bash", *texts, "```", ""])


def record(name: str, images: Path | None, args: argparse.Namespace) -> None:
    """Trains a set and writes what came of it."""
    folder = Path(args.output) / name
    commands = []
    if images is None:
        images = folder / "images"
        arguments = [*LATTICES, f"--output={images}"]
        commands.append(["simclr-synthesize", *arguments])
        if not images.exists():
            run("data_prep.cli.synthesize", arguments)
    commands.append(train(name, folder, images, args))
    found = results(folder / "sweep")
    (folder / "methods.json").write_text(json.dumps(found, indent=2) + "\n")
    text = markdown(found, commands, folder / "sweep")
    (folder / "methods.md").write_text(text)
    print(f"{name}\n\n{text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", required=True)
    parser.add_argument("--image_dir", help="class folders; without them the lattices alone")
    parser.add_argument("--skip_lattice", action="store_true")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", default="0", help="0,1,2: each method from each of them")
    parser.add_argument("--steps", type=int, default=0, help="instead of those of the settings")
    parser.add_argument("--parallel", type=int, default=1)
    args = parser.parse_args()
    if not args.skip_lattice:
        record("lattice", None, args)
    if args.image_dir:
        record("images", Path(args.image_dir), args)


if __name__ == "__main__":
    main()
