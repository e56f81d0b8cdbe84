import numpy as np

from simclr_tf.models import SimCLREncoder, SimCLRModel, freeze
from simclr_tf.models.weights import float32_copy


def test_the_copy_holds_the_same_weights_and_trains_as_a_whole() -> None:
    encoder = SimCLREncoder(18, width_multiplier=0.0625, cifar_stem=True, dtype="mixed_bfloat16")
    model = SimCLRModel(encoder, 3)
    model.build((None, None, None, 3))
    everything = len(model.trainable_variables)
    freeze(model, 3, unused_projection_head=False)
    assert len(model.trainable_variables) < everything
    copy = float32_copy(model)
    assert len(copy.trainable_variables) == everything
    assert copy.compute_dtype == "float32"
    for a, b in zip(copy.variables, model.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
