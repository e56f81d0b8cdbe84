"""Demonstration on one folder of images: what pretraining without labels is worth.

It is the comparison of `simclr-compare` with the rows of its preset `demo`, on images that it makes
itself if there are none. A small network learns from few labels a class and from all of them, once
from scratch and once pretrained on the images without labels, each for as many updates; all rows
are scored on test images that no step has seen.

The folder of a demonstration holds

    settings.json   what was asked for
    images/         the images, if it has made them
    comparison/     the comparison, as `simclr-compare` keeps it
    result.json     the numbers
    index.html      the page
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import scan_folder
from data_prep.page import Section, write_page
from data_prep.storage import is_unused, write_text
from data_prep.synthetic.lattice import LatticeParameters
from data_prep.synthetic.write import MANIFEST_NAME, write_lattice_set
from finetune.compare.advice import Advice, if_unlearned
from finetune.compare.chain import read_cost
from finetune.compare.images import Division
from finetune.compare.page import Head
from finetune.compare.results import ComparisonResults, Pair
from finetune.compare.run import Experiment, Progress, refuse_other_settings
from finetune.compare.strategies import PRETRAINED_OR_NOT, CompareSettings
from finetune.sections import DemoSettings
from simclr_tf.evaluation.figures import accuracy_bars, figure_picture

log = logging.getLogger(__name__)

# Noise of 0.2 to 0.5 of an atom's height: above the original's 0.1 to 0.4.
HEAVY_NOISE = LatticeParameters(noise=(0.2, 0.5), rotation=10.0, spacing=(0.12, 0.18))

SCRATCH, FINETUNED = (PRETRAINED_OR_NOT[name] for name in ("scratch:full", "simclr:full"))

PAGE, RESULT, SETTINGS = "index.html", "result.json", "settings.json"
IMAGES, COMPARISON = "images", "comparison"
OWN_FILES = (
    SETTINGS, RESULT, PAGE, IMAGES, COMPARISON,
    "split.csv", "pretrain",  # of version 0.1.0
)  # fmt: skip


class Demo:
    """Runs the stages one after the other; what is on disk is not done again.

    Args:
        settings: Its settings.
        output: Folder for images, comparison and page.
        progress: Makes a callback (done, all) from a word for what is counted.
    """

    def __init__(self, settings: DemoSettings, output: Path, progress: Progress) -> None:
        self.settings, self.output, self._progress = settings, output, progress

    def comparison(self) -> CompareSettings:
        """The comparison's settings."""
        s = self.settings
        return CompareSettings.from_values(
            {
                "image_dir": s.image_dir or str(self.output / IMAGES),
                "preset": "demo",
                "label_fractions": (1.0,),
                "labels_per_class": (s.labels_per_class,),
                "folds": s.draws,
                "seed": s.seed,
                "image_size": s.image_size,
                "pretrain_steps": s.pretrain_steps,
                "finetune_steps": s.finetune_steps,
                "scratch_factor": 1,
                "vertical_flip": True,
                "metric": "accuracy",
            }
        )

    def run(self) -> ComparisonResults:
        """Compares, and writes `result.json` and `index.html`.

        Raises:
            UserError: The output folder holds something else, or the images cannot be used.
            Stopped: A signal asked for it.
        """
        began = time.perf_counter()
        own = own_images(self.settings.image_dir) if self.settings.image_dir else None
        prepare_output(self.output, self.settings)
        images = own or self._made_images()
        experiment = Experiment(
            self.comparison(), self.output / COMPARISON, lambda: images, self._progress, began
        )
        experiment.prepare()
        division = experiment.division
        if len(division.fractions) < 2:
            raise UserError(
                f"{division.remarks[-1]} Give fewer, or more images, and another --output",
                setting="labels_per_class",
                value=self.settings.labels_per_class,
            )
        seconds = {"images": time.perf_counter() - began}
        experiment.run()
        results, _, page = experiment.report(self._command(), demo_head)
        pretraining = read_cost(self.output / COMPARISON, "pretrain-simclr")[0]
        fits = sum(cost.fits for cost in results.costs.values())
        seconds |= {"pretraining": pretraining, "fine-tuning": fits}
        facts = {**numbers(results, division), "seconds": seconds}
        write_text(self.output / RESULT, json.dumps(facts, indent=2) + "\n")
        write_page(page, self.output / PAGE)
        return results

    def _made_images(self) -> Manifest:
        folder, s = self.output / IMAGES, self.settings
        if (folder / MANIFEST_NAME).is_file():
            return Manifest.load(folder / MANIFEST_NAME)
        return write_lattice_set(
            folder,
            images_per_class=s.images_per_class,
            image_size=s.image_size,
            seed=s.seed,
            parameters=HEAVY_NOISE,
            progress=self._progress("images made"),
        )

    def _command(self) -> Sequence[str]:
        own = [f for f in fields(self.settings) if getattr(self.settings, f.name) != f.default]
        given = [f"--{f.name}={getattr(self.settings, f.name)}" for f in own]
        return ["simclr-demo", f"--output={self.output}", *given]


def own_images(image_dir: str) -> Manifest:
    """The images of a user's folder.

    Raises:
        UserError: The folder cannot be used, or has fewer than two classes.
    """
    images = scan_folder(image_dir)
    if len(images.class_names) < 2:
        raise UserError("needs two class folders or more", setting="image_dir", value=image_dir)
    return images


def prepare_output(output: Path, settings: DemoSettings) -> None:
    """Makes the output folder, or finds that the same demonstration goes on in it.

    Raises:
        UserError: The folder holds another demonstration, or something else.
    """
    file = output / SETTINGS
    if file.exists():
        defaults = {f.name: f.default for f in fields(settings)}
        refuse_other_settings(file, asdict(settings), defaults, "a demonstration")
        return
    if output.exists() and not is_unused(output):
        raise UserError(
            "is not empty; give another folder, or --overwrite", setting="output", value=output
        )
    output.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(asdict(settings), indent=2) + "\n")


def gain(results: ComparisonResults, fraction: float) -> Pair:
    """Pretrained and fine-tuned against from scratch, with the same labels and as many updates.

    Args:
        results: The comparison's table.
        fraction: Share of the labels.

    Raises:
        UserError: One of the two has diverged.
    """
    for row in (FINETUNED, SCRATCH):
        if row not in results.rows:
            raise UserError(f"{row}: its training diverged, so there is nothing to compare with")
    return results.pair(FINETUNED, SCRATCH, fraction)


def numbers(results: ComparisonResults, division: Division) -> dict[str, object]:
    """The numbers of `result.json`, each with the ends of its 95 % interval.

    `gain_over_longer_scratch` is that over a training from scratch which takes longer than a short
    fine-tuning, as in version 0.1.0; now both take as many steps, so it is `gain_over_scratch`.
    """
    few, whole = results.fractions
    each = round(results.labels[few] / results.classes)
    known = {
        f"{name}, {labels} labels a class": results.value(name, fraction)
        for fraction, labels in ((few, str(each)), (whole, "all"))
        for name in results.shown
    }
    with_few, with_all = (
        [d.value, d.low, d.high]
        for d in (gain(results, fraction).difference for fraction in (few, whole))
    )
    return {
        "test_accuracy": {name: [i.value, i.low, i.high] for name, i in known.items()},
        "gain_over_scratch": with_few,
        "gain_over_longer_scratch": with_few,
        "gain_over_scratch_with_all_labels": with_all,
        "images": {"train": len(division.unlabeled), "test": len(division.test_rows)},
    }


def demo_head(results: ComparisonResults, advice: Advice, division: Division) -> Head:
    """The head of the page: one sentence and one figure."""
    few, whole = results.fractions
    each = round(results.labels[few] / results.classes)
    some, most = (gain(results, fraction).difference for fraction in (few, whole))
    sentence = (
        f"On {results.test_images} test images that no step has seen, and with {each} labels a"
        f" class, pretraining on {len(division.unlabeled):,} images without labels changes the"
        f" accuracy by {100 * some.value:+.1f} points (95 % interval of the paired difference"
        f" {100 * some.low:+.1f} to {100 * some.high:+.1f}) over training from scratch on the same"
        f" labels for as many steps; with all {results.labels[whole]:,} labels by"
        f" {100 * most.value:+.1f} points ({100 * most.low:+.1f} to {100 * most.high:+.1f})."
        f"{if_unlearned(results)}"
    )
    bars = {
        f"{name}, {amount}": results.value(name, fraction)
        for fraction, amount in ((few, f"{each} labels a class"), (whole, "all labels"))
        for name in results.rows
    }
    picture = figure_picture(
        accuracy_bars(bars, chance=1 / results.classes),
        "Test accuracy with 95 % intervals; the dashed line is guessing. Every fit takes as many"
        " steps.",
        alt="Test accuracy of every row, a bar a row",
        dpi=160,
    )
    return Head(
        title="What unlabelled images are worth",
        summary=(*advice.alarms, sentence),
        first=Section("Accuracy on unseen images", pictures=(picture,)),
    )
