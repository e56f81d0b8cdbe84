"""Features brought to the plane: PCA, t-SNE, UMAP, random projections, TensorBoard's projector."""

import contextlib
import io
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.random_projection import GaussianRandomProjection
from threadpoolctl import threadpool_limits

from data_prep.errors import UserError
from data_prep.storage import write_bytes, write_text
from simclr_tf.evaluation.features import l2_normalize
from simclr_tf.explore.data import ExploreData
from simclr_tf.explore.thumbnails import sprite

log = logging.getLogger(__name__)

GIVEN = "_given"
_TITLES = {"pca": "PCA", "tsne": "t-SNE", "umap": "UMAP", "random": "Random projection"}
METHODS = (*_TITLES, *(name + GIVEN for name in _TITLES))

_OF_NEIGHBORS = ("tsne", "umap")
_DIMENSIONS = 50  # to which features are reduced before methods that look for neighbours
_FEWEST = 10  # images, for such methods
_MOST_TSNE = 50_000  # images: about ten minutes of one core
_LONG_TSNE = 5_000  # images, from which on it takes a minute or more
_TSNE_STEPS = 1000
_PERPLEXITY = 30
_UMAP_NEIGHBORS = 15


class NotPossibleError(Exception):
    """A projection that cannot be made of these features, and why."""


@dataclass(frozen=True)
class Projection:
    """Points in the plane.

    Attributes:
        method: One of METHODS.
        title: For people.
        note: How it is to be read.
        points: float32 [n, 2].
    """

    method: str
    title: str
    note: str
    points: np.ndarray


def project(features: np.ndarray, method: str, seed: int = 0) -> Projection:
    """Brings features to the plane.

    Args:
        features: float32 [n, d].
        method: `pca`; `tsne` (van der Maaten 2014, Barnes-Hut) and `umap` (McInnes et al. 2018),
            both after PCA to 50 dimensions; `random`, a product with a Gaussian matrix. All of
            features scaled to length 1, so that distances agree with cosines; with `_given`
            behind the name of the features as they are.
        seed: Of all that is drawn. The same seed gives the same points on the same machine.

    Raises:
        UserError: There is no such method.
        NotPossibleError: Too few or too many images for it, or a library is missing.
    """
    if method not in METHODS:
        raise UserError(f"no projection is called {method!r}; there are {', '.join(METHODS)}")
    base = method.removesuffix(GIVEN)
    if base in _OF_NEIGHBORS and len(features) < _FEWEST:
        raise NotPossibleError(f"{_TITLES[base]} is left out: it needs {_FEWEST} images at least")
    given = method != base
    title = _TITLES[base] + (" of unscaled features" if given else "")
    rows = features if given else l2_normalize(features)
    if rows.shape[1] < 2:
        rows = np.pad(rows, ((0, 0), (0, 2 - rows.shape[1])))
    if not np.ptp(rows, axis=0).any():
        nowhere = np.zeros((len(rows), 2), np.float32)
        return Projection(method, title, "All features are the same.", nowhere)
    points, note = _FUNCTIONS[base](rows, seed)
    return Projection(method, title, note, np.ascontiguousarray(points, np.float32))


def project_all(
    features: np.ndarray, methods: Sequence[str], seed: int = 0
) -> tuple[list[Projection], list[str]]:
    """Projections by several methods; those that are not possible are left out with a remark.

    Args:
        features: float32 [n, d].
        methods: See `project`.
        seed: See `project`.

    Returns:
        The projections, and the remarks; the log has them too.

    Raises:
        UserError: No method is left.
    """
    made, remarks = [], []
    for method in dict.fromkeys(methods):
        try:
            made.append(project(features, method, seed))
        except NotPossibleError as reason:
            remarks.append(str(reason))
            log.warning("%s", reason)
    if not made:
        raise UserError("no projection can be shown" + "".join(f"; {text}" for text in remarks))
    return made, remarks


def _pca(features: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    fitted = PCA(2, random_state=seed).fit(features)
    first, second = fitted.explained_variance_ratio_
    note = (
        f"The two directions along which the features vary most: {first:.1%} of the variance"
        f" from left to right, {second:.1%} upwards."
    )
    return fitted.transform(features), note


def _tsne(features: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    count = len(features)
    if count > _MOST_TSNE:
        raise NotPossibleError(
            f"t-SNE is left out: {count:,} images would take it too long (at most {_MOST_TSNE:,})"
        )
    if count > _LONG_TSNE:
        log.info("t-SNE of %d images: this takes some minutes", count)
    perplexity = min(_PERPLEXITY, (count - 1) / 3)
    method = TSNE(
        2, perplexity=perplexity, max_iter=_TSNE_STEPS, init="pca", random_state=seed, verbose=2
    )
    # With several threads sums are taken in another order every time, and t-SNE makes much of it.
    with threadpool_limits(1), contextlib.redirect_stdout(_ToLog(count > _LONG_TSNE)):
        points = method.fit_transform(_reduced(features, seed))
    note = (
        f"Keeps near what is near (perplexity {perplexity:.3g}); distances between groups, and"
        " their sizes, mean little."
    )
    return points, note


def _umap(features: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    try:
        import umap
    except ImportError:
        raise NotPossibleError(
            "UMAP is left out: umap-learn is not installed (pip install 'simclr-tf[umap]')"
        ) from None
    log.info("UMAP of %d images", len(features))
    neighbors = min(_UMAP_NEIGHBORS, len(features) - 1)
    method = umap.UMAP(n_neighbors=neighbors, random_state=seed, n_jobs=1)
    points = method.fit_transform(_reduced(features, seed))
    note = (
        f"Keeps near what is near (the {neighbors} neighbours of every image); distances between"
        " groups mean little."
    )
    return points, note


def _random(features: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    points = GaussianRandomProjection(2, random_state=seed).fit_transform(features)
    return points, "Two random directions: what lies apart here lies apart in the features."


_FUNCTIONS: dict[str, Callable[[np.ndarray, int], tuple[np.ndarray, str]]] = {
    "pca": _pca,
    "tsne": _tsne,
    "umap": _umap,
    "random": _random,
}


def _reduced(features: np.ndarray, seed: int) -> np.ndarray:
    components = min(_DIMENSIONS, *features.shape)
    if features.shape[1] <= components:
        return features
    return np.asarray(PCA(components, random_state=seed).fit_transform(features))


class _ToLog(io.TextIOBase):
    """A stream for scikit-learn's progress, which goes on to the log if the work is long."""

    def __init__(self, told: bool) -> None:
        self._told = told

    def write(self, text: str) -> int:
        step = re.search(r"Iteration (\d+)", text)
        if self._told and step:
            log.info("t-SNE: step %s of %d", step[1], _TSNE_STEPS)
        return len(text)


CONFIG = "projector_config.pbtxt"
TENSORS = "tensors.tsv"
METADATA = "metadata.tsv"
SPRITE = "sprite.jpg"

_MOST_NUMBERS = 10_000_000  # about 100 MB of text
_PROJECTOR_DIMENSIONS = 200  # the projector itself goes on with no more
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
    if features.size > _MOST_NUMBERS and features.shape[1] > _PROJECTOR_DIMENSIONS:
        log.info("TensorBoard's projector gets %d principal components", _PROJECTOR_DIMENSIONS)
        features = PCA(_PROJECTOR_DIMENSIONS, random_state=seed).fit_transform(features)
    text = io.StringIO()
    np.savetxt(text, features, fmt="%.6g", delimiter="\t")
    write_text(folder / TENSORS, text.getvalue())
    write_text(folder / METADATA, _metadata(data))
    picture, tile = sprite(data.thumbnails, _TILE, _LARGEST_SPRITE)
    write_bytes(folder / SPRITE, picture)
    write_text(folder / CONFIG, _config(tile))


def _metadata(data: ExploreData) -> str:
    """A line for each image; headers only with several columns, as the format wants."""
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
