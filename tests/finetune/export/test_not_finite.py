"""The NaN rules in an exported graph, run by onnxruntime."""

import numpy as np
import pytest
import tensorflow as tf

from data_prep.reading.intensity import apply_intensity, fill_not_finite, parse_intensity
from finetune.export import reading

onnxruntime = pytest.importorskip("onnxruntime")
tf2onnx = pytest.importorskip("tf2onnx")


@pytest.mark.parametrize("rule", ["zero", "min", "median"])
def test_values_that_are_not_finite_are_filled_as_the_reader_fills_them(rule: str) -> None:
    values = np.random.default_rng(0).normal(size=(9, 7, 1)).astype(np.float32)
    values[0, 0], values[3, 2], values[4, 4] = np.nan, np.inf, -np.inf
    stretch = parse_intensity("minmax")

    def graph(image: tf.Tensor) -> tf.Tensor:
        return reading._ruled(reading._filled(image, rule), stretch)

    spec = [tf.TensorSpec([None, None, 1], tf.float32, name="image")]
    made, _ = tf2onnx.convert.from_function(
        tf.function(graph, input_signature=spec), input_signature=spec, opset=17
    )
    session = onnxruntime.InferenceSession(made.SerializeToString())
    (got,) = session.run(None, {"image": values})
    wanted = apply_intensity(fill_not_finite(values, rule), stretch)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert np.isfinite(got).all()
