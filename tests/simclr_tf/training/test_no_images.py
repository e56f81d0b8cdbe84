"""A run without images says so, and does not speak of a set that nobody has asked for."""

from pathlib import Path

import pytest

from data_prep.errors import UserError
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.data import open_data


def test_without_images_the_flags_that_name_them_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorflow_datasets")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError) as error:
        open_data(RunConfig.from_values({"model_dir": "m"}))
    text = str(error.value)
    assert text.startswith("no images were given: name them with --image_dir=FOLDER")
    assert "--download" in text


def test_a_named_set_that_is_not_there_is_what_is_said(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(UserError, match=r"^--dataset=cifar10: is not prepared in .*--download"):
        open_data(RunConfig.from_values({"dataset": "cifar10", "data_dir": str(tmp_path)}))
