"""`simclr-compare`: which strategy is best for given images, with few labels and with many."""

import logging
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.image_flags import define_images, open_images
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.errors import UserError
from data_prep.storage import claimed

if TYPE_CHECKING:
    from finetune.compare.strategies import CompareSettings

NAME = "simclr-compare"
DESCRIPTION = """Compares ways to a classifier on one's own images, with few labels and with many:
from scratch, ImageNet weights, self-supervision on one's own images, and both together; each as a
linear probe on its features or fine-tuned as a whole. One test set is sealed, all strategies get
the same labels, and a page says which is best, by how much, and what cannot be told apart.

simclr-compare --image_dir=IMAGES --minutes=30 --imagenet_weights=vgg16_notop.h5 --output=DIR

Strategies: scratch, untrained (the floor), imagenet_supervised, imagenet_simclr, any method of
self-supervision (simclr, moco, byol, simsiam, barlow_twins, vicreg, swav), METHOD@0.5 (on half of
the images), imagenet_simclr+METHOD (the checkpoint, some blocks frozen, trained further), and
...+distill. NAME:probe and NAME:full ask for one of the two heads. Strategies whose weights are
not there are left out, and a line says so. The same command goes on where it was stopped."""

log = logging.getLogger("finetune.folds_page")


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    define_images(flag_values)
    with topic(flag_values, "Images"):
        flags.DEFINE_string("group_by", "", "What must not be torn apart, see simclr-split.", **own)
        flags.DEFINE_float(
            "test_share", 0.2, "Share that is sealed, if the images have no split test.", **own
        )
    _define_strategies(own, flag_values)
    _define_sizes(own, flag_values)
    with topic(flag_values, "Output"):
        flags.DEFINE_string("output", None, "Folder of the comparison.", required=True, **own)
        flags.DEFINE_bool("overwrite", False, "Delete an earlier comparison there.", **own)
        flags.DEFINE_integer(
            "parallel", 1, "Strategies at the same time, each with a GPU of its own.",
            lower_bound=1, **own,
        )  # fmt: skip
        flags.DEFINE_bool("plan_only", False, "Divide the images, plan, and stop.", **own)
        flags.DEFINE_list(
            "only", [], "Work on these encoders alone and write no report, such as simclr: for "
            "several machines with one folder, once the plan is made.", **own,
        )  # fmt: skip


def _define_strategies(own: dict[str, Any], flag_values: flags.FlagValues) -> None:
    with topic(flag_values, "Strategies"):
        flags.DEFINE_list(
            "strategies",
            ["scratch", "untrained", "imagenet_supervised", "imagenet_simclr", "simclr"],
            "What is compared, see above.",
            **own,
        )
        flags.DEFINE_list("heads", ["probe", "full"], "Heads of those that name none.", **own)
        flags.DEFINE_enum(
            "preset", "", ["", "six_experiments", "demo"],
            "Instead: the experiments of a published study on drill cores; or the rows of "
            "simclr-demo.", **own,
        )  # fmt: skip
        flags.DEFINE_string("backbone", "vgg16", "Network of imagenet_supervised.", **own)
        flags.DEFINE_string("imagenet_weights", "", "File of its weights, 'notop'.", **own)
        flags.DEFINE_string(
            "imagenet_checkpoint", "", "Public SimCLR checkpoint: a path or a name of simclr-zoo.",
            **own,
        )  # fmt: skip
        flags.DEFINE_bool("download", False, "Fetch weights that are not here.", **own)
        flags.DEFINE_integer(
            "frozen_blocks", 2, "imagenet_simclr+METHOD: freeze the stem and so many block groups; "
            "-1 = nothing.", lower_bound=-1, upper_bound=3, **own,
        )  # fmt: skip
        flags.DEFINE_list(
            "label_fractions", ["0.01", "0.05", "0.1", "1.0"], "Shares of the labels.", **own
        )
        flags.DEFINE_list(
            "labels_per_class", [], "Beside them: so many labels of every class, as 5,20.", **own
        )
        flags.DEFINE_integer("folds", 3, "Repetitions with other labels.", lower_bound=1, **own)
        flags.DEFINE_integer("seeds", 1, "Repetitions of each fold.", lower_bound=1, **own)
        flags.DEFINE_integer("seed", 0, "Seed of everything.", lower_bound=0, **own)
        flags.DEFINE_enum(
            "metric", "balanced_accuracy",
            ["balanced_accuracy", "accuracy", "macro_f1", "roc_auc"], "What counts.", **own,
        )  # fmt: skip


def _define_sizes(own: dict[str, Any], flag_values: flags.FlagValues) -> None:
    with topic(flag_values, "Budget and sizes"):
        flags.DEFINE_float(
            "minutes", 0.0, "Budget: what of the following is 0 is planned for it, by timing a few "
            "steps first.", lower_bound=0, **own,
        )  # fmt: skip
        for name, text in (
            ("image_size", "Side of the network's input; 0 = planned, or 64."),
            ("imagenet_image_size", "The same for networks with ImageNet weights."),
            ("pretrain_steps", "Updates of a pretraining; 0 = planned, or 700."),
            ("finetune_steps", "Updates of a fine-tuning; 0 = planned, or 80."),
        ):  # fmt: skip
            flags.DEFINE_integer(name, 0, text, lower_bound=0, **own)
        flags.DEFINE_integer(
            "scratch_factor", 3, "Updates from scratch for each of a fine-tuning.",
            lower_bound=1, **own,
        )  # fmt: skip
        flags.DEFINE_integer("resnet_depth", 18, "Depth of the own network.", **own)
        flags.DEFINE_float(
            "width_multiplier", 0.0, "Its width; 0 = planned, or 0.375.", lower_bound=0, **own
        )
    with topic(flag_values, "Augmentation"):
        flags.DEFINE_bool("vertical_flip", False, "Mirror up-down, too.", **own)
        flags.DEFINE_bool("right_angle_rotation", False, "Turn by right angles, too.", **own)
        flags.DEFINE_float("color_jitter_strength", 1.0, "Of pretraining.", 0, 1.25, **own)
        flags.DEFINE_float("min_crop_area", 0.2, "Least share of the area of a crop.", 0, 1, **own)
        flags.DEFINE_float("central_crop", 0.0, "Central share that is kept; 0 = all.", 0, 1, **own)


def run(flag_values: flags.FlagValues) -> int:
    """Compares, and prints the table and the recommendation."""
    f, output = flag_values, flag_values.output
    _settings(f).validate()
    if f.only or f.plan_only:  # a part of what another process does
        return _compare(f)
    busy = f"--output={output}: another comparison is at work there; wait for it to end"
    with claimed(Path(output), busy):
        return _compare(f)


def _compare(f: flags.FlagValues) -> int:
    began, settings = time.perf_counter(), _settings(f)
    import_tensorflow()
    from simclr_tf.training.distribution import refuse_cluster

    refuse_cluster(NAME)
    from finetune.compare.chain import Stopped
    from finetune.compare.page import PAGE, mean_table
    from finetune.compare.plan import by_encoder
    from finetune.compare.run import OWN_FILES, SETTINGS, Experiment, Together

    output = Path(f.output)
    if f.overwrite and (output / SETTINGS).exists() and not f.only:
        for name in OWN_FILES:
            path = output / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    experiment = Experiment(settings, output, lambda: open_images(f), progress_lines, began)
    together = Together(["finetune.cli.compare", *_given(f)], f.parallel)
    alone = f.parallel == 1 or bool(f.only)
    if not alone and not f.plan_only and (code := together.plan(output)):
        return code
    experiment.prepare(f.parallel)
    if f.plan_only:
        experiment.note_time()
        return 0
    try:
        if alone:
            experiment.run(f.only)
        else:
            together.run([encoder.name for encoder in by_encoder(experiment.rows)])
    except Stopped as stopped:
        experiment.note_time()
        log.info("stopped; what is done is saved, and the same command goes on from there")
        return stopped.code
    if f.only:
        return 0
    results, advice, _ = experiment.report([NAME, *_given(f)])
    print(mean_table(results).text())
    print(f"\n{advice.text()}")
    log.info("the page: %s", output / PAGE)
    return 0


def _settings(f: flags.FlagValues) -> "CompareSettings":
    from dataclasses import fields

    from finetune.compare.strategies import CompareSettings

    values = {
        field.name: f[field.name].value
        for field in fields(CompareSettings)
        if f[field.name].value is not None
    }
    try:
        shares = tuple(float(text) for text in f.label_fractions)
    except ValueError:
        raise UserError(
            f"--label_fractions={','.join(f.label_fractions)}: give numbers, such as 0.1,1"
        ) from None
    try:
        counts = tuple(int(text) for text in f.labels_per_class)
    except ValueError:
        raise UserError(
            f"--labels_per_class={','.join(f.labels_per_class)}: give whole numbers, such as 5,20"
        ) from None
    lists = {name: tuple(values[name]) for name in ("strategies", "heads")}
    return CompareSettings(
        **{**values, **lists, "label_fractions": shares, "labels_per_class": counts}
    )


_HOW = {"flagfile", "undefok", "parallel", "only", "overwrite", "plan_only"}


def _given(f: flags.FlagValues) -> list[str]:
    """The flags that decide the numbers, in their order of definition."""
    texts = []
    for name in f:
        if not f[name].using_default_value and name not in _HOW:
            value = f[name].value
            texts.append(f"--{name}={','.join(value) if isinstance(value, list) else value}")
    return texts


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-compare`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
