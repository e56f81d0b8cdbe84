"""Images that would hang, crash or exhaust whoever reads them, read in a process of its own."""

import io
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.reading.limits import ReadLimits
from data_prep.reading.reader_process import ReaderBudget, ReaderProcess, ReaderUnavailableError
from data_prep.reading.uploads import Upload, UploadOptions, read_upload

OPTIONS = UploadOptions(3, "", ReadLimits(10**6, 10**8))
SECONDS = 2.0
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)

# Formats of somebody's own, which do what a library can do with a damaged file.
EXTENSION = """
import os
from data_prep.reading.formats.arrays import register_format

def do(what):
    def open_array(source, reading):
        eval(what)
    return open_array

register_format([".loop"], b"LOOP", do("max(iter(int, 1))"))
register_format([".crash"], b"CRASH", do("os.abort()"))
register_format([".memory"], b"MEMORY", do("len(bytearray(2**32))"))
"""


def png(pixels: np.ndarray = PIXELS) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReaderProcess]:
    folder = tmp_path_factory.mktemp("extension")
    (folder / "strange_formats.py").write_text(EXTENSION)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SIMCLR_TF_EXTENSIONS", "strange_formats")
        patch.syspath_prepend(folder)
        process = ReaderProcess(OPTIONS, ReaderBudget(SECONDS, 2**30))
        process.start()
        yield process
        process.close()


def check_same(found: Upload, expected: Upload) -> None:
    np.testing.assert_array_equal(found.pixels, expected.pixels)
    assert found.pixels.dtype == expected.pixels.dtype
    assert found.thumbnail == expected.thumbnail
    assert found.facts.to_json() == expected.facts.to_json()


def test_it_reads_what_is_read_here(reader: ReaderProcess) -> None:
    gray = (PIXELS[..., 0].astype(np.uint16) + 1) * 250
    for content in (png(), png(PIXELS[..., 0]), png(gray)):
        for thumbnail in (True, False):
            found = reader(content, thumbnail=thumbnail)
            check_same(found, read_upload(content, OPTIONS, thumbnail=thumbnail))
            assert bool(found.thumbnail) == thumbnail


def test_refusals_are_those_from_here(reader: ReaderProcess) -> None:
    for content in (b"no image", png()[:500], png(np.zeros((1001, 1000), np.uint8))):
        with pytest.raises(UserError) as here:
            read_upload(content, OPTIONS)
        with pytest.raises(UserError) as there:
            reader(content)
        assert str(there.value) == str(here.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"LOOP", r"takes more than 2 s to read"),
        (b"CRASH", r"damaged, or needs more than 1024 MB of memory"),
    ],
)
def test_the_next_image_is_read(reader: ReaderProcess, content: bytes, said: str) -> None:
    began = time.monotonic()
    with pytest.raises(UserError, match=said):
        reader(content.ljust(100))
    assert time.monotonic() - began < SECONDS + 5
    np.testing.assert_array_equal(reader(png()).pixels, PIXELS)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded on Linux")
def test_memory_is_bounded(reader: ReaderProcess) -> None:
    with pytest.raises(UserError, match="needs more memory"):
        reader(b"MEMORY".ljust(100))
    np.testing.assert_array_equal(reader(png()).pixels, PIXELS)


def test_it_does_not_find_modules_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)
    process = ReaderProcess(OPTIONS, ReaderBudget(SECONDS, 2**30))
    assert process(png()).pixels.shape == PIXELS.shape
    process.close()
    with pytest.raises(ReaderUnavailableError):
        process(png())


def test_without_a_process_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    process = ReaderProcess(OPTIONS, ReaderBudget(SECONDS, 2**30))
    process.start()
    with pytest.raises(ReaderUnavailableError):
        process(png())
