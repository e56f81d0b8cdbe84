import pytest

from data_prep.phrases import format_seconds, sentence


@pytest.mark.parametrize(
    ("seconds", "text"), [(45.2, "45 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations_are_written_for_people(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_as_a_sentence() -> None:
    assert sentence("only 3 updates") == "Only 3 updates."
    assert sentence("Stop!") == "Stop!"
