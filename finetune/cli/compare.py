"""`simclr-compare`: which strategy is best for given images, with few labels and with many."""

import logging
import shutil
import sys
import time
from collections.abc import Collection
from pathlib import Path

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.storage import claimed
from finetune.compare.strategies import CompareConfig

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


_HOW = {"parallel", "only", "overwrite", "plan_only"}


def run(config: CompareConfig, given: Collection[str]) -> int:
    """Compares, and prints the table and the recommendation."""
    where = config.output
    if where.only or where.plan_only:  # a part of what another process does
        return _compare(config, given)
    busy = f"--output={where.output}: another comparison is at work there; wait for it to end"
    with claimed(Path(where.output), busy):
        return _compare(config, given)


def _compare(config: CompareConfig, given: Collection[str]) -> int:
    began, how = time.perf_counter(), config.output
    import_tensorflow()
    from simclr_tf.training.distribution import refuse_cluster

    refuse_cluster(NAME)
    from data_prep.manifest.open_images import open_images
    from finetune.compare.chain import Stopped
    from finetune.compare.page import PAGE, mean_table
    from finetune.compare.plan import by_encoder
    from finetune.compare.run import OWN_FILES, SETTINGS, Experiment, ParallelWorkers

    output = Path(how.output)
    if how.overwrite and (output / SETTINGS).exists() and not how.only:
        for name in OWN_FILES:
            path = output / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    flags = config.flags(set(given) - _HOW)
    experiment = Experiment(
        config, output, lambda: open_images(config.images), progress_lines, began
    )
    together = ParallelWorkers(["finetune.cli.compare", *flags], how.parallel)
    alone = how.parallel == 1 or bool(how.only)
    if not alone and not how.plan_only and (code := together.plan(output)):
        return code
    experiment.prepare(how.parallel)
    if how.plan_only:
        experiment.note_time()
        return 0
    try:
        if alone:
            experiment.run(how.only)
        else:
            together.run([encoder.name for encoder in by_encoder(experiment.rows)])
    except Stopped as stopped:
        experiment.note_time()
        log.info("stopped; what is done is saved, and the same command goes on from there")
        return stopped.code
    if how.only:
        return 0
    results, advice, _ = experiment.report([NAME, *flags])
    print(mean_table(results).text())
    print(f"\n{advice.text()}")
    log.info("the page: %s", output / PAGE)
    return 0


COMMAND = Command(
    NAME,
    DESCRIPTION,
    CompareConfig,
    run,
    basics=(
        "image_dir",
        "manifest",
        "output",
        "minutes",
        "strategies",
        "label_fractions",
        "folds",
        "imagenet_weights",
        "imagenet_checkpoint",
        "group_by",
        "metric",
        "preset",
        "vertical_flip",
    ),
    positional=("image_dir", "output"),
)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
