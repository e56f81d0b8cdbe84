"""Demonstration on one folder of images: pretrain without labels, learn from few labels per class.

The following are compared, on test images that no step has seen, over several draws of the labels:

* the features of an untrained network, with a linear probe;
* the same network trained from scratch on the same labels, for as many steps as ours is
  fine-tuned, and for longer;
* ours: pretrained on the unlabelled images, then a linear probe, and fine-tuned;
* ours with all labels of the pool.
"""

import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import scan_folder
from data_prep.manifest.splits import labels_per_class, stratified_split
from data_prep.page import Page, Picture, Section, Table, shell_command, software, write_page
from data_prep.phrases import format_seconds
from data_prep.sources.manifest_source import ManifestSource
from data_prep.storage import ANEW, read_object, write_text
from data_prep.synthetic.lattice import LatticeParameters
from data_prep.synthetic.write import write_lattice_set
from finetune.few_labels import FewLabels, Scored, probe
from finetune.sections import DemoSettings
from simclr_tf.config.run_config import RunConfig
from simclr_tf.evaluation import figures
from simclr_tf.evaluation.intervals import (
    Difference,
    Interval,
    crossed_difference,
    crossed_interval,
)
from simclr_tf.training.batches import sample_views
from simclr_tf.training.build import view_config
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.evaluator import Outputs
from simclr_tf.training.health import nt_xent_at_chance
from simclr_tf.training.run import execute

log = logging.getLogger(__name__)

# The unlabelled images, the pool that labels are drawn from, and what is scored once at the end.
SPLIT = {"train": 0.6, "validation": 0.3, "test": 0.1}

# Noise of 0.2 to 0.5 of an atom's height: above the original's 0.1 to 0.4.
HEAVY_NOISE = LatticeParameters(noise=(0.2, 0.5), rotation=10.0, spacing=(0.12, 0.18))

UNTRAINED = "untrained features, linear probe"
SCRATCH = "from scratch"
LONGER = "from scratch, trained longer"
PROBE = "pretrained, linear probe"
FINETUNED = "pretrained, fine-tuned"


@dataclass(frozen=True)
class Results:
    """Results of the demonstration.

    Attributes:
        accuracy: Test accuracy with its 95 % interval, by (name, labels a class).
        gain: Fine-tuned minus from scratch, with the same labels and as many steps.
        gain_over_longer: Fine-tuned minus from scratch trained longer, with the same labels.
        test: Outputs of the pretrained network for the test images.
        sizes: Images by split.
        seconds: Time by stage.
    """

    accuracy: dict[tuple[str, str], Interval]
    gain: Difference
    gain_over_longer: Difference
    test: Outputs
    sizes: dict[str, int]
    seconds: dict[str, float]


class Demo:
    """Runs the stages one after the other; the pretraining goes on where it was stopped.

    Args:
        settings: Its settings.
        output: Folder for images, runs and the page.
    """

    def __init__(self, settings: DemoSettings, output: Path) -> None:
        self.settings, self.output = settings, output
        self.pretrain_dir = output / "pretrain"
        self.manifest_file = output / "split.csv"
        self._seconds: dict[str, float] = {}

    def run(self) -> Results:
        """Does everything but the page.

        Raises:
            UserError: The output folder holds something else, or the images cannot be used.
        """
        if self.settings.image_dir:
            own_images(self.settings.image_dir)
        prepare_output(self.output, self.settings)
        manifest = self._timed("images", self._images)
        status = self._timed("pretraining", lambda: execute(self.pretrain_config()))
        if status:
            raise KeyboardInterrupt
        return self._timed("fine-tuning", lambda: self._compare(manifest))

    def _timed(self, stage: str, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        self._seconds[stage] = time.perf_counter() - began
        log.info("%s took %s", stage, format_seconds(self._seconds[stage]))
        return result

    def _images(self) -> Manifest:
        if self.manifest_file.exists():
            return Manifest.load(self.manifest_file)
        s = self.settings
        if s.image_dir:
            images = own_images(s.image_dir)
        else:
            images = write_lattice_set(
                self.output / "images",
                images_per_class=s.images_per_class,
                image_size=s.image_size,
                seed=s.seed,
                parameters=HEAVY_NOISE,
            )
        manifest = stratified_split(images, SPLIT, s.seed)
        manifest.save(self.manifest_file)
        log.info("%s", manifest.table())
        return Manifest.load(self.manifest_file)

    def common(self) -> dict[str, Any]:
        """Settings that pretraining and fine-tuning share."""
        return {
            "image_size": self.settings.image_size,
            "resnet_depth": 18,
            "width_multiplier": 0.375,
            "min_crop_area": 0.2,
            "min_crop_aspect": 1.0,
            "vertical_flip": True,
            "seed": self.settings.seed,
            "eval_batch_size": 128,
        }

    def pretrain_config(self) -> RunConfig:
        """Pretraining on the unlabelled 60 %, watched by k-NN on the pool."""
        steps = self.settings.pretrain_steps
        return RunConfig.from_values(
            {
                **self.common(),
                "manifest": str(self.manifest_file),
                "model_dir": str(self.pretrain_dir),
                "mode": "train_then_eval",
                "train_batch_size": 128,
                "train_steps": steps,
                "checkpoint_steps": max(1, steps // 7),
                "linear_probe": False,
                "validate_every": 1,
                "optimizer": "adam",
                "learning_rate": 0.016,
                "warmup_epochs": 5.0,
                "temperature": 0.2,
                # No head beside it: not even a linear probe may see the labels.
                "lineareval_while_pretraining": False,
            }
        )

    def finetune_config(self, learning_rate: float, steps: int) -> RunConfig:
        """Training on labels, with the same augmentation less colour and blur."""
        return RunConfig.from_values(
            {
                **self.common(),
                "train_mode": "finetune",
                "train_batch_size": 64,
                "train_steps": steps,
                "warmup_epochs": 0.0,
                "optimizer": "adam",
                "learning_rate": learning_rate,
                "weight_decay": 1e-4,
            }
        )

    def _compare(self, manifest: Manifest) -> Results:
        pool, test = manifest.split("validation"), manifest.split("test")
        names, s = manifest.class_names, self.settings
        checkpoint = str(self.pretrain_dir)
        draws = [labels_per_class(pool, s.labels_per_class, draw) for draw in range(s.draws)]
        few, everything = str(s.labels_per_class), "all"
        right: dict[tuple[str, str], list[np.ndarray]] = {}

        def note(name: str, labels: str, scored: Scored) -> None:
            right.setdefault((name, labels), []).append(scored.right)
            log.info("%s, %s labels a class: %.3f", name, labels, scored.right.mean())

        ours = FewLabels(self.finetune_config(OURS_RATE, s.finetune_steps), test, names)
        for number, draw in enumerate(draws):
            ours.start(s.seed + number)
            note(UNTRAINED, few, probe(ours.outputs(draw), ours.test_outputs()))
        ours.start(s.seed, checkpoint)
        seen, held_out = ours.outputs(pool), ours.test_outputs()
        for draw in draws:
            note(PROBE, few, probe(_rows(seen, pool, draw), held_out))
        note(PROBE, everything, probe(seen, held_out))
        for number, draw in enumerate(draws):
            ours.start(s.seed + number, checkpoint)
            note(FINETUNED, few, ours.finetune(draw, s.seed + number))
        ours.start(s.seed, checkpoint)
        note(FINETUNED, everything, ours.finetune(pool, s.seed))

        for name, steps in ((SCRATCH, s.finetune_steps), (LONGER, s.scratch_steps)):
            scratch = FewLabels(self.finetune_config(SCRATCH_RATE, steps), test, names)
            for number, draw in enumerate(draws):
                scratch.start(s.seed + number)
                note(name, few, scratch.finetune(draw, s.seed + number))
            scratch.start(s.seed)
            note(name, everything, scratch.finetune(pool, s.seed))

        def gain_over(name: str) -> Difference:
            return crossed_difference(np.array(right[FINETUNED, few]), np.array(right[name, few]))

        return Results(
            accuracy={key: crossed_interval(np.array(rows)) for key, rows in right.items()},
            gain=gain_over(SCRATCH),
            gain_over_longer=gain_over(LONGER),
            test=held_out,
            sizes={name: len(manifest.split(name)) for name in manifest.splits},
            seconds=self._seconds,
        )


# The best of 0.002 to 0.016 for either, on lattices of another seed and of less noise.
OURS_RATE, SCRATCH_RATE = 0.016, 0.016


def _rows(outputs: Outputs, whole: Manifest, part: Manifest) -> Outputs:
    """The outputs of those images of a manifest that are in a part of it."""
    position = {image: i for i, image in enumerate(whole.images())}
    rows = np.array([position[image] for image in part.images()])
    return Outputs(outputs.index[rows], outputs.label[rows], outputs.features[rows], None)


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
    file = output / "settings.json"
    wanted = json.loads(json.dumps(asdict(settings)))
    if file.exists():
        found = read_object(file, ANEW)
        if found != wanted:
            changed = [
                f"{k} was {found.get(k)}, is {v}" for k, v in wanted.items() if found.get(k) != v
            ]
            raise UserError(
                f"--output={output} holds a demonstration with other settings "
                f"({'; '.join(changed)}); give another folder, or --overwrite"
            )
        return
    if output.exists() and any(output.iterdir()):
        raise UserError(
            "is not empty; give another folder, or --overwrite", setting="output", value=output
        )
    output.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(wanted, indent=2) + "\n")


OWN_FILES = ("settings.json", "split.csv", "result.json", "index.html", "images", "pretrain")


_ORDER = (UNTRAINED, SCRATCH, LONGER, PROBE, FINETUNED)


def write_demo(demo: Demo, results: Results) -> Path:
    """Writes `result.json` and `index.html` into the demonstration's folder.

    Returns:
        The page's path.
    """
    numbers = {
        f"{name}, {labels} labels a class": [i.value, i.low, i.high]
        for (name, labels), i in results.accuracy.items()
    }
    gain, longer = results.gain, results.gain_over_longer
    facts = {
        "test_accuracy": numbers,
        "gain_over_scratch": [gain.value, gain.low, gain.high],
        "gain_over_longer_scratch": [longer.value, longer.low, longer.high],
        "images": results.sizes,
        "seconds": results.seconds,
    }
    (demo.output / "result.json").write_text(json.dumps(facts, indent=2) + "\n")
    page = demo.output / "index.html"
    write_page(_page(demo, results), page)
    return page


def _page(demo: Demo, results: Results) -> Page:
    few = demo.settings.labels_per_class
    gain, longer, sizes = results.gain, results.gain_over_longer, results.sizes
    summary = (
        f"{sizes['train']} images without labels, {few} labels a class, {sizes['test']} test "
        f"images that no step has seen. Over {demo.settings.draws} draws of the labels, "
        f"pretraining on the unlabelled images changes the accuracy by {100 * gain.value:+.1f} "
        f"points over training from scratch on the same labels for as many steps (95 % interval "
        f"{100 * gain.low:+.1f} to {100 * gain.high:+.1f}), and by {100 * longer.value:+.1f} "
        f"points ({100 * longer.low:+.1f} to {100 * longer.high:+.1f}) over training from scratch "
        f"for {demo.settings.scratch_steps} steps instead of {demo.settings.finetune_steps}.",
    )
    return Page(
        title="What unlabelled images are worth",
        summary=summary,
        sections=(
            _accuracy(demo, results),
            _learning(demo),
            _views(demo),
            _embedding(demo, results),
            _commands(demo),
        ),
        facts={
            "Time": ", ".join(f"{k} {format_seconds(v)}" for k, v in results.seconds.items()),
            "Software": software(),
        },
    )


def _accuracy(demo: Demo, results: Results) -> Section:
    few, steps, longer = (
        getattr(demo.settings, n) for n in ("labels_per_class", "finetune_steps", "scratch_steps")
    )
    keys = [(n, labels) for labels in (str(few), "all") for n in _ORDER]
    known = {key: results.accuracy[key] for key in keys if key in results.accuracy}
    rows = tuple(
        (name, labels, f"{i.value:.3f}", f"{i.low:.3f} to {i.high:.3f}")
        for (name, labels), i in known.items()
    )
    ours = tuple(
        k for k, (name, labels) in enumerate(known) if name == FINETUNED and labels != "all"
    )
    table = Table(
        ("classifier", "labels a class", "test accuracy", "95 % interval"),
        rows,
        highlight=ours,
        note=f"Every fit takes {steps} steps, the longer one {longer}. Intervals resample test "
        "images and label draws together (pigeonhole bootstrap). With all labels there is one "
        "draw: the interval is over test images alone.",
    )
    amount = {str(few): f"{few} labels a class", "all": "all labels"}
    bars = {f"{name}, {amount[labels]}": i for (name, labels), i in known.items()}
    classes = len(set(results.test.label.tolist()))
    picture = Picture(
        figures.to_png(figures.accuracy_bars(bars, chance=1 / classes)),
        "Test accuracy with 95 % intervals; the dashed line is guessing.",
    )
    return Section("Accuracy on unseen images", tables=(table,), pictures=(picture,))


def _learning(demo: Demo) -> Section:
    steps = read_metrics(demo.pretrain_dir / "metrics.csv")
    checks = read_metrics(demo.pretrain_dir / "validation.csv")
    batch = demo.pretrain_config().train.train_batch_size
    loss = figures.loss_curves(
        {"contrastive loss": (steps["step"], steps["contrast_loss"])},
        chance=nt_xent_at_chance(batch),
    )
    neighbours = figures.accuracy_over_time(
        {"10-NN": (checks["step"], checks["validation/knn_accuracy"])}
    )
    return Section(
        "Pretraining",
        text=("Labels play no part in it; the neighbours' labels only tell how it goes.",),
        pictures=(
            Picture(figures.to_png(loss), "Contrastive loss; the dashed line is chance."),
            Picture(
                figures.to_png(neighbours),
                "Accuracy of the 10 nearest neighbours (cosine) among the training images, on the "
                "labelled pool.",
            ),
        ),
    )


def _views(demo: Demo) -> Section:
    config = demo.pretrain_config()
    source = ManifestSource(Manifest.load(demo.manifest_file).split("train"))
    views = sample_views(source, view_config(config, source.channels), config)
    picture = Picture(
        figures.to_png(figures.view_sheet(views)), "Two views each of eight images, as trained on."
    )
    return Section("What the network is shown", pictures=(picture,))


def _embedding(demo: Demo, results: Results) -> Section:
    names = Manifest.load(demo.manifest_file).class_names
    points = figures.project_2d(results.test.features, "tsne")
    figure = figures.embedding_map(points, results.test.label, names)
    picture = Picture(
        figures.to_png(figure), "t-SNE of the test images' features before any label was used."
    )
    return Section("Where the test images lie", pictures=(picture,))


def _commands(demo: Demo) -> Section:
    s = demo.settings
    own = ["simclr-demo", f"--output={demo.output}"]
    own += [f"--image_dir={s.image_dir}"] if s.image_dir else []
    own += [f"--{name}={getattr(s, name)}" for name in ("labels_per_class", "draws", "seed")]
    steps = ("pretrain_steps", "finetune_steps", "scratch_steps")
    own += [f"--{name}={getattr(s, name)}" for name in steps]
    pretrain = ["simclr-run", f"--flagfile={demo.pretrain_dir / 'flags.txt'}"]
    return Section(
        "To repeat it",
        text=("All of it; and the pretraining alone.",),
        commands=(shell_command(own), shell_command(pretrain)),
    )
