"""Runs side by side: the same images marked in every scatter, and their neighbors in each."""

import base64
import difflib
import itertools
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans

from data_prep.errors import UserError
from data_prep.page import Page, Picture, Section, Table, page_environment
from data_prep.storage import write_text
from simclr_tf.evaluation.features import l2_normalize
from simclr_tf.evaluation.figures import NARROW, point_style, single_axes, to_png
from simclr_tf.evaluation.neighbors import nearest_neighbors
from simclr_tf.explore.data import ExploreData
from simclr_tf.explore.page import NEAREST, static_templates
from simclr_tf.explore.projections import Projection, project_all

NUMBER = 6


def common_images(runs: Sequence[ExploreData]) -> list[str]:
    """The names that all runs have, in the first run's order.

    Raises:
        UserError: There are none, or two images of a run have the same name.
    """
    for run in runs:
        ((most_frequent, times),) = Counter(run.names).most_common(1)
        if times > 1:
            raise UserError(
                f"{run.title}: two images are called {most_frequent}: names must differ"
            )
    others = [set(run.names) for run in runs[1:]]
    common = [name for name in runs[0].names if all(name in names for names in others)]
    if not common:
        raise UserError("the runs have no image in common: embed the same images with all of them")
    return common


def check_pinned(pinned: Sequence[str], common: Sequence[str]) -> list[str]:
    """The pinned names, each once.

    Raises:
        UserError: One is not among the common images; the most similar names are given.
    """
    known = set(common)
    for name in pinned:
        if name not in known:
            similar = difflib.get_close_matches(name, common, n=3, cutoff=0.4)
            hint = f"; similar names: {', '.join(similar)}" if similar else ""
            raise UserError(f"no image that all runs have is called {name}{hint}")
    return list(dict.fromkeys(pinned))


def diverse_images(
    features: Sequence[np.ndarray], number: int = NUMBER, seed: int = 0
) -> list[int]:
    """Images typical of different parts of the embeddings.

    The images are grouped by k-means on the features of all runs side by side, each scaled to
    length 1; of every group the image nearest to its centre is taken, the largest group first.

    Args:
        features: Of every run, float [n, d], the same images in the same order.
        number: Images; fewer if there are fewer, or fewer that differ.
        seed: Of k-means.

    Returns:
        Positions, each once.
    """
    rows = np.concatenate([l2_normalize(part) for part in features], axis=1)
    number = min(number, len(np.unique(rows, axis=0)))
    fitted = KMeans(number, n_init=1, random_state=seed).fit(rows)
    distances = fitted.transform(rows)
    largest_first = np.argsort(-np.bincount(fitted.labels_, minlength=number), kind="stable")
    return [int(distances[:, group].argmin()) for group in largest_first]


log = logging.getLogger(__name__)

PAGE = "comparison.html"
_PAPER_GRAY = "#cfd5db"


@dataclass(frozen=True)
class AlignedEmbedding:
    """One run, brought to the images that all runs have.

    Attributes:
        title: Of the run.
        thumbnails: JPEG bytes [n].
        projection: Of all n images.
        neighbors: int [n, k], the nearest first.
        distances: float32 [n, k], cosine.
    """

    title: str
    thumbnails: list[bytes]
    projection: Projection
    neighbors: np.ndarray
    distances: np.ndarray


@dataclass(frozen=True)
class Tile:
    """A thumbnail on the page.

    Attributes:
        uri: Its data.
        name: Of the image.
        distance: To the pinned image, as text; "" = it is the pinned image.
        shared: It is a neighbour in another run as well.
    """

    uri: str
    name: str
    distance: str = ""
    shared: bool = False


def write_comparison(
    folder: Path,
    runs: Sequence[ExploreData],
    pinned: Sequence[str],
    method: str = "pca",
    seed: int = 0,
) -> Path:
    """Writes `comparison.html`: pinned images in every run's scatter, and their neighbours.

    Only images that all runs have take part, so that neighbours can be compared.

    Args:
        folder: Is made if it is missing; a comparison that is there is replaced.
        runs: Two or more embeddings of the same images; their titles name them.
        pinned: Names of the images to look at; if empty a few that differ are chosen.
        method: Of the scatters, see `projections.project`.
        seed: Of the projections and the choice.

    Returns:
        The page's path.

    Raises:
        UserError: Too few runs, no image in common, or a pinned one that a run lacks.
    """
    if len(runs) < 2:
        raise UserError("a comparison takes two runs or more")
    common = common_images(runs)
    rows = [_rows(run, common) for run in runs]
    features = [run.features[own] for run, own in zip(runs, rows, strict=True)]
    if pinned:
        places = [common.index(name) for name in check_pinned(pinned, common)]
    else:
        places = diverse_images(features, seed=seed)
    compared = [
        _compared(run, own, part, method, seed)
        for run, own, part in zip(runs, rows, features, strict=True)
    ]
    page = _page(runs, compared, common, places)
    strips = [_strips(compared, common, place) for place in places]
    template = page_environment(static_templates()).get_template("comparison.html")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / PAGE
    names = [common[place] for place in places]
    titles = [run.title for run in compared]
    write_text(
        path,
        template.render(page=page, titles=titles, pinned=list(zip(names, strips, strict=True))),
    )
    log.info("%s: %d runs, %d images in common", path, len(runs), len(common))
    return path


def shared_neighbors(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Counts the neighbours that two runs share, image by image.

    Args:
        first: int [n, k].
        second: int [n, k].

    Returns:
        int [n], from 0 to k.
    """
    return (first[:, :, np.newaxis] == second[:, np.newaxis, :]).any(axis=2).sum(axis=1)


def _rows(run: ExploreData, common: Sequence[str]) -> list[int]:
    places = {name: place for place, name in enumerate(run.names)}
    return [places[name] for name in common]


def _compared(
    run: ExploreData, rows: Sequence[int], features: np.ndarray, method: str, seed: int
) -> AlignedEmbedding:
    log.info("projection and neighbours of %s", run.title)
    (projection,), _ = project_all(features, [method], seed)
    neighbors, distances = nearest_neighbors(features, NEAREST)
    thumbnails = [run.thumbnails[row] for row in rows]
    return AlignedEmbedding(run.title, thumbnails, projection, neighbors, distances)


def _page(
    runs: Sequence[ExploreData],
    compared: Sequence[AlignedEmbedding],
    common: Sequence[str],
    places: Sequence[int],
) -> Page:
    left_out = {run.title: len(run) - len(common) for run in runs if len(run) > len(common)}
    summary = [f"{len(runs)} runs, and {len(common):,} images that all of them have."]
    summary += [
        f"{title} has {number:,} more, which take no part here."
        for title, number in left_out.items()
    ]
    return Page(
        "Embeddings of the same images compared",
        tuple(summary),
        (_scatters(compared, places), _shared(compared, places)),
        {f"{run.title}: {name}": value for run in runs for name, value in run.facts.items()},
    )


def _scatters(compared: Sequence[AlignedEmbedding], places: Sequence[int]) -> Section:
    projection = compared[0].projection
    pictures = tuple(
        Picture(_scatter(run, places), run.title, alt=f"scatter of {run.title}", half=True)
        for run in compared
    )
    text = (
        f"{projection.title} of every run. The marks are the pinned images, the same in every"
        " scatter; their numbers are those of the neighbours below.",
    )
    return Section("Where the pinned images lie", text, pictures=pictures)


def _scatter(run: AlignedEmbedding, places: Sequence[int]) -> bytes:
    figure, axes = single_axes(4.3, width=NARROW)
    points = run.projection.points
    size = 6 if len(points) > 1000 else 18
    axes.scatter(points[:, 0], points[:, 1], s=size, color=_PAPER_GRAY, linewidths=0)
    for number, place in enumerate(places):
        x, y = points[place]
        axes.scatter(
            x,
            y,
            s=110,
            edgecolors="white",
            linewidths=1.2,
            zorder=3,
            label=str(number + 1),
            **point_style(number),
        )
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal", adjustable="datalim")
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=8, frameon=False)
    return to_png(figure, dpi=110)


def _shared(compared: Sequence[AlignedEmbedding], places: Sequence[int]) -> Section:
    count, most = compared[0].neighbors.shape
    chance = most * most / (count - 1) if count > 1 else 0.0
    rows = []
    for first, second in itertools.combinations(compared, 2):
        shared = shared_neighbors(first.neighbors, second.neighbors)
        cells = [f"{first.title} and {second.title}", f"{shared.mean():.2f}"]
        rows.append(tuple(cells + [str(shared[place]) for place in places]))
    table = Table(
        ("runs", "mean over\nall images", *(str(number + 1) for number in range(len(places)))),
        tuple(rows),
        f"Of {most} nearest neighbours, how many two runs share",
        note=f"Runs that have nothing to do with each other would share {chance:.2f} on average.",
    )
    return Section("Neighbours that runs share", tables=(table,))


def _strips(
    compared: Sequence[AlignedEmbedding], common: Sequence[str], place: int
) -> list[list[Tile]]:
    """For every run the pinned image and its neighbours."""
    found = [set(run.neighbors[place].tolist()) for run in compared]
    strips = []
    for run, own in zip(compared, found, strict=True):
        elsewhere = set().union(*(other for other in found if other is not own))
        tiles = [Tile(_uri(run.thumbnails[place]), common[place])]
        for row, distance in zip(run.neighbors[place], run.distances[place], strict=True):
            uri, name = _uri(run.thumbnails[row]), common[row]
            tiles.append(Tile(uri, name, f"{distance:.4f}", int(row) in elsewhere))
        strips.append(tiles)
    return strips


def _uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
