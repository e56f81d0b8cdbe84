"""A finished embedding looked at again: with other settings, or with labels of an expert."""

import shutil
from pathlib import Path
from typing import Any

from data_prep.new_folder import new_folder
from simclr_tf.embedding.analyze import ANALYSED, analyse
from simclr_tf.embedding.expert import join_labels
from simclr_tf.embedding.settings import EmbedConfig
from simclr_tf.embedding.stored import open_stored, publish
from simclr_tf.evaluation.blockwise import Progress


def reanalyse(config: EmbedConfig, progress: Progress = lambda done, total: None) -> str:
    """Looks at a finished embedding again, with an expert's labels if there are any.

    Args:
        config: `embedding` names the folder, whose files are replaced at the end, `image_dir` where
            the images lie now, if not where they did.
        progress: Called with (images compared, images in all).

    Returns:
        A table of the measures.

    Raises:
        UserError: There is no such embedding, or the labels cannot be joined; nothing is changed.
    """
    folder = Path(config.labelling.embedding).expanduser().absolute()
    stored = open_stored(folder, image_dir=config.images.image_dir)
    stored.facts.pop("asked", None)  # it is no longer what the first command asked for
    joined = join_labels(stored, Path(config.labelling.join)) if config.labelling.join else None
    place = folder.with_name(f".{folder.name}.again")
    shutil.rmtree(place, ignore_errors=True)
    try:
        with new_folder(place) as made:
            table = analyse(stored, config, made, joined, progress)
        publish(place, folder, ANALYSED)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return table


def stored_settings(folder: str) -> dict[str, Any]:
    """The settings with which a finished embedding was looked at."""
    return dict(open_stored(Path(folder).expanduser()).facts.get("settings", {}))
