import io
from typing import BinaryIO

import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.reading.formats import jpeg
from data_prep.reading.headers import parse_header
from data_prep.reading.images import read_image
from data_prep.reading.limits import ReadLimits


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


def test_a_jpeg_without_its_end_is_not_decoded_before_its_size_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only decoding tells that such a file is cut off."""
    stream = io.BytesIO()
    Image.new("L", (300, 200)).save(stream, "JPEG")
    content = stream.getvalue()[:-2]
    decoded: list[int] = []
    whole = jpeg.check_whole

    def noted(stream: BinaryIO, size: int) -> None:
        decoded.append(size)
        whole(stream, size)

    monkeypatch.setattr(jpeg, "check_whole", noted)
    for limits in (ReadLimits(max_pixels=59_999), ReadLimits(max_bytes=59_999)):
        for read in (
            lambda limits=limits: parse_header(io.BytesIO(content), limits=limits),
            lambda limits=limits: read_image(content, limits=limits),
        ):
            with pytest.raises(UserError, match="more than the 59999"):
                read()
    assert decoded == []
    with pytest.raises(UserError, match="truncated"):
        parse_header(io.BytesIO(content), limits=ReadLimits(max_pixels=60_000))
    assert decoded == [len(content)]
