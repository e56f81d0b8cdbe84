import math

import numpy as np
import pytest

from finetune.report.page import curves_by_quantity, learning_pictures

EPOCH = np.array([1.0, 2.0, 3.0])


@pytest.mark.parametrize(
    "name", ["val_loss", "validation_loss", "validation/loss", "valid_loss", "val/loss"]
)
def test_columns_of_validation_join_those_of_training(name: str) -> None:
    history = {"epoch": EPOCH, "loss": EPOCH, name: 2 * EPOCH}
    curves = curves_by_quantity(history)
    assert list(curves) == ["loss"]
    assert list(curves["loss"]) == ["train", "validation"]
    np.testing.assert_array_equal(curves["loss"]["validation"][1], 2 * EPOCH)


def test_gaps_are_left_out_of_a_curve() -> None:
    values = np.array([1.0, math.nan, 0.5])
    x, y = curves_by_quantity({"step": EPOCH, "val_f1": values})["f1"]["validation"]
    assert list(x) == [1, 3]
    assert list(y) == [1, 0.5]


def test_quantities_that_never_change_are_no_curve() -> None:
    history = {"epoch": EPOCH, "learning_rate": np.ones(3), "empty": np.full(3, math.nan)}
    assert curves_by_quantity(history) == {}
    assert curves_by_quantity({}) == {}


def test_every_quantity_has_a_picture_with_words() -> None:
    history = {"epoch": EPOCH, "train_macro_f1": EPOCH, "val_macro_f1": EPOCH, "loss": EPOCH}
    captions = [picture.caption for picture in learning_pictures(history)]
    assert captions == ["Macro f1 on train and validation.", "Loss on train."]
