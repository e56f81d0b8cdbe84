import numpy as np
import pytest

from simclr_tf.checkpoints.adapt import adapt_stem

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 3, 4)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 2, 7])
def test_each_way_equals_a_plain_loop(channels: int) -> None:
    for how in ("sum", "mean", "repeat"):
        ours = adapt_stem(KERNEL, channels, how)  # type: ignore[arg-type]
        assert ours.shape == (3, 3, channels, 4)
        assert ours.dtype == np.float32
        for c in range(channels):
            if how == "repeat":
                expected = KERNEL[:, :, c % 3] * 3 / channels
            else:
                rgb = KERNEL[:, :, 0] + KERNEL[:, :, 1] + KERNEL[:, :, 2]
                expected = rgb / (channels if how == "sum" else 3)
            np.testing.assert_allclose(ours[:, :, c], expected, rtol=1e-5, atol=1e-6)


def test_dealing_out_to_as_many_channels_changes_nothing() -> None:
    np.testing.assert_array_equal(adapt_stem(KERNEL, 3, "repeat"), KERNEL)
