"""Files of TensorBoard's embedding projector."""

import io
import logging
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA

from data_prep.storage import write_bytes, write_text
from simclr_tf.explore.data import ExploreData
from simclr_tf.explore.thumbnails import sprite

log = logging.getLogger(__name__)

CONFIG = "projector_config.pbtxt"
TENSORS = "tensors.tsv"
METADATA = "metadata.tsv"
SPRITE = "sprite.jpg"

_MOST_NUMBERS = 10_000_000  # about 100 MB of text
_DIMENSIONS = 200  # the projector itself goes on with no more
_LARGEST_SPRITE = 8192  # pixels, of most graphics cards' textures
_TILE = 64


def write_projector(folder: Path, data: ExploreData, seed: int = 0) -> None:
    """Writes what `tensorboard --logdir FOLDER` shows in its projector, over what is there.

    Args:
        folder: Is made if it is missing.
        data: The images. Very many long features are brought to their 200 principal components.
        seed: Of the principal components.
    """
    folder.mkdir(parents=True, exist_ok=True)
    features = data.features
    if features.size > _MOST_NUMBERS and features.shape[1] > _DIMENSIONS:
        log.info("TensorBoard's projector gets %d principal components", _DIMENSIONS)
        features = PCA(_DIMENSIONS, random_state=seed).fit_transform(features)
    text = io.StringIO()
    np.savetxt(text, features, fmt="%.6g", delimiter="\t")
    write_text(folder / TENSORS, text.getvalue())
    write_text(folder / METADATA, _metadata(data))
    picture, tile = sprite(data.thumbnails, _TILE, _LARGEST_SPRITE)
    write_bytes(folder / SPRITE, picture)
    write_text(folder / CONFIG, _config(tile))


def _metadata(data: ExploreData) -> str:
    """A line an image; headers only where there are several columns, as the format wants."""
    rows = zip(data.names, *data.columns.values(), strict=True)
    lines = ["\t".join(map(_one_line, row)) for row in rows]
    if data.columns:
        lines.insert(0, "\t".join(map(_one_line, ("name", *data.columns))))
    return "\n".join(lines) + "\n"


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _config(tile: int) -> str:
    return (
        "embeddings {\n"
        '  tensor_name: "features"\n'
        f'  tensor_path: "{TENSORS}"\n'
        f'  metadata_path: "{METADATA}"\n'
        "  sprite {\n"
        f'    image_path: "{SPRITE}"\n'
        f"    single_image_dim: {tile}\n"
        f"    single_image_dim: {tile}\n"
        "  }\n"
        "}\n"
    )
