import math

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.losses.distillation import distillation_loss


def plain_loop(student: np.ndarray, teacher: np.ndarray, temperature: float) -> float:
    """SimCLRv2, equation 2: -sum over images and classes of P_teacher log P_student."""
    total = 0.0
    for s, t in zip(student, teacher, strict=True):
        norm_s = sum(math.exp(x / temperature) for x in s)
        norm_t = sum(math.exp(x / temperature) for x in t)
        for a, b in zip(s, t, strict=True):
            total -= (
                math.exp(b / temperature) / norm_t * math.log(math.exp(a / temperature) / norm_s)
            )
    return total / len(student)


@pytest.mark.parametrize("temperature", [0.1, 1.0, 4.0])
def test_equals_a_plain_loop(temperature: float) -> None:
    rng = np.random.default_rng(0)
    student, teacher = rng.normal(size=(2, 6, 5))
    ours = distillation_loss(tf.constant(student), tf.constant(teacher), temperature)
    assert float(ours) == pytest.approx(plain_loop(student, teacher, temperature), rel=1e-9)


def test_only_the_student_learns_and_the_teacher_is_its_optimum() -> None:
    teacher = tf.Variable([[2.0, 0.5, -1.0]])
    student = tf.Variable([[2.0, 0.5, -1.0]])
    with tf.GradientTape() as tape:
        loss = distillation_loss(student, teacher, 2.0)
    to_student, to_teacher = tape.gradient(loss, [student, teacher])
    np.testing.assert_allclose(to_student, np.zeros((1, 3)), atol=1e-7)
    assert to_teacher is None


def test_half_precision_is_computed_in_float32() -> None:
    logits = tf.constant([[300.0, 0.0]], tf.bfloat16)
    assert distillation_loss(logits, logits).dtype == tf.float32
