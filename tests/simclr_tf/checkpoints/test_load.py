"""Every layout gives the numbers of the reference, and a wrong file is refused in words."""

import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.checkpoints.load import (
    convert,
    load_encoder,
    load_model,
    load_variables,
    load_weights,
    open_checkpoint,
)
from simclr_tf.models import SimCLREncoder, SimCLRModel, canonical_variables
from tests.simclr_tf.checkpoints.common import LAYOUTS, Recorded, path_of

TF1 = "tf1_tiny_r18_w8_cifar_pretrain"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_recorded_numbers(layout: str) -> None:
    recorded, kind = Recorded(LAYOUTS[layout][0]), LAYOUTS[layout][1]
    checkpoint = open_checkpoint(str(path_of(layout)))
    assert checkpoint.stored.layout == kind
    model, coverage = convert(checkpoint)
    endpoints, hiddens = model.encoder.hiddens(tf.constant(recorded.images))
    ours = {**endpoints, "proj_head_input": hiddens[0], "proj_head_output": hiddens[-1]}
    ours |= {f"proj_hidden_{i}": hidden for i, hidden in enumerate(hiddens)}
    if "logits_sup" in recorded.outputs:
        ours["logits_sup"] = model(recorded.images)["logits_sup"]
    assert set(recorded.outputs) <= set(ours)
    for name, expected in recorded.outputs.items():
        np.testing.assert_allclose(
            ours[name], expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=name
        )
    assert len(coverage.with_status("used")) == len(canonical_variables(model))
    assert not coverage.with_status("missing", "adapted")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_of_the_file_is_accounted_for_once(layout: str) -> None:
    checkpoint = open_checkpoint(str(path_of(layout)))
    _, coverage = convert(checkpoint)
    in_file = {
        key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE")
        for key, _ in tf.train.list_variables(checkpoint.stored.path)
    } - {"_CHECKPOINTABLE_OBJECT_GRAPH"}
    accounted = [row.tensor for row in coverage.rows]
    assert len(accounted) == len(in_file)
    if checkpoint.stored.layout in ("TF1 checkpoint", "TF2 object graph"):
        assert set(accounted) == in_file
    notes = {row.note for row in coverage.with_status("unused")}
    assert notes <= {"optimizer slot", "optimizer state", "step counter"}
    lines = coverage.csv().splitlines()
    assert len(lines) == len(accounted) + 1


def test_the_hub_module_gives_what_the_checkpoint_beside_it_gives() -> None:
    images = tf.constant(Recorded(TF1).images)
    a = load_encoder(str(path_of(TF1)))(images)
    b = load_encoder(str(path_of(f"{TF1}/hub")))(images)
    np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_loaded_encoder_trains_as_a_whole_and_knows_its_images() -> None:
    encoder = load_encoder(path_of("tf2_tiny_r18_w8_sk_img64_finetune_momentum/tf2_checkpoint"))
    assert isinstance(encoder, SimCLREncoder)
    facts = encoder.preprocessing
    assert (facts["image_size"], facts["channels"], facts["crop_proportion"]) == (224, 3, 0.875)
    encoder.projection_head.trainable = False
    model = keras.Sequential([encoder, keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [v.numpy() for v in encoder.resnet.trainable_variables]
    x = np.random.default_rng(0).random((6, 32, 32, 3), np.float32)
    model.fit(x, np.array([0, 1, 2, 0, 1, 2]), epochs=2, verbose=0)
    after = [v.numpy() for v in encoder.resnet.trainable_variables]
    assert all(np.any(a != b) for a, b in zip(before, after, strict=True))


def write_tf1(folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    folder.mkdir(exist_ok=True)
    tf.raw_ops.SaveV2(
        prefix=str(folder / "model.ckpt-1"),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    return folder


def tf1_tensors() -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(path_of(f"{TF1}/model.ckpt-3")))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def test_moving_averages_are_taken_when_asked_for(tmp_path: Path) -> None:
    tensors = tf1_tensors()
    kernel = "base_model/conv2d_1/kernel"
    twins = {f"ema_model/{n}": v * 2 for n, v in tensors.items()
             if n.endswith(("kernel", "gamma", "beta"))}  # fmt: skip
    path = str(write_tf1(tmp_path / "ema", {**tensors, **twins}))
    plain, coverage = convert(open_checkpoint(path))
    np.testing.assert_array_equal(canonical_variables(plain)[kernel], tensors[kernel])
    assert "moving average; --ema takes it" in {r.note for r in coverage.with_status("unused")}
    averaged, _ = convert(open_checkpoint(path, ema=True))
    np.testing.assert_array_equal(canonical_variables(averaged)[kernel], 2 * tensors[kernel])
    mean = "base_model/batch_normalization/moving_mean"  # has no twin
    np.testing.assert_array_equal(canonical_variables(averaged)[mean], tensors[mean])
    with pytest.raises(UserError, match="holds no moving averages"):
        open_checkpoint(str(path_of(TF1)), ema=True)


def test_a_simclr_v1_checkpoint_has_no_projection_head(tmp_path: Path) -> None:
    tensors = {n: v for n, v in tf1_tensors().items() if not n.startswith("head_contrastive")}
    tensors["head_supervised/linear_layer/dense/kernel"] = np.ones((64, 5), np.float32)
    tensors["head_supervised/linear_layer/dense/bias"] = np.zeros(5, np.float32)
    path = str(write_tf1(tmp_path / "v1", tensors))
    model = load_model(path)
    assert model.num_classes == 5
    assert model.encoder.projection_head.architecture.depth == 0
    with_head = SimCLRModel(SimCLREncoder(18, width_multiplier=0.125, cifar_stem=True))
    with_head.build()
    coverage = load_weights(with_head, path)
    assert {row.note for row in coverage.with_status("missing")} == {
        "the projection head starts fresh"
    }


def test_the_first_layers_of_a_longer_projection_head_are_not_taken_for_a_head() -> None:
    """Their shapes fit a shorter head whose outputs are as many, but its last layer is another."""
    path = str(path_of(TF1))
    assert open_checkpoint(path).network.projection.num_layers == 3
    shorter = SimCLRModel(
        SimCLREncoder(
            18, width_multiplier=0.125, cifar_stem=True, num_proj_layers=2, proj_out_dim=64
        )
    )
    shorter.build()
    before = {n: v.numpy() for n, v in canonical_variables(shorter).items() if "contrastive" in n}
    coverage = load_weights(shorter, path)
    after = canonical_variables(shorter)
    assert all(np.array_equal(value, after[name]) for name, value in before.items())
    assert {row.tensor for row in coverage.with_status("missing")} == set(before)


def test_what_nothing_explains_is_refused(tmp_path: Path) -> None:
    tensors = {**tf1_tensors(), "decoder/dense/kernel": np.ones((2, 3), np.float32)}
    with pytest.raises(UserError, match=r"1 tensors belong to no SimCLR network.*decoder/dense"):
        load_encoder(str(write_tf1(tmp_path / "more", tensors)))


def test_a_missing_weight_is_named_with_the_nearest_network(tmp_path: Path) -> None:
    tensors = tf1_tensors()
    del tensors["base_model/conv2d_7/kernel"]
    expected = r"nearest: base_model/conv2d_7/kernel is missing where r18_0.125x_sk0_cifar"
    with pytest.raises(UserError, match=expected):
        load_encoder(str(write_tf1(tmp_path / "less", tensors)))


def test_another_network_than_the_model_is_refused_with_both_names_and_nothing_is_set() -> None:
    model = SimCLRModel(SimCLREncoder(50, width_multiplier=0.0625))
    model.build()
    before = [v.numpy() for v in model.variables]
    path = str(path_of("tf1_tiny_r50_w16_sk_img64_finetune"))
    with pytest.raises(UserError, match=r"is r50_0\.0625x_sk1, the network is r50_0.0625x_sk0"):
        load_weights(model, path)
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))


def test_files_of_other_programs_are_refused(tmp_path: Path) -> None:
    other = tf.train.Checkpoint(layer=tf.Variable([1.0])).save(str(tmp_path / "other"))
    with pytest.raises(UserError, match="is of no SimCLR network"):
        load_encoder(other)
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(tmp_path / "dense.keras")
    with pytest.raises(UserError, match="holds a Sequential, not an encoder"):
        load_encoder(tmp_path / "dense.keras")
    (tmp_path / "broken.keras").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is damaged: File is not a zip file"):
        load_encoder(tmp_path / "broken.keras")
    with pytest.raises(UserError, match="no such file"):
        load_encoder(tmp_path / "absent.keras")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(path_of("tf1_tiny_r18_w8_img64_finetune"), folder)
    data = folder / "model.ckpt-2.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:-200_000])
    with pytest.raises(UserError, match=re.escape("model.ckpt-2 is missing or damaged")):
        load_encoder(folder)


@pytest.mark.parametrize("channels", [1, 4])
def test_color_weights_serve_images_of_other_channels(channels: int) -> None:
    """An image whose channels are equal is seen as its grey version was by the colour network."""
    checkpoint = open_checkpoint(str(path_of(TF1)))
    color, _ = convert(checkpoint)
    other, coverage = convert(checkpoint, channels=channels, stem_adapt="sum")
    assert [row.tensor for row in coverage.with_status("adapted")] == ["base_model/conv2d/kernel"]
    assert other.encoder.preprocessing["channels"] == channels
    gray = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    expected = color.encoder(np.repeat(gray, 3, axis=-1))
    ours = other.encoder(np.repeat(gray, channels, axis=-1))
    np.testing.assert_allclose(ours, expected, atol=1e-5 * np.abs(expected).max())


def test_filling_under_replicas_sets_every_copy() -> None:
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    checkpoint = open_checkpoint(str(path_of(TF1)))
    with strategy.scope():
        model = SimCLRModel(SimCLREncoder(**checkpoint.network.encoder_arguments()))
        model.build()
        load_variables(model, checkpoint)
    images = tf.constant(Recorded(TF1).images)

    @tf.function
    def features() -> tf.Tensor:
        return strategy.run(lambda: model.encoder(images))

    for copy in strategy.experimental_local_results(features()):
        expected = Recorded(TF1).outputs["final_avg_pool"]
        np.testing.assert_allclose(copy, expected, atol=1e-5 * np.abs(expected).max())
