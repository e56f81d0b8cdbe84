"""Damaged files of every format: a picture or a refusal in one line, in little memory and time.

`SIMCLR_TF_FUZZ_SECONDS` makes it longer, and draws anew each time; `-s` shows what came of it.
"""

import gzip
import io
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data_prep.reading.formats.damage import Damage, damaged, damages
from tests.data_prep.reading.formats.reader_process import Attempt, Outcome, ReaderProcess
from tests.data_prep.reading.formats.test_hdf5 import OTHER_FILES, Watched

SECONDS = float(os.environ.get("SIMCLR_TF_FUZZ_SECONDS", "8"))
DECODE = Path(__file__).parents[2] / "decode"
VALUES = np.random.default_rng(0).integers(0, 256, (24, 20), dtype=np.uint8)
COLOR = np.random.default_rng(1).integers(0, 256, (24, 20, 3), dtype=np.uint8)


def pillow_file(kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(COLOR).save(stream, kind, **options)
    return stream.getvalue()


def tiff_file(**options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, VALUES.astype(np.uint16), **options)
    return stream.getvalue()


def fits_file(**options: Any) -> bytes:
    fits = pytest.importorskip("astropy.io.fits")
    stream = io.BytesIO()
    values = VALUES.astype(np.int16)
    hdu = fits.CompImageHDU(values, **options) if options else fits.ImageHDU(values)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(stream)
    return stream.getvalue()


def hdf5_file(block: int = 0, groups: int = 0, **options: Any) -> bytes:
    h5py = pytest.importorskip("h5py")
    stream = io.BytesIO()
    # Many groups lie in a fractal heap and a tree of version 2 where the format is the latest.
    version = "latest" if groups else "earliest"
    with h5py.File(stream, "w", userblock_size=block, libver=version) as file:
        file.create_dataset("group/image", data=VALUES, **options)
        for number in range(groups):
            file.create_group(f"group/{number:03d}")
        file["link"] = h5py.SoftLink("/group/image")
    return stream.getvalue()


def numpy_file(save: Callable[..., None], **arrays: Any) -> bytes:
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def made() -> dict[str, bytes]:
    """Small files of every format and of the ways to pack them."""
    hdf5plugin = pytest.importorskip("hdf5plugin")
    return {
        "jpg": pillow_file("JPEG"),
        "jpg, progressive": pillow_file("JPEG", progressive=True),
        "png": pillow_file("PNG"),
        "gif": pillow_file("GIF"),
        "bmp": pillow_file("BMP"),
        "webp": pillow_file("WEBP", lossless=True),
        "tiff": tiff_file(),
        "tiff, packed": tiff_file(compression="zlib", predictor=True, tile=(16, 16)),
        "tiff, ome": tiff_file(ome=True),
        "npy": numpy_file(np.save, arr=VALUES),
        "npz": numpy_file(np.savez, image=VALUES),
        "npz, packed": numpy_file(np.savez_compressed, image=VALUES),
        "fits": fits_file(),
        "fits.gz": gzip.compress(fits_file()),
        **{
            f"fits, {kind}": fits_file(compression_type=kind, tile_shape=(8, 20))
            for kind in ("RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1")
        },
        "hdf5": hdf5_file(),
        "hdf5, packed": hdf5_file(chunks=(8, 8), compression=4, shuffle=True, fletcher32=True),
        "hdf5, lzf": hdf5_file(chunks=(8, 8), compression="lzf"),
        "hdf5, blosc": hdf5_file(chunks=(8, 8), **hdf5plugin.Blosc()),
        "hdf5, user block": hdf5_file(512),
        "hdf5, many groups": hdf5_file(groups=60),
    }


@pytest.fixture(scope="module")
def decoy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("decoy")


@pytest.fixture(scope="module")
def files(decoy: Path) -> dict[str, bytes]:
    """What is damaged: the made files, those that name another file, and the collected ones."""
    found = made()
    (decoy / "secret.bin").write_bytes(VALUES.tobytes())
    (decoy / "secret.h5").write_bytes(hdf5_file())
    for write in OTHER_FILES:
        write(decoy)
        found[write.__name__] = (decoy / "a.h5").read_bytes()
    (decoy / "secret.tif").write_bytes(tiff_file(ome=True))
    found["ome of two files"] = ome_of_two_files(decoy / "secret.tif")
    for file in sorted(DECODE.glob("*")):
        if not file.name.endswith((".expect.npz", ".json")):
            found[file.name] = file.read_bytes()
    return found


def ome_of_two_files(other: Path) -> bytes:
    """A TIFF whose description says that its second channel lies in another file."""
    numbers = [f"urn:uuid:{n * 8}-{n * 4}-{n * 4}-{n * 4}-{n * 12}" for n in "12"]
    parts = "".join(
        f'<TiffData IFD="0" FirstC="{c}" PlaneCount="1"><UUID FileName="{name}">{number}</UUID>'
        "</TiffData>"
        for c, (name, number) in enumerate(zip(("image", other), numbers, strict=True))
    )
    description = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="{numbers[0]}">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SizeX="20"'
        f' SizeY="24" SizeC="2" SizeZ="1" SizeT="1">{parts}</Pixels></Image></OME>'
    )
    return tiff_file(description=description, metadata=None)


READINGS = [
    "",
    "intensity=minmax;nan=zero",
    "axes=CHW;intensity=minmax;nan=min",
    "page=1",
    "array=link",
]


class Tally:
    """What became of all files."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.refused = 0
        self.slowest, self.most = 0.0, 0

    def add(self, kind: str, outcome: Outcome) -> None:
        self.kinds[kind] += 1
        self.refused += outcome.refused
        self.slowest = max(self.slowest, outcome.seconds)
        self.most = max(self.most, outcome.memory)

    def __str__(self) -> str:
        tried = self.kinds.total()
        return (
            f"{tried} damaged files of {len(self.kinds)} kinds: {self.refused} refused,"
            f" {tried - self.refused} read; slowest {self.slowest:.2f} s, most memory of the"
            f" process beyond its libraries {self.most / 2**20:.0f} MB"
        )


@pytest.fixture(scope="module")
def reader(decoy: Path) -> Iterator[ReaderProcess]:
    process = ReaderProcess()
    yield process
    process.close()


def test_whole_files_are_read_or_refused(
    files: dict[str, bytes], reader: ReaderProcess, decoy: Path
) -> None:
    watched = Watched(*sorted(decoy.glob("secret.*")))
    for name, content in files.items():
        for reading in READINGS:
            outcome = reader.read(Attempt(content, reading, limited=True))
            assert not outcome.fault, f"{name}, {reading!r}: {outcome.fault}"
    assert watched.opened() == 0
    watched.close()


def test_damaged_files_are_read_or_refused(
    files: dict[str, bytes], reader: ReaderProcess, decoy: Path
) -> None:
    watched = Watched(*sorted(decoy.glob("secret.*")))
    tally, end = Tally(), time.monotonic() + SECONDS

    @settings(
        max_examples=int(100 * max(1, SECONDS)),
        deadline=None,
        database=None,
        derandomize=SECONDS <= 10,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        name=st.sampled_from(sorted(files)),
        harm=damages(),
        reading=st.sampled_from(READINGS),
        limited=st.sampled_from([True, True, False]),
    )
    def try_all(name: str, harm: list[Damage], reading: str, limited: bool) -> None:
        if time.monotonic() > end:
            return
        content = damaged(files[name], harm)
        outcome = reader.read(Attempt(content, reading, limited))
        tally.add(name, outcome)
        if outcome.fault:
            (decoy / "fault").write_bytes(content)
        assert not outcome.fault, f"{outcome.fault} (kept as {decoy / 'fault'})"
        assert watched.opened() == 0

    try:
        try_all()
    finally:
        print(f"\n{tally}")
        watched.close()
