"""The explorer: one HTML file with a scatter, thumbnails, neighbors, filters and selections."""

import base64
import json
import logging
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from data_prep.page import Page, page_environment
from data_prep.phrases import counted
from data_prep.storage import write_text
from simclr_tf.evaluation.figures import COLORS
from simclr_tf.evaluation.neighbors import nearest_neighbors
from simclr_tf.explore.data import ExploreData
from simclr_tf.explore.projections import Projection, project_all, write_projector
from simclr_tf.explore.thumbnails import Atlas, make_atlas

_MOST_CATEGORIES = 20
_ALWAYS_CATEGORIES = ("label", "split", "cluster")


def payload(
    data: ExploreData,
    projections: Sequence[Projection],
    neighbors: np.ndarray,
    distances: np.ndarray,
) -> dict[str, Any]:
    """The data of an explorer page.

    Args:
        data: The images.
        projections: Of all of them.
        neighbors: int [n, k], positions.
        distances: float32 [n, k].
    """
    return {
        "names": data.names,
        "places": data.places,
        "root": data.root,
        "projections": [
            {"title": p.title, "note": p.note, "points": packed(p.points, "<f4")}
            for p in projections
        ],
        "columns": [_column(name, values) for name, values in data.columns.items()],
        "neighbours": packed(neighbors, "<i4"),
        "distances": packed(distances, "<f4"),
        "nearest": neighbors.shape[1],
    }


def packed(array: np.ndarray, kind: str) -> str:
    """The array's numbers, as base64; `kind` is NumPy's name of a little-endian type."""
    return base64.b64encode(np.ascontiguousarray(array, kind).tobytes()).decode("ascii")


def script_json(content: Any) -> str:
    """JSON that can stand in a <script>: no text in it ends the script or opens a comment."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _column(name: str, values: Sequence[str]) -> dict[str, Any]:
    """A column as positions in the list of its values (-1 = not known), with their numbers.

    A column of more than 20 different numbers is a quantity, which gets a gradient, unless it is
    called label, split or cluster.
    """
    known = sorted(set(values) - {""}, key=_natural)
    codes = {value: code for code, value in enumerate(known)} | {"": -1}
    numbers = [_number(value) for value in known]
    is_quantity = (
        len(known) > _MOST_CATEGORIES
        and None not in numbers
        and not name.lower().startswith(_ALWAYS_CATEGORIES)
    )
    return {
        "name": name,
        "values": known,
        "numbers": numbers if is_quantity else None,
        "codes": packed(np.array([codes[value] for value in values]), "<i4"),
    }


def _natural(value: str) -> tuple[float, str]:
    """Sort key: numbers by size, then words."""
    number = _number(value)
    return (float("inf") if number is None else number, value)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if np.isfinite(number) else None


log = logging.getLogger(__name__)

PAGE = "explore.html"
PROJECTOR = "projector"
NEAREST = 7

_SYMBOLS = ("circle", "triangle-up", "square")  # with eight colours: 24 kinds of points
_GRADIENT = 64  # colours of matplotlib's cividis, made for colour-blind readers


def write_explore_page(
    folder: Path,
    data: ExploreData,
    methods: Sequence[str] = ("pca", "tsne", "umap", "random"),
    seed: int = 0,
) -> Path:
    """Writes `explore.html`, and the files of TensorBoard's projector in `projector/`.

    The page is one file that loads nothing from anywhere. What is there is replaced, each file
    at one go and the page last.

    Args:
        folder: Is made if it is missing.
        data: The images.
        methods: Projections to choose from, see `projections.project`; those that are not
            possible are left out, and the page says why.
        seed: Of the projections, and of the order in which dots are drawn.

    Returns:
        The page's path.

    Raises:
        UserError: A method that there is not, or none that is possible.
    """
    folder.mkdir(parents=True, exist_ok=True)
    projections, remarks = project_all(data.features, methods, seed)
    neighbors, distances = nearest_neighbors(data.features, NEAREST)
    log.info("writing %s", PAGE)
    atlas = make_atlas(data.thumbnails)
    content = payload(data, projections, neighbors, distances) | {
        "colours": COLORS,
        "symbols": _SYMBOLS,
        "gradient": _gradient(),
        "order": packed(np.random.default_rng(seed).permutation(len(data)), "<i4"),
        "atlas": {
            "tile": atlas.tile,
            "across": atlas.across,
            "perPicture": atlas.per_picture,
        },
    }
    write_projector(folder / PROJECTOR, data, seed)
    page = Page(data.title, (*data.first, _summary(data), *remarks), facts=data.facts)
    path = folder / PAGE
    write_text(path, _rendered(page, script_json(content), atlas))
    size = path.stat().st_size / 1e6
    # The folder may be one that is still to be moved to its place: not its path, but its name.
    log.info("%s: %s, %.1f MB", PAGE, counted(len(data), "image"), size)
    return path


def static_templates() -> jinja2.BaseLoader:
    """The templates of this package, for `page_environment`."""
    return jinja2.PackageLoader("simclr_tf.explore", "static")


def _summary(data: ExploreData) -> str:
    return f"{len(data):,} images, each with {data.features.shape[1]:,} features."


def _gradient() -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    cividis = colormaps["cividis"]
    return [to_hex(cividis(step / (_GRADIENT - 1))) for step in range(_GRADIENT)]


def _rendered(page: Page, content: str, atlas: Atlas) -> str:
    plotly = resources.files("plotly").joinpath("package_data", "plotly.min.js")
    static = resources.files("simclr_tf.explore").joinpath("static")
    template = page_environment(static_templates()).get_template("explore.html")
    return template.render(
        page=page,
        plotly=Markup(plotly.read_text(encoding="utf-8")),
        style=Markup(static.joinpath("explore.css").read_text(encoding="utf-8")),
        scripts=[
            Markup(static.joinpath(name).read_text(encoding="utf-8"))
            for name in ("data.js", "scatter.js", "explore.js")
        ],
        content=Markup(content),
        pictures=[base64.b64encode(picture).decode("ascii") for picture in atlas.pictures],
    )
