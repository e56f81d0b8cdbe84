"""What TensorFlow says to its developers does not reach those who run a command."""

import pytest

from data_prep.cli.runtime import _is_for_users, import_tensorflow


def test_advice_on_retracing_is_left_out_and_other_warnings_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import tensorflow as tf

    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    tf.get_logger().removeFilter(_is_for_users)  # of an earlier test
    before = list(tf.get_logger().filters)
    import_tensorflow()
    import_tensorflow()
    try:
        assert len(tf.get_logger().filters) == len(before) + 1
        shown = [
            tf.get_logger().filter(tf.get_logger().makeRecord("t", 30, "f", 1, text, (), None))
            for text in ("5 out of the last 9 calls triggered tf.function retracing.", "damaged",
                         "Using CollectiveAllReduceStrategy eagerly has significant overhead")
        ]  # fmt: skip
        assert [bool(kept) for kept in shown] == [False, True, False]
    finally:
        for added in set(tf.get_logger().filters) - set(before):
            tf.get_logger().removeFilter(added)


@pytest.mark.parametrize(("level", "quiet"), [("0", False), ("1", False), ("2", True)])
def test_who_asks_for_fewer_words_gets_no_more_than_others(
    monkeypatch: pytest.MonkeyPatch, level: str, quiet: bool
) -> None:
    """A notebook that sets 2 used to see every error about a missing graphics card."""
    import tensorflow as tf

    tf.get_logger().removeFilter(_is_for_users)
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    import_tensorflow()
    assert (_is_for_users in tf.get_logger().filters) is quiet
    tf.get_logger().removeFilter(_is_for_users)
