"""Any picture that a library can write is read as it was written, or refused in one line.

`SIMCLR_TF_EXAMPLES` says how many kinds of files each test tries: 60 by default.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tifffile
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from data_prep.reading.headers import parse_header
from data_prep.reading.images import read_image
from data_prep.reading.spec import parse_reading
from data_prep.reading.tiles import parse_box
from data_prep.sources.decoding import decode_bytes
from tests.data_prep.png_files import DEPTHS, SAMPLES, chunk, png

EXAMPLES = int(os.environ.get("SIMCLR_TF_EXAMPLES", "60"))
every = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES == 60,
    suppress_health_check=list(HealthCheck),
)
LUMA = np.array([0.299, 0.587, 0.114])


def in_unit(pixels: np.ndarray) -> np.ndarray:
    return pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels


def check_all_readers(content: bytes, reading: str, expected: np.ndarray) -> None:
    """Header, reader and graph give the expected pixels, float [H, W, C] in [0, 1]."""
    header = parse_header(io.BytesIO(content), parse_reading(reading))
    assert (header.height, header.width, header.channels) == expected.shape
    own = read_image(content, None, reading)
    assert own.dtype == (np.uint8 if header.bits == 8 else np.float32)
    np.testing.assert_allclose(in_unit(own), expected, rtol=0, atol=2e-7)
    for channels in {header.channels, 1, 3} if header.channels in (1, 3) else {header.channels}:
        wanted = expected
        if channels != header.channels:
            wanted = expected @ LUMA[:, np.newaxis] if channels == 1 else expected.repeat(3, -1)
        read = read_image(content, channels, reading)
        np.testing.assert_allclose(in_unit(read), wanted, rtol=0, atol=0.502 / 255)
        graph = decode_bytes(
            tf.constant(content), int(header.decoder), [int(header.decoder)], channels,
            tf.uint8 if header.bits == 8 else tf.float32, reading,
        ).numpy()  # fmt: skip
        assert graph.dtype == own.dtype
        # The rounding of a luma that lies between two values may differ.
        tolerance = 1.01 / 255 if channels == 1 and header.channels == 3 else 2e-7
        np.testing.assert_allclose(in_unit(graph), in_unit(read), rtol=0, atol=tolerance)


def check_refused(content: bytes, reading: str, problem: str) -> None:
    for read in (
        lambda: parse_header(io.BytesIO(content), parse_reading(reading)),
        lambda: read_image(content, None, reading),
    ):
        with pytest.raises(UserError, match=problem) as caught:
            read()
        assert "\n" not in str(caught.value)


KINDS: list[tuple[str, int]] = [
    *(("bool", 1),), *(("uint8", bits) for bits in range(2, 9)),
    *(("uint16", bits) for bits in range(9, 17)), ("uint32", 24), ("uint32", 32), ("uint64", 64),
    ("int8", 8), ("int16", 16), ("int32", 32), ("float16", 16), ("float32", 32), ("float64", 64),
]  # fmt: skip
COMPRESSIONS = [None, "lzw", "adobe_deflate", "deflate", "packbits", "zstd", "lzma", "png",
                "jpegxl", "jpeg2000", "webp", "lerc", "jpegxr"]  # fmt: skip
READINGS = ["", "", "", "intensity=minmax", "extra=drop", "extra=band", "extra=band;page=0"]


def random_values(kind: str, bits: int, shape: tuple[int, ...], seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind.startswith("float"):
        return rng.random(shape).astype(kind)
    low, high = (-(1 << bits - 1), 1 << bits - 1) if kind.startswith("i") else (0, 1 << bits)
    values = rng.integers(low, high - 1, shape, np.dtype(kind) if kind != "bool" else np.uint8,
                          endpoint=True)  # fmt: skip
    values.flat[0] = high - 1
    return values.astype(kind)


@st.composite
def tiffs(draw: Any) -> dict[str, Any]:
    kind, bits = draw(st.sampled_from(KINDS))
    photometric = draw(
        st.sampled_from(
            ["minisblack", "minisblack", "miniswhite", "rgb", "rgb", "separated", "palette"]
        )
    )
    own = {"rgb": 3, "separated": 4}.get(photometric, 1)
    more = draw(st.integers(0, 3)) if photometric != "palette" else 0
    extra = draw(st.lists(st.sampled_from([0, 1, 2]), min_size=more, max_size=more))
    return {
        "kind": kind, "bits": bits, "photometric": photometric, "samples": own + more,
        "extra": extra, "planar": draw(st.sampled_from(["contig", "separate"])),
        "size": draw(st.tuples(st.integers(1, 40), st.integers(1, 50))),
        "compression": draw(st.sampled_from(COMPRESSIONS)),
        "predictor": draw(st.sampled_from([None, 2, 3])),
        "tile": draw(st.sampled_from([None, (16, 16), (32, 16)])),
        "rows": draw(st.sampled_from([None, 1, 7])),
        "order": draw(st.sampled_from("<>")), "big": draw(st.booleans()),
        "reading": draw(st.sampled_from(READINGS)), "seed": draw(st.integers(0, 9)),
    }  # fmt: skip


def write_tiff(case: dict[str, Any]) -> tuple[bytes, np.ndarray, np.ndarray]:
    """The file, its values [H, W, samples], and the palette [entries, 3]."""
    samples = case["samples"]
    values = random_values(case["kind"], case["bits"], (*case["size"], samples), case["seed"])
    palette = np.random.default_rng(1).integers(0, 256, (1 << min(case["bits"], 16), 3))
    data = np.moveaxis(values, -1, 0) if case["planar"] == "separate" else values
    if samples == 1:
        data = values[..., 0]
    options: dict[str, Any] = {}
    if case["photometric"] == "palette":
        assume(case["kind"] in ("uint8", "uint16") and case["bits"] in (1, 2, 4, 8))
        options["colormap"] = (palette.T * 257).astype(np.uint16)
    if case["kind"] == "bool":
        assume(samples == 1 or case["planar"] == "separate")  # tifffile packs them otherwise
    if case["kind"] == "bool" or case["bits"] % 8:
        # tifffile packs bytes that it has swapped.
        assume(not case["predictor"] and (case["order"] == "<" or case["bits"] == 1))
    if case["bits"] % 8 or case["bits"] == 24:
        options["bitspersample"] = case["bits"]
    assume(not (case["compression"] == "lerc" and case["predictor"]))  # not lossless
    # Only these keep values as they are.
    lossless = {"jpegxl": {"lossless": True, "level": None}, "webp": {"lossless": True},
                "jpegxr": {"level": 100}}  # fmt: skip
    stream = io.BytesIO()
    try:
        tifffile.imwrite(
            stream, data, byteorder=case["order"], bigtiff=case["big"], metadata=None,
            photometric=case["photometric"], planarconfig=case["planar"] if samples > 1 else None,
            extrasamples=case["extra"] or None, compression=case["compression"],
            compressionargs=lossless.get(case["compression"]), predictor=case["predictor"],
            tile=case["tile"], rowsperstrip=None if case["tile"] else case["rows"], **options,
        )  # fmt: skip
    except Exception:
        assume(False)
    return stream.getvalue(), values, palette


def refusal_of(case: dict[str, Any]) -> str:
    """What the refusal of a file says, empty if it is to be read."""
    photometric, extra, kind = case["photometric"], case["extra"], case["kind"]
    unknown, gray = extra.count(0), photometric in ("minisblack", "miniswhite")
    if unknown and "drop" not in case["reading"]:
        if "band" not in case["reading"] and not (gray and len(extra) >= 2):
            return r"whose meaning it does not say: say --extra_samples="
        if photometric == "separated":
            return "CMYK TIFF with further bands"
        if any(extra[:unknown]):
            return "whose alpha comes before its bands"
    refused = {
        "CMYK TIFF of": photometric == "separated" and kind.startswith(("int", "float")),
        "TIFF of integers of 24 bits": case["bits"] == 24,
        "no natural range: give --intensity": kind.startswith("int")
        and "intensity" not in case["reading"],
    }
    return next((said for said, holds in refused.items() if holds), "")


def expected_of(case: dict[str, Any], values: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The pixels as the case means them."""
    kind, photometric = values.dtype.kind, case["photometric"]
    most = 1 if kind in "fib" else (1 << case["bits"]) - 1
    own = {"rgb": 3, "separated": 4}.get(photometric, 1)
    bands = 0 if "drop" in case["reading"] else case["extra"].count(0)
    exact: np.ndarray = values[..., : own + bands].astype(np.float64) / most
    if photometric == "palette":
        exact = palette[values[..., 0]] / 255
    if photometric == "separated":
        light = 1 - exact
        exact = np.rint(light[..., :3] * light[..., 3:] * most) / most
    if photometric == "miniswhite":
        exact = (-1 if kind == "i" else 1) - exact
    return stretched(exact) if "intensity" in case["reading"] else exact


def stretched(exact: np.ndarray) -> np.ndarray:
    low, high = exact.min(), exact.max()
    return (exact - low) / (high - low) if high > low else np.zeros_like(exact)


@every
@given(tiffs())
def test_any_tiff(case: dict[str, Any]) -> None:
    content, values, palette = write_tiff(case)
    problem = refusal_of(case)
    if problem:
        check_refused(content, case["reading"], problem)
        return
    expected = expected_of(case, values, palette)
    if values.dtype.kind == "f" and case["compression"] in ("jpegxl", "lerc"):
        assume(False)  # not lossless for floating point
    if values.dtype == np.float16:
        expected = expected.astype(np.float64)
        np.testing.assert_allclose(
            in_unit(read_image(content, None, case["reading"])), expected, rtol=0, atol=1e-3
        )
        return
    check_all_readers(content, case["reading"], expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_packed_values_begin_with_the_highest_bit_in_both_byte_orders(
    tmp_path: Path, bits: int, order: str
) -> None:
    values = random_values("uint16", bits, (6, 16, 1), 0)
    ones = values >> np.arange(bits - 1, -1, -1, np.uint16) & 1
    file = tmp_path / "a.tif"
    packed = np.packbits(ones.astype(np.uint8).reshape(6, -1), axis=-1)
    tifffile.imwrite(file, packed, byteorder=order, metadata=None)
    with tifffile.TiffFile(file, mode="r+") as written:
        tags = written.pages[0].tags
        tags["ImageWidth"].overwrite(16)
        tags["BitsPerSample"].overwrite(bits)
    check_all_readers(file.read_bytes(), "", values / ((1 << bits) - 1))


@every
@given(tiffs(), st.data())
def test_any_part_of_any_tiff(tmp_path_factory: Any, case: dict[str, Any], data: Any) -> None:
    case["reading"] = data.draw(st.sampled_from(["extra=band;intensity=minmax", "extra=band"]))
    content, _, _ = write_tiff(case)
    assume(not refusal_of(case))
    height, width = case["size"]
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    tile = f"{x},{y},{data.draw(st.integers(1, width - x))},{data.draw(st.integers(1, height - y))}"
    box = parse_box(tile)
    whole = read_image(content, None, case["reading"])
    part = whole[y : y + box.height, x : x + box.width]
    file = Path(tmp_path_factory.mktemp("tiff")) / "a.tif"
    file.write_bytes(content)
    for source in (content, file):
        np.testing.assert_array_equal(read_image(source, None, case["reading"], tile), part)


def ancillary(color: int, depth: int, seed: int) -> dict[str, bytes]:
    """Chunks that may come before the image data, by name."""
    wide = [1] * 3 if color in (2, 6) else [1]
    transparent = bytes(range(0, 200, 50)) if color == 3 else struct.pack(f">{len(wide)}H", *wide)
    profile = b"name\0\0" + zlib.compress(b"no profile")
    control = struct.pack(">IIIIIHHBB", 0, 4, 4, 0, 0, 1, 10, 0, 0)
    return {
        "gAMA": struct.pack(">I", 22727 + seed),
        "cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
        "sRGB": b"\0",
        "iCCP": profile,
        "sBIT": bytes([max(1, min(depth, 8) - 1)] * {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}[color]),
        "bKGD": b"\0" if color == 3 else b"\0\1" * (3 if color in (2, 6) else 1),
        "tRNS": transparent,
        "pHYs": struct.pack(">IIB", 1, 2, 1),
        "tEXt": b"Comment\0gAMA eXIf IEND",
        "acTL": struct.pack(">II", 2, 0),
        "fcTL": control,
    }


@st.composite
def pngs(draw: Any) -> dict[str, Any]:
    color = draw(st.sampled_from(sorted(SAMPLES)))
    depth = draw(st.sampled_from(DEPTHS[color]))
    names = draw(st.lists(st.sampled_from(sorted(ancillary(color, depth, 0))), unique=True))
    return {
        "colour": color, "depth": depth, "names": names, "seed": draw(st.integers(0, 9)),
        "size": draw(st.tuples(st.integers(1, 40), st.integers(1, 50))),
        "interlaced": draw(st.booleans()), "filters": draw(st.integers(0, 4)),
        "grey_palette": draw(st.booleans()), "data_chunks": draw(st.integers(1, 3)),
        "after": draw(st.booleans()), "trailing": draw(st.booleans()),
        "reading": draw(st.sampled_from(["", "", "intensity=minmax"])),
    }  # fmt: skip


def write_png(case: dict[str, Any]) -> tuple[bytes, np.ndarray]:
    """The file, and its pixels without alpha in [0, 1]."""
    color, depth = case["colour"], case["depth"]
    rng = np.random.default_rng(case["seed"])
    values = rng.integers(0, 1 << depth, (*case["size"], SAMPLES[color]))
    palette = rng.integers(0, 256, (1 << depth, 3))
    if case["grey_palette"]:
        palette[:] = palette[:, :1]
    texts = ancillary(color, depth, case["seed"])
    order = ["gAMA", "cHRM", "sRGB", "iCCP", "sBIT", "PLTE", "tRNS", "bKGD", "pHYs", "tEXt", "acTL",
             "fcTL"]  # fmt: skip
    if color == 3:
        texts["PLTE"] = palette.astype(np.uint8).tobytes()
        texts["tRNS"] = texts["tRNS"][: 1 << depth]
    names = {*case["names"], *(["PLTE"] if color == 3 else [])}
    if color in (4, 6):
        names.discard("tRNS")
    before = tuple(chunk(name.encode(), texts[name]) for name in order if name in names)
    after = (chunk(b"tEXt", b"Comment\0after"), chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b")))
    content = png(
        values, depth, color, interlaced=case["interlaced"], filters=case["filters"],
        before=before, after=after if case["after"] else (), data_chunks=case["data_chunks"],
    ) + (b"more data" * 20 if case["trailing"] else b"")  # fmt: skip
    if color == 3:
        pixels = palette[values[..., 0]] / 255
        return content, pixels[..., :1] if case["grey_palette"] or depth == 0 else pixels
    return content, values[..., : 3 if color in (2, 6) else 1] / ((1 << depth) - 1)


@every
@given(pngs())
def test_any_png(case: dict[str, Any]) -> None:
    content, expected = write_png(case)
    assert read_image(content).ndim == 3
    if case["colour"] == 3 and expected.shape[-1] == 3:
        header = parse_header(io.BytesIO(content))
        expected = expected[..., : header.channels]  # a palette may be grey by chance
    if "intensity" in case["reading"]:
        expected = stretched(expected)
    check_all_readers(content, case["reading"], expected)


@pytest.mark.parametrize(
    "damage",
    [lambda b: b[: len(b) // 2], lambda b: b[:-12], lambda b: b[:40] + b"xxxx" + b[44:]],
)
def test_a_damaged_png_is_refused(damage: Callable[[bytes], bytes]) -> None:
    values = np.random.default_rng(0).integers(0, 256, (20, 30, 3))
    content = damage(png(values, 8, 2))
    with pytest.raises(UserError, match=r"truncated|cannot be decoded|damaged") as caught:
        read_image(content)
    assert "\n" not in str(caught.value)
