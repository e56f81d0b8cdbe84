"""What a page's script reads: arrays as base64, everything else as JSON that HTML cannot break."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from simclr_tf.explore.data import ExploreData
from simclr_tf.explore.projections import Projection

_MOST_CATEGORIES = 20
_ALWAYS_CATEGORIES = ("label", "split", "cluster")


def payload(
    data: ExploreData,
    projections: Sequence[Projection],
    neighbours: np.ndarray,
    distances: np.ndarray,
) -> dict[str, Any]:
    """The data of an explorer page.

    Args:
        data: The images.
        projections: Of all of them.
        neighbours: int [n, k], positions.
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
        "neighbours": packed(neighbours, "<i4"),
        "distances": packed(distances, "<f4"),
        "nearest": neighbours.shape[1],
    }


def packed(array: np.ndarray, kind: str) -> str:
    """The array's numbers, as base64; `kind` is NumPy's name of a little-endian type."""
    return base64.b64encode(np.ascontiguousarray(array, kind).tobytes()).decode("ascii")


def script_json(content: Any) -> str:
    """JSON that can stand in a <script>: no text in it ends the script or opens a comment."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _column(name: str, values: Sequence[str]) -> dict[str, Any]:
    """A column as positions in the list of its values (-1 = not known); or of numbers.

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
    """Numbers by size, then words."""
    number = _number(value)
    return (float("inf") if number is None else number, value)


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if np.isfinite(number) else None
