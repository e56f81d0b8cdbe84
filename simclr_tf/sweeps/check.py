"""Checks of images and settings before the first run of a sweep begins."""

from collections.abc import Sequence

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import image_facts
from simclr_tf.config.run_config import RunConfig
from simclr_tf.sweeps.page import pinned_rows
from simclr_tf.sweeps.plan import PlannedRun
from simclr_tf.training.build import small_view_config, view_config
from simclr_tf.training.data import read_manifest


def shared_manifest(config: RunConfig) -> Manifest:
    """The images of all runs, each in a split.

    Args:
        config: Of any run: where the images are, and how they are split, is the same in all.

    Raises:
        UserError: No images are given, or they cannot be used.
    """
    data = config.data
    if not data.image_dir and not data.manifest:
        raise UserError("give --image_dir=FOLDER or --manifest=FILE")
    manifest = read_manifest(data, config.reading)
    for flag, split in (("train_split", data.train_split), ("eval_split", data.eval_split)):
        if split not in manifest.splits:
            raise UserError(
                f"the data has only {', '.join(manifest.splits)}", setting=flag, value=split
            )
    return manifest


def check_runs(runs: Sequence[PlannedRun], manifest: Manifest, pinned: Sequence[str]) -> None:
    """Refuses runs that can be known to fail.

    Raises:
        UserError: Views that cannot be made, classes that are not there, images that are not.
    """
    channels = image_facts(manifest).channels
    classes = len(manifest.class_names)
    for run in runs:
        data = run.config.data
        wanted = data.image_channels
        try:
            number = channels if wanted == "auto" else int(wanted)
            view_config(run.config, number)
            small_view_config(run.config, number)
        except UserError as error:
            raise UserError(f"{run.name}: {error}") from None
        if data.num_of_classes and classes and data.num_of_classes != classes:
            raise UserError(
                f"{run.name}: --num_of_classes={data.num_of_classes}: the data has {classes}"
            )
    pinned_rows(manifest.split(runs[0].config.data.eval_split), pinned)
