import io
import struct

import numpy as np
import pytest
import tifffile

from data_prep.errors import UserError
from data_prep.formats.tiff_pages import check_pages
from data_prep.headers import parse_header
from data_prep.readers import read_image


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
