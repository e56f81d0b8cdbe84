"""What TensorFlow says to its developers does not reach those who run a command."""

import pytest

from data_prep.cli.quiet import import_tensorflow


def test_advice_on_retracing_is_left_out_and_other_warnings_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import tensorflow as tf

    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    before = list(tf.get_logger().filters)
    import_tensorflow()
    import_tensorflow()
    try:
        assert len(tf.get_logger().filters) == len(before) + 1
        shown = [
            tf.get_logger().filter(tf.get_logger().makeRecord("t", 30, "f", 1, text, (), None))
            for text in ("5 out of the last 9 calls triggered tf.function retracing.", "damaged")
        ]
        assert [bool(kept) for kept in shown] == [False, True]
    finally:
        for added in set(tf.get_logger().filters) - set(before):
            tf.get_logger().removeFilter(added)
