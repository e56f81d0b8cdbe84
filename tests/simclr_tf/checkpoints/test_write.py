"""What is written is read back by others: by TensorFlow's own restore, by key, by the bit."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.checkpoints.load import load_encoder, load_model, open_checkpoint
from simclr_tf.checkpoints.write import Format, format_of, write_model
from simclr_tf.models import SimCLREncoder, SimCLRModel, canonical_variables
from simclr_tf.models.variable_names import normalization_variables, supervised_head_variables
from tests import golden
from tests.simclr_tf.checkpoints.common import Recorded, path_of
from tests.simclr_tf.golden_models import fill_model

SK = "tf2_tiny_r18_w8_sk_img64_finetune_momentum"
OUTPUTS: dict[Format, str] = {"keras": "m.keras", "saved_model": "s", "tf1": "one", "tf2": "two"}


@pytest.fixture(scope="module")
def model() -> SimCLRModel:
    model = load_model(path_of(f"{SK}/tf2_checkpoint"))
    model.encoder.preprocessing = {**model.encoder.preprocessing, "class_names": list("abcdefg")}
    return model


@pytest.mark.parametrize("layout", OUTPUTS)
def test_what_is_written_comes_back_bit_by_bit(
    layout: Format, model: SimCLRModel, tmp_path: Path
) -> None:
    output = tmp_path / OUTPUTS[layout]
    write_model(model, output, layout, part="model", step=3)
    again = load_model(output)
    for name, variable in canonical_variables(model).items():
        np.testing.assert_array_equal(canonical_variables(again)[name], variable, err_msg=name)
    assert again.encoder.preprocessing == model.encoder.preprocessing
    expected = Recorded(SK).outputs["logits_sup"]
    logits = again(tf.constant(Recorded(SK).images))["logits_sup"]
    np.testing.assert_allclose(logits, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_the_encoder_alone_and_keras_weights(model: SimCLRModel, tmp_path: Path) -> None:
    write_model(model, tmp_path / "e.keras", "keras")
    encoder = keras.models.load_model(tmp_path / "e.keras")
    assert isinstance(encoder, SimCLREncoder)
    write_model(model, tmp_path / "e.weights.h5", "h5")
    other = SimCLREncoder(**open_checkpoint(str(tmp_path / "e.keras")).network.encoder_arguments())
    other.build()
    other.load_weights(tmp_path / "e.weights.h5")
    for a, b, c in zip(encoder.variables, other.variables, model.encoder.variables, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, c)
    assert load_encoder(tmp_path / "e.keras").preprocessing["class_names"] == list("abcdefg")


def test_a_tf1_checkpoint_has_the_names_and_shapes_of_the_released_ones(tmp_path: Path) -> None:
    model = SimCLRModel(SimCLREncoder(18, cifar_stem=True), 10)
    model.build()
    fill_model(model)
    write_model(model, tmp_path / "one", "tf1", step=7)
    rows = golden.load_json("variables/r18_1x_sk0_cifar")["rows"]
    expected = {row[0]: tuple(row[1]) for row in rows} | {"global_step": ()}
    found = {n: tuple(s) for n, s in tf.train.list_variables(str(tmp_path / "one"))}
    assert found == expected
    reader = tf.train.load_checkpoint(str(tmp_path / "one" / "model.ckpt-7"))
    assert reader.get_tensor("global_step") == 7
    for name in expected.keys() - {"global_step"}:
        np.testing.assert_array_equal(reader.get_tensor(name), golden.fill(name, expected[name]))


@pytest.mark.slow
def test_a_tf1_saver_restores_it(tmp_path: Path) -> None:
    """In a graph of TF1, as the reference's `run.py` does."""
    source = load_model(path_of("tf1_tiny_r18_w8_img64_finetune"))
    write_model(source, tmp_path / "one", "tf1", step=7)
    values = {name: v.numpy() for name, v in canonical_variables(source).items()}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        variables = {
            name: tf.compat.v1.get_variable(name, value.shape) for name, value in values.items()
        }
        saver = tf.compat.v1.train.Saver(list(variables.values()))
        saver.restore(session, tf.train.latest_checkpoint(str(tmp_path / "one")))
        for name, variable in variables.items():
            np.testing.assert_array_equal(session.run(variable), values[name])


def test_a_tf2_checkpoint_has_the_keys_of_the_reference(tmp_path: Path) -> None:
    name = "tf2_tiny_r18_w8_cifar_pretrain"
    write_model(load_model(path_of(f"{name}/tf2_checkpoint")), tmp_path / "two", "tf2", step=7)
    expected = {
        key: tuple(shape)
        for key, shape in Recorded(name).meta["tf2_checkpoint"]
        if "optimizer" not in key.lower()
    }
    found = {n: tuple(s) for n, s in tf.train.list_variables(str(tmp_path / "two" / "ckpt-7"))}
    assert found == expected


def object_of(key: str, variable: tf.Variable, root: tf.Module) -> None:
    """Hangs a variable into a tree of modules and lists, as attributes of the reference's model."""
    *path, last = key.split("/")
    node = root
    for name in path:
        if not hasattr(node, name):
            setattr(node, name, tf.Module())
        node = getattr(node, name)
    setattr(node, last, variable)


def test_tensorflows_own_restore_takes_a_tf2_checkpoint(model: SimCLRModel, tmp_path: Path) -> None:
    """`tf.train.Checkpoint(model=...).restore`, by attribute names, as the reference does."""
    write_model(model, tmp_path / "two", "tf2", step=7)
    meta = Recorded(SK).meta
    recorded = {key for key, _ in meta["tf2_checkpoint"] if key.startswith("model/")}
    root = tf.Module()
    blank = {}
    reader = tf.train.load_checkpoint(str(path_of(f"{SK}/tf2_checkpoint/ckpt-2")))
    for key in sorted(recorded):
        value = reader.get_tensor(key)
        blank[key] = tf.Variable(np.zeros_like(value))
        object_of(key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"), blank[key], root)
    status = tf.train.Checkpoint(model=root.model).restore(str(tmp_path / "two" / "ckpt-7"))
    status.assert_existing_objects_matched().expect_partial()
    for key, variable in blank.items():
        np.testing.assert_array_equal(variable, reader.get_tensor(key), err_msg=key)


def excluded(names: list[str]) -> list[bool]:
    """The variables that the reference's LARS neither decays nor adapts, by parts of names."""
    return [
        any(part in name for part in ("batch_normalization", "bias", "head_supervised"))
        for name in names
    ]


def test_variables_of_a_saved_model_have_names_and_order_of_the_reference(tmp_path: Path) -> None:
    model = SimCLRModel(SimCLREncoder(18, width_multiplier=0.125, cifar_stem=True), 10)
    model.build()
    fill_model(model)
    write_model(model, tmp_path / "s", "saved_model")
    loaded = tf.saved_model.load(str(tmp_path / "s"))
    rows = golden.load_json("variables/r18_1x_sk0_cifar")["rows"]
    trained = sorted((row for row in rows if row[5] >= 0), key=lambda row: row[5])
    names = [v.name for v in loaded.trainable_variables_list]
    assert names == [row[3] for row in trained]
    assert [v.name for v in loaded.variables] == [
        row[3] for row in sorted(rows, key=lambda row: row[4])
    ]
    assert sum(excluded(names)) == 49
    values = canonical_variables(model)
    for row, variable in zip(trained, loaded.trainable_variables_list, strict=True):
        np.testing.assert_array_equal(variable, values[row[0]], err_msg=row[0])
    images = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    before = [v.numpy() for v in loaded.variables]
    own = model(images, training=True)["logits_sup"]
    np.testing.assert_allclose(loaded(images, trainable=True)["logits_sup"], own, atol=1e-5)
    for name, old, variable in zip(names_of(rows), before, loaded.variables, strict=True):
        moved = not np.array_equal(old, variable)
        assert moved == ("moving_" in name), name
        np.testing.assert_allclose(variable, values[name], atol=1e-6, err_msg=name)


def names_of(rows: list[list]) -> list[str]:
    """TF1 names in the order of the TF2 network's `variables`."""
    return [row[0] for row in sorted(rows, key=lambda row: row[4])]


def test_a_saved_model_of_a_transformer_names_what_is_neither_decayed_nor_adapted(
    tmp_path: Path,
) -> None:
    backbone = {
        "backbone": "vit_tiny", "width_multiplier": 0.25, "transformer_depth": 4, "patch_size": 8,
        "fixed_patches": False,
    }  # fmt: skip
    model = SimCLRModel(SimCLREncoder(backbone=backbone), 3)
    model.build()
    write_model(model, tmp_path / "s", "saved_model")
    loaded = tf.saved_model.load(str(tmp_path / "s"))
    names = [v.name for v in loaded.trainable_variables_list]
    own = {id(v) for v in normalization_variables(model)}
    own |= {id(v) for v in supervised_head_variables(model)}
    assert sum(excluded(names)) == sum(id(v) in own for v in model.trainable_variables)


def test_endings_say_what_to_write() -> None:
    assert format_of("a/encoder.keras") == "keras"
    assert format_of("encoder.weights.h5") == "h5"
    with pytest.raises(UserError, match="give --format, one of keras, saved_model, tf1, tf2, h5"):
        format_of("folder")
