import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.models.blocks import Convolution


@pytest.mark.parametrize("channels", [4, 8])
@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("batch", [1, 3, 4])
def test_a_strided_pointwise_convolution_takes_every_second_pixel(
    batch: int, side: int, channels: int
) -> None:
    """Values and gradients, for odd batches too, on which TensorFlow's own kernel overruns."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, side, side, channels)).astype(np.float32)
    layer = Convolution(6, 1, 2)
    layer.build(x.shape)
    kernel = layer.kernel.numpy()[0, 0]
    with tf.GradientTape() as tape:
        outputs = layer(tf.constant(x))
        loss = tf.reduce_sum(outputs**2)
    gradient = tape.gradient(loss, layer.kernel.value).numpy()[0, 0]
    taken = x[:, ::2, ::2]
    np.testing.assert_allclose(outputs, taken @ kernel, rtol=1e-4, atol=1e-5)
    expected = 2 * np.einsum("bhwc,bhwf->cf", taken, taken @ kernel)
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)
