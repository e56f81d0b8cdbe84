"""The place of an image (path, tile, page, array) as columns of a table and as a name to show."""

from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.manifest.groups import inner_paths
from data_prep.manifest.identity import array_text, page_text
from data_prep.manifest.manifest import Manifest

PLACE = ("path", "tile", "page", "array")
"""Columns that tell images apart, in the order of their names."""


def place_columns(manifest: Manifest) -> dict[str, list[str]]:
    """Returns the columns of a table that tell the images of a manifest apart, in its order.

    Returns:
        `path`, as in the manifest; `tile` (x,y,width,height) and `page` if any image has one;
        `array` if a file gives several.
    """
    records = manifest.records
    parts = {
        "tile": [record.tile for record in records],
        "page": [page_text(record.reading) for record in records],
    }
    arrays = [array_text(record.reading) for record in records]
    named = {(record.path, array) for record, array in zip(records, arrays, strict=True)}
    if len(named) > len({path for path, _ in named}):
        parts["array"] = arrays
    used = {name: texts for name, texts in parts.items() if any(texts)}
    return {"path": [record.path for record in manifest.records]} | used


def shown_names(columns: Mapping[str, Sequence[Any]]) -> list[str]:
    """A name for each image: its path, with tile, page and array where there are any."""
    place = [columns[name] for name in PLACE if name in columns]
    return [" ".join(part for part in parts if part) for parts in zip(*place, strict=True)]


def short_names(images: Manifest) -> list[str]:
    """Names of images to show: paths below the deepest folder that holds all, and parts."""
    inner = [path.lstrip("/") for path in inner_paths(images)]
    return shown_names({**place_columns(images), "path": inner})
