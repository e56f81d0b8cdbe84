"""The distillation loss of SimCLRv2 (Chen et al. 2020, section 2, equation 2)."""

import tensorflow as tf


def distillation_loss(
    student_logits: tf.Tensor, teacher_logits: tf.Tensor, temperature: float = 1.0
) -> tf.Tensor:
    """Cross-entropy of the student's probabilities to the teacher's, mean over the batch; scalar.

    As in the paper, it is not multiplied by the square of the temperature: raise the learning rate
    with a high temperature.

    Args:
        student_logits: [B, classes], floating point; half precision is computed in float32.
        teacher_logits: [B, classes]; passes no gradient.
        temperature: Both logits are divided by it; above 0.
    """
    student, teacher = (
        tf.cast(x, tf.float32) if x.dtype in (tf.float16, tf.bfloat16) else x
        for x in (student_logits, teacher_logits)
    )
    taught = tf.stop_gradient(tf.nn.softmax(tf.cast(teacher, student.dtype) / temperature))
    return tf.reduce_mean(
        tf.nn.softmax_cross_entropy_with_logits(labels=taught, logits=student / temperature)
    )
