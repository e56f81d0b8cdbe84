"""Sheets of samples: some images, always the same ones, and what the networks make of them."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from data_prep.augment.contact_sheet import SheetRow, write_sheet
from data_prep.manifest.manifest import Record
from finetune.depth.pairs import DepthSet, case_of
from simclr_tf.training.callbacks import TensorBoard

_ROWS = 6

# images [n, H, W, 1] in [0, 1] -> likewise, on the networks' scale
Maker = Callable[[np.ndarray], np.ndarray]


def chosen_records(records: Sequence[Record], number: int = _ROWS) -> list[Record]:
    """A few records: the first of every case, then the second of each, ..."""
    cases: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        cases[case_of(record)].append(record)
    turns = chain.from_iterable(zip_longest(*(cases[name] for name in sorted(cases))))
    return [record for record in turns if record][:number]


def with_colours(values: np.ndarray, name: str = "viridis") -> np.ndarray:
    """Values in [0, 1], [..., 1], as colours uint8 [..., 3] of a map of Matplotlib."""
    from matplotlib import colormaps

    return np.asarray(colormaps[name](np.clip(values[..., 0], 0, 1), bytes=True))[..., :3]


class SampleSheets(keras.callbacks.Callback):
    """Draws a sheet every few epochs, and after the last one; for TensorBoard, too.

    Args:
        folder: `samples/`.
        images: To choose from; with targets or without.
        limits: Depths that the networks call 0 and 1; None if they make no depth maps.
        make: From images to the goal.
        back: From the goal to images; None if there is no way back.
        every: Epochs between sheets; 0 = only the last.
        last_step: After which the last sheet comes.
        board: Where the sheets go as well.
    """

    def __init__(
        self,
        folder: Path,
        images: DepthSet,
        limits: tuple[float, float] | None,
        make: Maker,
        back: Maker | None,
        every: int,
        last_step: int,
        board: TensorBoard,
    ) -> None:
        super().__init__()
        self._folder, self._make, self._back = folder, make, back
        self._every, self._last_step, self._board = every, last_step, board
        self._limits = limits
        self._records = chosen_records(images.records)
        self._images = images.images(self._records)
        self._targets = None
        if limits:
            low, high = limits
            self._targets = (images.targets(self._records) - low) / (high - low)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Draws the sheet if one is due."""
        step = int((logs or {})["step"])
        if step < self._last_step and not (self._every and (epoch + 1) % self._every == 0):
            return
        file = self._folder / f"epoch_{epoch + 1:04d}.png"
        columns, pictures = self._pictures()
        rows = [
            SheetRow((case_of(record), Path(record.path).name), images)
            for record, *images in zip(self._records, *pictures, strict=True)
        ]
        write_sheet(file, f"Epoch {epoch + 1}", columns, rows)
        with Image.open(file) as sheet:
            self._board.image("samples", np.asarray(sheet.convert("RGB")), step)

    def _pictures(self) -> tuple[list[str], list[np.ndarray]]:
        """Names and pictures [n, H, W, C] of the columns."""
        made = self._make(self._images)
        if self._targets is None:
            columns = {"image": self._images, "translated": made}
        else:
            error = np.abs(made - self._targets)
            columns = {
                "image": self._images,
                "predicted": with_colours(made),
                "true": with_colours(self._targets),
                "error x 5": with_colours(5 * error, "magma"),
            }
        if self._back:
            columns["and back"] = self._back(made)
        return list(columns), list(columns.values())
