from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.checkpoints.find import locate
from simclr_tf.checkpoints.load import load_weights
from simclr_tf.checkpoints.store import CheckpointStore
from simclr_tf.models.simclr import SimCLREncoder, SimCLRModel
from tests import golden


def network(classes: int = 10, width: float = 0.0625, seed: int = 0) -> SimCLRModel:
    keras.utils.set_random_seed(seed)
    model = SimCLRModel(SimCLREncoder(18, width_multiplier=width, cifar_stem=True), classes)
    model.build((None, None, None, 3))
    return model


def store(directory: Path, model: SimCLRModel, keep: int = 5) -> CheckpointStore:
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
    optimizer.build(model.trainable_variables)
    return CheckpointStore(directory, model, optimizer, keep)


def test_the_network_is_stored_under_the_keys_of_the_reference(tmp_path: Path) -> None:
    model = network(width=1.0)
    store(tmp_path, model).save(3)
    record = golden.load_json("variables/r18_1x_sk0_cifar")
    column = record["columns"].index("tf2_checkpoint_key")
    wanted = {row[column]: tuple(row[1]) for row in record["rows"]}
    stored = {key: tuple(shape) for key, shape in tf.train.list_variables(str(tmp_path / "ckpt-3"))}
    assert {key: stored.get(key) for key in wanted} == wanted
    assert "global_step/.ATTRIBUTES/VARIABLE_VALUE" in stored


def test_weights_optimizer_and_step_come_back(tmp_path: Path) -> None:
    model = network()
    first = store(tmp_path, model)
    for variable in model.variables:
        variable.assign(np.full(variable.shape, 0.25))
    first.save(7)
    second = store(tmp_path, network(seed=1))
    assert second.restore_latest() == 7
    values = [v.numpy() for v in second._variables.values()]
    assert all(
        np.array_equal(a, b.numpy()) for a, b in zip(values, first._variables.values(), strict=True)
    )


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    checkpoints = store(tmp_path, network(), keep=2)
    for step in (1, 2, 10):
        checkpoints.save(step)
    assert checkpoints.steps() == [2, 10]


def test_when_all_are_damaged_nothing_is_set(tmp_path: Path) -> None:
    model = network()
    checkpoints = store(tmp_path, model)
    checkpoints.save(1)
    (tmp_path / "ckpt-1.data-00000-of-00001").write_bytes(b"")
    before = [v.numpy() for v in model.variables]
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        checkpoints.restore_latest()
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))


def test_an_empty_folder_restores_nothing(tmp_path: Path) -> None:
    assert store(tmp_path, network()).restore_latest() is None


def test_a_head_for_other_classes_starts_fresh_and_the_rest_is_loaded(tmp_path: Path) -> None:
    trained = network(classes=10)
    store(tmp_path, trained).save(5)
    model = network(classes=3, seed=1)
    head = [v.numpy() for v in model.supervised_head.variables]  # type: ignore[union-attr]
    coverage = load_weights(model, str(tmp_path))
    assert [row.tensor for row in coverage.with_status("missing")] == [
        "head_supervised/linear_layer/dense/kernel",
        "head_supervised/linear_layer/dense/bias",
    ]
    assert len(coverage.with_status("used")) == len(model.variables) - 2
    for a, b in zip(model.encoder.variables, trained.encoder.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    for a, b in zip(head, model.supervised_head.variables, strict=True):  # type: ignore[union-attr]
        np.testing.assert_array_equal(a, b.numpy())


def test_another_width_is_refused_with_both_shapes(tmp_path: Path) -> None:
    store(tmp_path, network(width=0.125)).save(5)
    model = network()
    before = [v.numpy() for v in model.variables]
    names = r"is r18_0.125x_sk0_cifar, the network is r18_0.0625x_sk0_cifar"
    with pytest.raises(UserError, match=rf"{names}: .* is \(8,\) there and \(4,\) here"):
        load_weights(model, str(tmp_path / "ckpt-5"))
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))


def test_what_a_path_may_mean(tmp_path: Path) -> None:
    store(tmp_path, network()).save(5)
    prefix = str(tmp_path / "ckpt-5")
    for given in (prefix, f"{prefix}.index", f"{prefix}.data-00000-of-00001", str(tmp_path)):
        assert locate(given).path == prefix
    with pytest.raises(UserError, match=r"no such checkpoint; there are ckpt-5"):
        locate(str(tmp_path / "ckpt-6"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="the folder holds no checkpoint"):
        locate(str(tmp_path / "empty"))
