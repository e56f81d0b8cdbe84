"""Depth from SEM images, claim by claim: `python benchmarks/depth.py --folder=DIR`.

Calls the commands as people do, each a process of its own, on a synthetic set, and prints what each
of these parts shows, with times. A step that is complete in the folder is not done again, so parts
can be run one by one (--parts=a), and a stopped training goes on.

a  an autoencoder's test RMSE is under half of that of the best constant depth
b  a CycleGAN that is guided by pairs has a smaller paired error than one that is not
c  a generator a case, chosen by a classifier, beats one generator for all cases of the same steps
d  real images that are first translated to simulated ones have a better depth than as they are

Of the "real" pictures the set holds no depth maps, but the mean depth of every site, and in
parameters.csv that of every single map. Differences are of whole sets, with 95 % bootstrap
intervals over depth maps or sites, the same samples for both sides.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from finetune.depth.metrics import sample_intervals
from simclr_tf.evaluation.intervals import Interval

# Sizes: with these every part should take less than 20 minutes on two idle cores.
IMAGES_PER_CASE = 400  # depth maps; twice as many simulated pictures, as many "real" ones
COMMON = "--unit=nm --train_batch_size=32 --precision=float32"
AUTOENCODER = f"--model=autoencoder --train_epochs=15 {COMMON}"
CYCLEGAN = f"--model=cyclegan --filters=8,16,32 --train_steps=700 {COMMON}"
UNGUIDED, GUIDED = "--guided_weight=0", "--guided_weight=1"
# For part c: one generator for all, and four that see a quarter of the images as often.
GENERATOR = f"--model=unet --filters=16,32,64 --train_epochs=12 {COMMON}"
PRETRAIN = (
    "--mode=train --train_mode=pretrain --resnet_depth=18 --width_multiplier=0.25 --image_size=48"
    " --whole_image --train_batch_size=64 --train_epochs=10 --learning_rate=1.0 --temperature=0.2"
    " --color_jitter_strength=0 --nouse_blur --min_crop_area=0.3 --vertical_flip"
    " --precision=float32"
)
CLASSIFIER = (
    "--train_epochs=40 --train_batch_size=64 --augment=views --norandom_crop --vertical_flip"
    " --optimizer=adam --learning_rate=0.002 --noscore_train --precision=float32"
)
TRANSLATOR = f"--model=cyclegan --direction=real --filters=8,16,32 --train_steps=1200 {COMMON}"

PARTS = "abcd"


@dataclass
class Runner:
    """Runs commands in a folder, each once, and notes how long they took."""

    folder: Path
    images_per_case: int
    seconds: dict[str, float] = field(default_factory=dict)

    def path(self, name: str) -> Path:
        """Of what is made under a name."""
        return self.folder / name

    def run(self, name: str, module: str, flags: str, marker: str = "") -> Path:
        """Runs a command with `--output` in the folder.

        Args:
            name: Of the output.
            module: Of the command.
            flags: Separated by blanks.
            marker: File in the output that is there once the command is done; "" = the output.
        """
        output, times = self.path(name), self.path(f"{name}.seconds")
        if not (times.exists() and (output / marker).exists()):
            target = "model_dir" if module.endswith("cli.run") else "output"
            command = [sys.executable, "-m", module, f"--{target}={output}", *flags.split()]
            print(f"... {' '.join(command[2:])}", flush=True)
            began = time.perf_counter()
            with self.path(f"{name}.log").open("a") as log:
                code = subprocess.run(
                    command,
                    stdout=log,
                    stderr=log,
                    check=False,
                    env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
                ).returncode
            if code:
                raise SystemExit(f"{name} ended with {code}: see {self.path(f'{name}.log')}")
            times.write_text(f"{time.perf_counter() - began:.1f}\n")
        self.seconds[name] = float(times.read_text())
        return output

    def train(self, name: str, flags: str, per_case: bool = False) -> Path:
        """Trains on the simulated images."""
        marker = "case_case_4/depth.json" if per_case else "depth.json"
        more = " --per_case" * per_case
        return self.run(
            name, "finetune.cli.depth_train", f"--manifest={self.manifest} {flags}{more}", marker
        )

    def predict(self, name: str, model: Path, flags: str = "") -> Path:
        """Predicts the simulated test images."""
        given = f"--model={model} --manifest={self.manifest} --split=test {flags}"
        return self.run(name, "finetune.cli.depth_predict", given, "metrics.json")

    def predict_real(self, name: str, model: Path, flags: str = "") -> Path:
        """Predicts the "real" images of the sites that no translator has seen."""
        given = (
            f"--model={model} --manifest={self.real} --split=test"
            f" --site_means={self.path('set') / 'site_means.csv'} {flags}"
        )
        return self.run(name, "finetune.cli.depth_predict", given, "metrics.json")

    @property
    def manifest(self) -> Path:
        """Of the simulated images, in splits that tear no depth map apart."""
        return self._split("manifest.csv", "split.csv", "train:0.7,validation:0.15,test:0.15")

    @property
    def real(self) -> Path:
        """Of the "real" images, in splits that tear no site apart."""
        return self._split("real_manifest.csv", "real_split.csv", "train:0.5,test:0.5")

    def _split(self, listed: str, name: str, ratios: str) -> Path:
        images = self.run(
            "set", "data_prep.cli.synthesize",
            f"--kind=sem_depth --images_per_class={self.images_per_case} --format=png16",
            "manifest.csv",
        )  # fmt: skip
        return self.run(
            name, "data_prep.cli.split",
            f"--manifest={images / listed} --ratios={ratios} --group_by=group"
            " --near_duplicates=ignore",
        )  # fmt: skip


def metrics(output: Path) -> dict:
    return json.loads((output / "metrics.json").read_text())


def rmse(output: Path) -> float:
    return float(metrics(output)["splits"]["test"]["all"]["rmse"]["value"])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def rmse_difference(first: np.ndarray, second: np.ndarray, units: list[str]) -> Interval:
    """RMSE of the first less that of the second, from squared errors [n] of the same images."""

    def gap(counts: np.ndarray) -> dict[str, np.ndarray]:
        total = counts.sum(axis=1)
        one, other = ((counts * squares).sum(axis=1) / total for squares in (first, second))
        return {"gap": np.sqrt(one) - np.sqrt(other)}

    return sample_intervals(gap, len(first), groups=np.asarray(units))["gap"]


def map_difference(first: Path, second: Path) -> Interval:
    """Of two predictions of the same images with known depth maps."""
    one, other = table(first / "errors.csv"), table(second / "errors.csv")
    assert [row["path"] for row in one] == [row["path"] for row in other]
    squares = (np.array([float(row["rmse"]) ** 2 for row in rows]) for rows in (one, other))
    return rmse_difference(*squares, [row["group"] for row in one])


def verdict(name: str, holds: bool, *lines: str) -> None:
    print(f"\n{name}: {'holds' if holds else 'DOES NOT HOLD'}")
    for line in lines:
        print(f"  {line}")


def part_a(runner: Runner) -> None:
    model = runner.train("autoencoder", AUTOENCODER)
    found = metrics(runner.predict("autoencoder_test", model))["splits"]["test"]["all"]
    value, constant = found["rmse"]["value"], found["constant_rmse"]
    verdict(
        "a  autoencoder under half of the best constant",
        found["rmse"]["high"] < constant / 2,
        f"RMSE {value:.2f} [{found['rmse']['low']:.2f}, {found['rmse']['high']:.2f}], best constant"
        f" {constant:.2f}: {value / constant:.3f} of it; one map for all images"
        f" {found['map_rmse']:.2f}; SSIM {found['ssim']['value']:.3f}",
    )


def part_b(runner: Runner) -> None:
    outputs = {
        name: runner.predict(f"{name}_test", runner.train(name, f"{CYCLEGAN} {flag}"))
        for name, flag in (("unguided", UNGUIDED), ("guided", GUIDED))
    }
    gap = map_difference(outputs["guided"], outputs["unguided"])
    verdict(
        "b  guided CycleGAN before unguided",
        gap.high < 0,
        *(f"{name:10s} RMSE {rmse(output):.2f}" for name, output in outputs.items()),
        f"guided less unguided {gap:+.2f}",
    )


def part_c(runner: Runner) -> None:
    one = runner.predict("one_test", runner.train("one", GENERATOR))
    each = runner.train("each", GENERATOR, per_case=True)
    encoder = runner.run(
        "encoder", "simclr_tf.cli.run", f"--manifest={runner.manifest} {PRETRAIN}", "encoder.keras"
    )
    router = runner.run(
        "router", "finetune.cli.finetune",
        f"--encoder={encoder} --manifest={runner.manifest} {CLASSIFIER}", "report.html",
    )  # fmt: skip
    routed = runner.predict("each_routed_test", each, f"--router={router}")
    blended = runner.predict("each_blended_test", each, f"--router={router} --blend_cases")
    told = runner.predict("each_told_test", each)
    gaps = {name: map_difference(output, one) for name, output in
            (("routed", routed), ("blended", blended))}  # fmt: skip
    verdict(
        "c  a generator a case with the router before one for all",
        min(gap.high for gap in gaps.values()) < 0,
        f"one for all      RMSE {rmse(one):.2f}",
        f"a case, routed   RMSE {rmse(routed):.2f}",
        f"a case, blended  RMSE {rmse(blended):.2f}",
        f"a case, told     RMSE {rmse(told):.2f}",
        *(f"{name} less one for all {gap:+.2f}" for name, gap in gaps.items()),
        f"routed rightly {metrics(routed)['routing']['accuracy']['value']:.3f}",
    )


def part_d(runner: Runner) -> None:
    model = runner.train("one", GENERATOR)
    translator = runner.train("translator", f"{TRANSLATOR} --real_manifest={runner.real}")
    straight = runner.predict_real("real_straight", model)
    translated = runner.predict_real("real_translated", model, f"--translator={translator}")
    sites, images = {}, {}
    true = {row["path"]: float(row["mean_depth"])
            for row in table(runner.path("set") / "parameters.csv")}  # fmt: skip
    for name, output in (("straight", straight), ("translated", translated)):
        sites[name] = metrics(output)["sites"]
        rows = table(output / "predictions.csv")
        known = [true[str(Path(row["path"]).relative_to(runner.path("set").absolute()))]
                 for row in rows]  # fmt: skip
        images[name] = np.array([float(row["mean_depth"]) for row in rows]) - known
    squares = {
        name: np.array([(s["predicted"] - s["known"]) ** 2 for s in found["sites"]])
        for name, found in sites.items()
    }
    names = [site["site"] for site in sites["straight"]["sites"]]
    gap = rmse_difference(squares["translated"], squares["straight"], names)
    lines = [
        f"{name:10s} sites' mean depth: RMSE {found['rmse']['value']:.2f}, bias"
        f" {found['bias']['value']:+.2f}, correlation {found['correlation']['value'] or 0:.3f};"
        f" every single map's: RMSE {np.sqrt((images[name] ** 2).mean()):.2f}"
        for name, found in sites.items()
    ]
    verdict(
        "d  real images translated before straight, and before one depth for all sites",
        # A translator that makes all images alike may be before it by chance of its bias.
        gap.high < 0 and sites["translated"]["skill"]["low"] > 0,
        *lines,
        f"best constant for all sites {sites['straight']['constant_rmse']:.2f}",
        f"translated less straight, RMSE over sites {gap:+.2f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="keeps all that is made")
    parser.add_argument("--parts", default=PARTS, help="such as ab")
    parser.add_argument("--images_per_case", type=int, default=IMAGES_PER_CASE)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    runner = Runner(args.folder.absolute(), args.images_per_case)
    parts: dict[str, Callable[[Runner], None]] = {
        "a": part_a, "b": part_b, "c": part_c, "d": part_d,
    }  # fmt: skip
    for part in args.parts:
        parts[part](runner)
    print(f"\n{'step':22s}{'minutes':>9s}")
    for name, seconds in runner.seconds.items():
        print(f"{name:22s}{seconds / 60:9.1f}")


if __name__ == "__main__":
    main()
