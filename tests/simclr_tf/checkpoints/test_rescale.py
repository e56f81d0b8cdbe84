import numpy as np
import pytest

from data_prep.errors import UserError
from simclr_tf.checkpoints.adapt import initial_norms, kernel_norms, rescale
from simclr_tf.checkpoints.load import load_model
from simclr_tf.models import SimCLREncoder, SimCLRModel, canonical_variables
from tests.simclr_tf.checkpoints.common import path_of

SK = str(path_of("tf1_tiny_r50_w16_sk_img64_finetune"))
IMAGES = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)


def test_larger_kernels_compute_the_same() -> None:
    model = load_model(SK)
    before, norms = model(IMAGES), kernel_norms(model)
    rescale(model, 8.0)
    for name, norm in kernel_norms(model).items():
        assert norm == pytest.approx(8 * norms[name], rel=1e-5)
    after = model(IMAGES)
    for name in ("final_avg_pool", "proj_head_output", "logits_sup"):
        scale = np.abs(before[name]).max()
        # BatchNorm's epsilon of 1e-5 weighs less than before, so nothing is quite equal.
        np.testing.assert_allclose(after[name], before[name], atol=2e-2 * scale)


def test_kernels_that_no_batchnorm_follows_stay() -> None:
    """The gates of selective kernels, gates of SE and the supervised head have none."""
    model = load_model(SK)
    before = {name: v.numpy() for name, v in canonical_variables(model).items()}
    factors = rescale(model, 2.0)
    kernels = {n for n in before if n.endswith("kernel")}
    # One gate of every bottleneck block of a ResNet-50, and the supervised head.
    assert len(kernels - set(factors)) == 16 + 1
    after = canonical_variables(model)
    for name in kernels:
        np.testing.assert_array_equal(after[name], before[name] * (2 if name in factors else 1))


@pytest.mark.slow
def test_norms_of_a_fresh_network_and_of_another_checkpoint() -> None:
    model = load_model(SK)
    rescale(model, initial_norms(model))
    fresh = SimCLRModel(SimCLREncoder(50, width_multiplier=1.0))
    fresh.build()
    wanted, drawn = initial_norms(fresh), kernel_norms(fresh)
    for name, norm in wanted.items():
        assert drawn[name] == pytest.approx(norm, rel=0.05), name
    assert kernel_norms(model) == pytest.approx(initial_norms(model), rel=1e-5)


def test_a_factor_must_be_positive() -> None:
    with pytest.raises(UserError, match="must be positive"):
        rescale(load_model(SK), 0.0)
