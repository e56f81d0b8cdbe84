"""Files of every format with the pixels they hold, read in all the ways there are.

`decode/cases*.json` list the files: `name`, `file`, `channels` wanted (null: its own), `reading`,
`mend` if the file is refused with this reading (what the refusal must name, a regular expression),
and `tolerance` if it is not that of its ending. `NAME.expect.npz` holds the pixels, float32
[H, W, C] in [0, 1].
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data_prep.check.files import examine
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.reading.headers import parse_header, read_header
from data_prep.reading.images import read_image
from data_prep.reading.spec import parse_reading
from data_prep.reading.thumbnails import thumbnail
from data_prep.sources.decoding import decode_file

FOLDER = Path(__file__).parent / "decode"
CASES = [
    case
    for listed in sorted(FOLDER.glob("cases*.json"))
    for case in json.loads(listed.read_text(encoding="utf-8"))
]
LOSSY = {".jpg": 0.03, ".webp": 0.03}


@pytest.fixture(params=CASES, ids=lambda case: f"{case['name']} {case['reading']}".strip())
def case(request: pytest.FixtureRequest) -> Any:
    return request.param


def expected(case: dict[str, Any]) -> np.ndarray:
    with np.load(FOLDER / f"{case['name']}.expect.npz") as stored:
        image: np.ndarray = stored["image"]
    return image


def in_unit(pixels: np.ndarray) -> np.ndarray:
    return pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels


def test_header_reader_graph_and_check_give_the_pixels_of_the_file(case: dict[str, Any]) -> None:
    file, reading = str(FOLDER / case["file"]), case["reading"]
    if case.get("mend"):
        for read in (read_header, count_channels, decoded, checked):
            with pytest.raises(UserError, match=case["mend"]) as caught:
                read(file, reading)
            assert "\n" not in str(caught.value)
        return
    wanted = expected(case)
    header = read_header(file, reading)
    own = read_image(file, None, reading)
    assert (header.height, header.width, header.channels) == own.shape
    assert (header.bits == 8) == (own.dtype == np.uint8)
    tolerance = case.get("tolerance", LOSSY.get(Path(file).suffix, 0.002))
    channels = case["channels"] or header.channels
    read = read_image(file, channels, reading)
    np.testing.assert_allclose(in_unit(read), wanted, rtol=0, atol=tolerance)
    graph = decoded(file, reading, channels)
    assert graph.dtype == own.dtype
    np.testing.assert_allclose(in_unit(graph), wanted, rtol=0, atol=tolerance)
    facts = checked(file, reading)
    assert (facts.height, facts.width) == own.shape[:2]
    assert (facts.channels, facts.bits) == (header.channels, header.bits)
    assert thumbnail(file, reading=reading)


def count_channels(file: str, reading: str) -> int:
    return read_image(file, None, reading).shape[-1]


def decoded(file: str, reading: str, channels: int | None = None) -> np.ndarray:
    """The image as the training graph decodes it."""
    header = read_header(file, reading)
    dtype = tf.uint8 if header.bits == 8 else tf.float32
    kind = int(header.decoder)
    wanted = channels or header.channels
    image = decode_file(tf.constant(file), kind, [kind], wanted, dtype, reading)
    pixels: np.ndarray = image.numpy()
    return pixels


def checked(file: str, reading: str) -> Any:
    """What simclr-check says of the file."""
    path = Path(file)
    (facts,) = examine(Manifest((Record(path.name, reading=reading),), str(path.parent))).facts
    if facts.problem:
        raise UserError(facts.problem)
    return facts


def test_an_uploaded_file_is_read_like_one_on_disk(case: dict[str, Any]) -> None:
    if case.get("mend"):
        return
    content = (FOLDER / case["file"]).read_bytes()
    reading, channels = case["reading"], case["channels"]
    from_disk = read_image(FOLDER / case["file"], channels, reading)
    np.testing.assert_array_equal(read_image(content, channels, reading), from_disk)
    declared = parse_reading(reading)
    assert parse_header(io.BytesIO(content), declared).bits == (
        read_header(str(FOLDER / case["file"]), reading).bits
    )
