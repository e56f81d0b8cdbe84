import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.losses.distillation import distillation_loss
from simclr_tf.methods.supervised import Distillation
from simclr_tf.models import SimCLREncoder, SimCLRModel
from tests.simclr_tf.golden_models import fill_model


def network(width: float) -> SimCLRModel:
    model = SimCLRModel(SimCLREncoder(18, width_multiplier=width, cifar_stem=True), 4)
    model.build()
    fill_model(model)
    return model


IMAGES = np.random.default_rng(0).random((1, 6, 32, 32, 3), np.float32)
LABELS = np.array([0, 1, -1, 3, -1, 2])


def test_the_teacher_is_asked_in_inference_mode_and_never_changes() -> None:
    student, teacher = network(0.0625), network(0.125)
    before = [v.numpy() for v in teacher.variables]
    with tf.GradientTape() as tape:
        outputs = Distillation(student, teacher, temperature=2.0)(
            tf.constant(IMAGES), tf.constant(LABELS)
        )
    teachers = [v.value for v in teacher.trainable_variables]
    students = [v.value for v in student.trainable_variables if "projection" not in v.path]
    gradients = tape.gradient(outputs.loss, [*teachers, *students])
    assert all(gradient is None for gradient in gradients[: len(teachers)])
    assert all(gradient is not None for gradient in gradients[len(teachers) :])
    assert all(np.array_equal(a, v) for a, v in zip(before, teacher.variables, strict=True))
    said = teacher(IMAGES[0], training=False)["logits_sup"]
    again = network(0.0625).forward(IMAGES[0], training=True, projection_layers="used").logits
    assert float(outputs.loss) == pytest.approx(float(distillation_loss(again, said, 2.0)), 1e-5)


def test_labels_get_their_weight_where_there_are_any() -> None:
    def loss(weight: float) -> dict[str, float]:
        method = Distillation(network(0.0625), network(0.125), 1.0, labelled_weight=weight)
        outputs = method(tf.constant(IMAGES), tf.constant(LABELS))
        return {"loss": float(outputs.loss)} | {k: float(v) for k, v in outputs.metrics.items()}

    mixed = loss(0.25)
    expected = 0.75 * mixed["distillation_loss"] + 0.25 * mixed["supervised_loss"]
    assert mixed["loss"] == pytest.approx(expected, rel=1e-6)
    alone = loss(0.0)
    assert alone["loss"] == pytest.approx(mixed["distillation_loss"], rel=1e-5)
    assert "supervised_loss" not in alone
