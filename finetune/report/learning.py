"""Learning curves out of what training logged, whatever the names of its columns."""

import re
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from data_prep.manifest.manifest import canonical_split
from data_prep.page import Picture
from simclr_tf.evaluation.drawing import NARROW, Curve, to_png
from simclr_tf.evaluation.figures import loss_curves

_DPI = 200
_PREFIX = re.compile(r"^(train|training|val|valid|validation|test)[_/](.+)$")


def curves_by_quantity(history: Mapping[str, np.ndarray]) -> dict[str, dict[str, Curve]]:
    """Sorts columns into quantities and splits.

    `val_loss`, `validation_loss` and `validation/loss` are the loss on validation; a column without
    a split, as Keras logs it, belongs to train.

    Args:
        history: The first column is the step or epoch; the others are values, nan where none.

    Returns:
        Quantity -> split -> (x, y), finite points alone; quantities that never change are left out.
    """
    if not history:
        return {}
    (_, x), *columns = history.items()
    found: dict[str, dict[str, Curve]] = defaultdict(dict)
    for name, values in columns:
        match = _PREFIX.match(name)
        split, quantity = (canonical_split(match[1]), match[2]) if match else ("train", name)
        finite = np.isfinite(values)
        if finite.any():
            found[quantity][split] = (x[finite], values[finite])
    return {
        quantity: curves
        for quantity, curves in found.items()
        if any(np.ptp(np.asarray(y)) > 0 for _, y in curves.values())
    }


def learning_pictures(history: Mapping[str, np.ndarray]) -> tuple[Picture, ...]:
    """A picture a quantity, the splits as its curves."""
    axis = next(iter(history), "")
    return tuple(
        Picture(
            to_png(
                loss_curves(curves, xlabel=axis, ylabel=_words(quantity), width=NARROW), dpi=_DPI
            ),
            f"{_words(quantity)[:1].upper()}{_words(quantity)[1:]} on {' and '.join(curves)}.",
            width=round(96 * NARROW),
            half=True,
        )
        for quantity, curves in curves_by_quantity(history).items()
    )


def _words(name: str) -> str:
    return re.sub(r"[_/]+", " ", name).strip().replace("roc auc", "ROC AUC").replace("rmse", "RMSE")
