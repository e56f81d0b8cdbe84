"""The page that the demonstration ends in."""

import json
import platform
from importlib.metadata import version
from pathlib import Path

from data_prep.durations import format_seconds
from data_prep.manifest.manifest import Manifest
from data_prep.page import Page, Picture, Section, Table, shell_command, write_page
from data_prep.sources.manifest_source import ManifestSource
from finetune.demo import FINETUNED, LONGER, PROBE, SCRATCH, UNTRAINED, Demo, Results
from simclr_tf.evaluation import figures
from simclr_tf.training.build import view_config
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.health import nt_xent_at_chance
from simclr_tf.training.preview import sample_views

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
            "Software": f"simclr-tf {version('simclr-tf')}, TensorFlow {version('tensorflow')}, "
            f"Keras {version('keras')}, Python {platform.python_version()}",
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
