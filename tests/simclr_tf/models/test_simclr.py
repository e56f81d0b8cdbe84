"""Both models are ordinary Keras models: saved, loaded, fitted, exported, in every precision."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.losses.nt_xent import nt_xent
from simclr_tf.models import SimCLREncoder, SimCLRModel, canonical_variables, freeze
from tests import golden
from tests.replicas import mirrored
from tests.simclr_tf.golden_models import fill_model

# Keras hands its variables to NumPy 2 in a way that NumPy 2 deprecates.

TINY: dict[str, Any] = {"depth": 18, "width_multiplier": 0.0625, "cifar_stem": True}
ENDPOINTS = {
    "initial_conv",
    "initial_max_pool",
    *(f"block_group{i}" for i in range(1, 5)),
    "final_avg_pool",
    "proj_head_input",
    "proj_head_output",
    "proj_hidden",
    "logits_sup",
}


def images(batch: int = 4, size: int = 32, channels: int = 3) -> np.ndarray:
    x = golden.images(f"models/{batch}/{size}", batch, size, 3)
    return np.repeat(x, -(-channels // 3), axis=-1)[..., :channels]


def model(num_classes: int | None = 5, selector: int = 0, **options: Any) -> SimCLRModel:
    built = SimCLRModel(SimCLREncoder(**{**TINY, **options}), num_classes, selector)
    fill_model(built)
    return built


CONFIGS: list[dict[str, Any]] = [
    {},
    {"cifar_stem": False, "sk_ratio": 0.0625, "global_bn": False, "batch_norm_decay": 0.99},
    {"depth": 50, "cifar_stem": False, "sk_ratio": 0.0625, "se_ratio": 0.25, "sk_min_dim": 8},
    {"image_channels": 1, "proj_head_mode": "linear", "proj_out_dim": 6},
    {"image_channels": 5, "proj_head_mode": "none"},
    {"dtype": "mixed_bfloat16"},
    {"dtype": "float64"},
]


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_encoder_file_round_trip(config: dict[str, Any], tmp_path: Path) -> None:
    facts = {"image_size": 32, "mean": [0.1, 0.2]}
    encoder = SimCLREncoder(**{**TINY, **config, "preprocessing": facts})
    encoder.build((None, None, None, encoder.image_channels))
    x = images(channels=encoder.image_channels)
    path = tmp_path / "encoder.keras"
    encoder.save(path)
    loaded = keras.models.load_model(path)
    assert isinstance(loaded, SimCLREncoder)
    assert loaded.get_config() == encoder.get_config()
    assert loaded.preprocessing == facts
    y = encoder(x)
    assert y.shape == (4, encoder.feature_dim)
    assert y.dtype == ("float64" if config.get("dtype") == "float64" else "float32")
    np.testing.assert_array_equal(loaded(x), y)
    for name, value in encoder.endpoints(x).items():
        np.testing.assert_array_equal(loaded.endpoints(x)[name], value, err_msg=name)
    predicted = encoder.predict(x, verbose=0)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), predicted)
    # Some processors have kernels that a graph fuses, which rounds the last bits otherwise.
    np.testing.assert_allclose(predicted, y, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16", "float64"])
def test_model_file_round_trip(dtype: str, tmp_path: Path) -> None:
    whole = model(selector=1, dtype=dtype)
    whole.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_config() == whole.get_config()
    ends, again = whole(images()), loaded(images())
    assert set(ends) == ENDPOINTS
    for name in ends:
        np.testing.assert_array_equal(again[name], ends[name], err_msg=name)


def test_another_precision_can_be_had_from_the_config() -> None:
    whole = model(dtype="mixed_bfloat16")
    copy = SimCLRModel.from_config({**whole.get_config(), "dtype": "float64"})
    copy.build()
    assert {v.dtype for v in copy.variables} == {"float64"}
    for a, b in zip(copy.variables, whole.variables, strict=True):
        a.assign(b.numpy())
    exact = copy(images())
    assert exact["block_group4"].dtype == tf.float64
    for name in ("final_avg_pool", "proj_head_output", "logits_sup"):
        half = whole(images())[name]
        assert half.dtype == tf.float32
        largest = np.abs(exact[name]).max()
        np.testing.assert_allclose(half, exact[name], rtol=0, atol=0.03 * largest, err_msg=name)


def test_keras_default_precision_is_followed() -> None:
    keras.config.set_dtype_policy("float64")
    try:
        assert model()(images())["logits_sup"].dtype == tf.float64
    finally:
        keras.config.set_dtype_policy("float32")


def test_half_precision_step_follows_the_float32_step() -> None:
    x = np.concatenate([images(16), images(16)[:, ::-1]])
    losses: list[float] = []
    gradients: list[list[np.ndarray]] = []
    for dtype in ("float32", "mixed_bfloat16"):
        whole = model(dtype=dtype)
        kernels = [v.value for v in canonical_variables(whole).values() if v.ndim == 4]
        with tf.GradientTape() as tape:
            outputs = whole.forward(x, training=True)
            assert outputs.endpoints["block_group1"].dtype == whole.compute_dtype
            assert outputs.projection.dtype == outputs.logits.dtype == tf.float32
            loss = nt_xent(outputs.projection, 0.5).loss
        grads = tape.gradient(loss, kernels)
        assert all(g.dtype == tf.float32 for g in grads)
        losses.append(float(loss))
        gradients.append([g.numpy().ravel() for g in grads])
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    # A float32 step from weights rounded to bfloat16 deviates as much, mean cosine 0.93.
    cosines = [
        a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(*gradients, strict=True)
    ]
    assert np.mean(cosines) > 0.85


@pytest.mark.parametrize("size", [16, 33, 40])
def test_any_image_size_after_building(size: int) -> None:
    whole = model(cifar_stem=False)
    grid = -(-size // 4)
    ends = whole(images(2, size))
    for i in range(1, 5):
        assert ends[f"block_group{i}"].shape[1:3] == (grid, grid)
        grid = -(-grid // 2)
    assert ends["final_avg_pool"].shape == (2, 32)


@pytest.mark.parametrize(
    ("mode", "widths"),
    [("none", [32]), ("linear", [32, 6]), ("nonlinear", [32, 32, 32, 6])],
)
def test_projection_heads(mode: str, widths: list[int]) -> None:
    whole = model(proj_head_mode=mode, proj_out_dim=6)
    outputs = whole.forward(images(), training=True)
    assert [h.shape[-1] for h in outputs.hiddens] == widths
    assert outputs.projection is outputs.hiddens[-1]
    np.testing.assert_array_equal(outputs.hiddens[0], outputs.endpoints["final_avg_pool"])
    for hidden in outputs.hiddens[1:-1]:
        assert np.min(hidden) == 0.0
    if mode != "none":
        assert np.min(outputs.projection) < 0.0


def test_linear_head_is_a_dense_layer_and_a_normalization_without_offset() -> None:
    whole = model(proj_head_mode="linear", proj_out_dim=6)
    names = {n for n in canonical_variables(whole) if n.startswith("head_contrastive")}
    assert names == {
        "head_contrastive/l_0/dense/kernel",
        "head_contrastive/l_0/batch_normalization/gamma",
        "head_contrastive/l_0/batch_normalization/moving_mean",
        "head_contrastive/l_0/batch_normalization/moving_variance",
    }
    named = {
        n.rsplit("/", 1)[-1]: v.numpy() for n, v in canonical_variables(whole).items() if n in names
    }
    outputs = whole.forward(images())
    scale = named["gamma"] / np.sqrt(named["moving_variance"] + 1e-5)
    expected = (outputs.hiddens[0] @ named["kernel"] - named["moving_mean"]) * scale
    np.testing.assert_allclose(outputs.projection, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("selector", "layer"), [(0, 0), (1, 1), (2, 2), (3, 3), (-1, 3), (-4, 0)])
def test_supervised_head_sits_on_the_selected_layer(selector: int, layer: int) -> None:
    whole = model(selector=selector)
    outputs = whole.forward(images())
    named = canonical_variables(whole)
    kernel = named["head_supervised/linear_layer/dense/kernel"].numpy()
    bias = named["head_supervised/linear_layer/dense/bias"].numpy()
    expected = outputs.hiddens[layer] @ kernel + bias
    np.testing.assert_allclose(outputs.logits, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(whole(images())["proj_hidden"], outputs.hiddens[layer])

    used = whole.forward(images(), projection_layers="used")
    assert len(used.hiddens) == layer + 1
    assert (used.projection is None) == (layer < 3)
    np.testing.assert_allclose(used.logits, outputs.logits, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("stop", [True, False])
def test_supervised_head_teaches_the_encoder_only_if_asked(stop: bool) -> None:
    whole = model()
    with tf.GradientTape() as tape:
        outputs = whole.forward(images(), training=True, stop_head_gradient=stop)
        loss = tf.reduce_sum(tf.square(outputs.logits))
    named = canonical_variables(whole)
    trained = {n: v for n, v in named.items() if v.trainable}
    grads = tape.gradient(loss, [v.value for v in trained.values()])
    reached = {n for n, g in zip(trained, grads, strict=True) if g is not None}
    assert {n for n in reached if n.startswith("head_supervised")}
    assert bool({n for n in reached if n.startswith("base_model")}) != stop


def test_without_classes_there_are_no_logits() -> None:
    whole = model(num_classes=None)
    assert set(whole(images())) == ENDPOINTS - {"logits_sup"}
    assert whole.forward(images()).logits is None


@pytest.mark.slow
def test_users_can_compile_and_fit() -> None:
    whole = model(num_classes=2)
    freeze(whole, unused_projection_head=False)
    whole.compile(
        optimizer=keras.optimizers.SGD(0.05, momentum=0.9),
        loss={"logits_sup": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
    )
    x = images(16)
    y = (np.arange(16) % 2).astype("int64")
    x[y == 1] = 1 - x[y == 1]
    before = canonical_variables(whole)["base_model/batch_normalization/moving_mean"].numpy()
    history = whole.fit(x, {"logits_sup": y}, batch_size=8, epochs=8, verbose=0)
    assert history.history["loss"][-1] < 0.5 * history.history["loss"][0]
    after = canonical_variables(whole)["base_model/batch_normalization/moving_mean"].numpy()
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.slow
def test_the_encoder_is_a_layer_of_other_models(tmp_path: Path) -> None:
    encoder = model().encoder
    encoder.projection_head.trainable = False
    inputs = keras.Input((32, 32, 3))
    classifier = keras.Model(inputs, keras.layers.Dense(3)(encoder(inputs)))
    classifier.compile(
        optimizer="sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    classifier.fit(images(8), np.arange(8) % 3, epochs=1, verbose=0)
    classifier.save(tmp_path / "classifier.keras")
    loaded = keras.models.load_model(tmp_path / "classifier.keras")
    np.testing.assert_allclose(loaded(images()), classifier(images()), rtol=1e-6)


@pytest.mark.slow
def test_graph_with_unknown_sizes_can_be_exported(tmp_path: Path) -> None:
    whole = model(cifar_stem=False)

    class Exported(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.all_variables = [v.value for v in whole.variables]

        @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32)])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return whole(x, training=False)

    tf.saved_model.save(Exported(), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    for size in (32, 45):
        ends = loaded(images(2, size))
        for name, value in whole(images(2, size)).items():
            np.testing.assert_allclose(ends[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_initial_weights() -> None:
    keras.utils.set_random_seed(3)
    encoder = SimCLREncoder(50, width_multiplier=0.5)
    named = canonical_variables(SimCLRModel(encoder, 10))
    kernels = {n: v.numpy() for n, v in named.items() if n.endswith("kernel")}
    for name, kernel in kernels.items():
        fan_in = np.prod(kernel.shape[:-1])
        stddev = fan_in**-0.5 if kernel.ndim == 4 else 0.01
        assert kernel.std() == pytest.approx(stddev, rel=0.2 if kernel.size < 3000 else 0.1), name
    assert not np.allclose(
        kernels["base_model/conv2d_7/kernel"], kernels["base_model/conv2d_10/kernel"]
    )
    gammas = {n: v.numpy() for n, v in named.items() if n.endswith("gamma")}
    zero = {n for n, gamma in gammas.items() if np.all(gamma == 0)}
    one = {n for n, gamma in gammas.items() if np.all(gamma == 1)}
    assert zero | one == set(gammas)
    assert len(zero) == sum((3, 4, 6, 3))
    assert "base_model/batch_normalization_4/gamma" in zero


def test_replicas_start_alike() -> None:
    strategy = mirrored(2)
    with strategy.scope():
        whole = model()
        fresh = SimCLRModel(SimCLREncoder(**TINY), 5)
        fresh.build()
    for variable in [*fresh.variables, *whole.variables]:
        first, second = strategy.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first.numpy(), second.numpy())
