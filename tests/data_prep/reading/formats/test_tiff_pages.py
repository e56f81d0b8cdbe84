import io
import struct
from pathlib import Path

import numpy as np
import pytest
import tifffile

from data_prep.errors import UserError
from data_prep.reading.formats import tiff_pages
from data_prep.reading.formats.tiff_pages import check_pages
from data_prep.reading.headers import parse_header
from data_prep.reading.images import read_image


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pages_in_a_circle_are_refused(order: str, big: bool) -> None:
    stream = io.BytesIO()
    pages = np.zeros((3, 4, 5), np.uint8)
    tifffile.imwrite(stream, pages, bigtiff=big, byteorder=order, photometric="minisblack")
    check_pages(stream)
    content = bytearray(stream.getvalue())
    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        offsets = [page.offset for page in file.pages]
    kind = order + ("Q" if big else "I")
    old, new = struct.pack(kind, offsets[2]), struct.pack(kind, offsets[1])
    place = content.rindex(old, offsets[1])
    content[place : place + len(new)] = new  # the second page is followed by itself
    for read in (
        lambda: check_pages(io.BytesIO(content)),
        lambda: parse_header(io.BytesIO(content)),
        lambda: read_image(bytes(content)),
    ):
        with pytest.raises(UserError, match="pages go round in a circle"):
            read()


def test_a_chain_that_leads_out_of_the_file_ends_there() -> None:
    for end in (b"", struct.pack("<I", 0), struct.pack("<I", 10**9)):
        check_pages(io.BytesIO(b"II*\x00" + end))


def test_the_chain_of_a_file_is_walked_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walks = []
    walked = tiff_pages._walked
    monkeypatch.setattr(tiff_pages, "_walked", lambda stream: walks.append(1) or walked(stream))
    path = tmp_path / "s.tif"
    for pages in (3, 5):
        stack = np.zeros((pages, 4, 4), np.uint8)
        tifffile.imwrite(path, stack, metadata=None, photometric="minisblack")
        for _ in range(4):
            with path.open("rb") as stream:
                assert len(tiff_pages.check_pages(stream)) == pages
    assert len(walks) == 2
    content = io.BytesIO(path.read_bytes())
    assert len(tiff_pages.check_pages(content)) == 5


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("in_memory", [False, True])
def test_each_page_is_found_without_those_before_it(
    tmp_path: Path, big: bool, in_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (6, 9, 8), dtype=np.uint8)
    path = tmp_path / "s.tif"
    with tifffile.TiffWriter(path, bigtiff=big) as file:
        for page in stack:
            file.write(page, photometric="minisblack", compression="zlib", metadata=None)
    monkeypatch.delattr(tifffile.TiffPages, "__len__")  # goes over all pages
    source = path.read_bytes() if in_memory else str(path)
    for number, page in enumerate(stack):
        read = read_image(source, None, f"page={number}")
        np.testing.assert_array_equal(read[:, :, 0], page)
    with pytest.raises(UserError, match="there is no page 6: the file holds 6"):
        read_image(source, None, "page=6")
