import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.errors import UserError
from data_prep.reading.tiles import TileBox, check_inside, cut, parse_box

sides = st.integers(1, 60)


@given(height=sides, width=sides, size=st.integers(1, 25), overlap=st.integers(0, 24))
def test_dropped_rest_leaves_whole_tiles_at_equal_distances(
    height: int, width: int, size: int, overlap: int
) -> None:
    overlap = min(overlap, size - 1)
    boxes = cut(height, width, size, overlap)
    step = size - overlap
    across = max(0, (width - size) // step + 1) if width >= size else 0
    down = max(0, (height - size) // step + 1) if height >= size else 0
    assert len(boxes) == across * down
    for number, box in enumerate(boxes):
        assert box == (number % across * step, number // across * step, size, size)
        check_inside(box, height, width)


@given(height=sides, width=sides, size=st.integers(1, 25), overlap=st.integers(0, 24))
def test_kept_rest_covers_the_picture(height: int, width: int, size: int, overlap: int) -> None:
    overlap = min(overlap, size - 1)
    seen = np.zeros((height, width), int)
    boxes = cut(height, width, size, overlap, "keep")
    for box in boxes:
        check_inside(box, height, width)
        assert (box.width, box.height) == (min(size, width), min(size, height))
        seen[box.y : box.y + box.height, box.x : box.x + box.width] += 1
    assert seen.min() >= 1
    assert len(set(boxes)) == len(boxes)
    assert set(cut(height, width, size, overlap)) <= set(boxes)


def test_text_form() -> None:
    assert parse_box(str(TileBox(1, 2, 30, 40))) == (1, 2, 30, 40)
    for text in ("1,2,3", "1,2,3,x", "-1,0,3,3"):
        with pytest.raises(UserError, match="x,y,width,height"):
            parse_box(text)
    with pytest.raises(UserError, match="is empty"):
        parse_box("1,2,0,3")


def test_impossible_cuts_are_refused() -> None:
    for size, overlap in ((0, 0), (5, 5), (5, -1)):
        with pytest.raises(UserError, match="must be less than the tile"):
            cut(10, 10, size, overlap)
    with pytest.raises(UserError, match="does not lie in the picture of 9x10"):
        check_inside(TileBox(5, 0, 5, 5), 10, 9)
