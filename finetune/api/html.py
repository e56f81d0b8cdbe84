"""Tables and pictures of results for notebooks."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.reading.thumbnails import blank, thumbnail

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE = 96


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """An HTML table; texts are escaped."""
    head = "".join(f"<th style='text-align:left'>{html.escape(str(cell))}</th>" for cell in header)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def gallery(images: Manifest) -> str:
    """Small pictures of images with their labels beneath."""
    cells = []
    for record, jpeg in zip(images.records, small_pictures(images), strict=True):
        label = html.escape(record.label or record.path.rsplit("/", 1)[-1])
        data = base64.b64encode(jpeg).decode()
        cells.append(
            "<figure style='display:inline-block;margin:2px;text-align:center'>"
            f"<img alt='{label}' height={_SIDE} src='data:image/jpeg;base64,{data}'>"
            f"<figcaption style='font-size:small'>{label}</figcaption></figure>"
        )
    return "".join(cells)


def small_pictures(images: Manifest) -> list[bytes]:
    """A JPEG of every image; a blank one where it cannot be read."""
    pictures = []
    for file, record in zip(images.files(), images.records, strict=True):
        try:
            pictures.append(thumbnail(file, record.tile, record.reading, 2 * _SIDE))
        except (UserError, OSError):
            pictures.append(blank(2 * _SIDE))
    return pictures


def contact_figure(images: Manifest) -> "Figure":
    """A matplotlib figure of images with their labels as titles."""
    from matplotlib.figure import Figure
    from PIL import Image

    columns = min(len(images), 8) or 1
    rows = -(-len(images) // columns) or 1
    figure = Figure(figsize=(1.5 * columns, 1.7 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, record, jpeg in zip(axes, images.records, small_pictures(images), strict=False):
        axis.imshow(Image.open(io.BytesIO(jpeg)), cmap="gray")
        axis.set_title(record.label, fontsize=8)
    return figure


def data_frame(columns: Mapping[str, Sequence[Any]]) -> Any:
    """A pandas data frame.

    Raises:
        UserError: pandas is not installed.
    """
    try:
        import pandas as pd  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise UserError("pandas is not installed: pip install pandas") from None
    return pd.DataFrame(dict(columns))
