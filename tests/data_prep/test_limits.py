import pytest

from data_prep.errors import UserError
from data_prep.limits import ReadLimits


def test_what_is_within_the_limits_passes() -> None:
    ReadLimits(max_pixels=12, max_bytes=72).check(3, 4, 3, 2)
    ReadLimits().check(20_000, 20_000, 3, 4)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ReadLimits(max_pixels=11), "4 x 3 pixels, more than the 11"),
        (ReadLimits(max_bytes=71), "takes 72 bytes in memory, more than the 71"),
    ],
)
def test_what_is_larger_is_refused_in_one_line(limits: ReadLimits, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        limits.check(3, 4, 3, 2)
    assert "\n" not in str(caught.value)
