"""Properties: whatever NumPy, astropy and h5py can write reads back as written, or is refused.

`SIMCLR_TF_EXAMPLES` is the number of files a format; more than by default are drawn anew each time.
"""

import bz2
import gzip
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from data_prep.errors import UserError
from tests.data_prep.reading.formats.agreement import between_extremes, over_range, read_everywhere

EXAMPLES = int(os.environ.get("SIMCLR_TF_EXAMPLES", "60"))
BRIEF = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 60,
    suppress_health_check=list(HealthCheck),
)

INTEGERS = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"]
KINDS = ["?", *INTEGERS, "f2", "f4", "f8"]
RULES = ["", "intensity=minmax"]


@dataclass(frozen=True)
class Picture:
    """An image as an array in a file.

    Attributes:
        values: [H, W, C], as stored.
        axes: In which order they are stored.
        reading: What is declared of them.
    """

    values: np.ndarray
    axes: str
    reading: str

    @property
    def stored(self) -> np.ndarray:
        """The array for the file; of a stack the image is the one in the middle."""
        axes = self.axes.replace("N", "")
        order = ["HWC".index(axis) for axis in axes]
        values = self.values if "C" in axes else self.values[..., 0]
        image = values.transpose(order)
        if "N" not in self.axes:
            return image
        return np.stack([np.zeros_like(image), image, image[::-1]], self.axes.index("N"))

    def check(self, path: Path) -> None:
        """Reads the file everywhere and compares; signed integers without a rule are refused."""
        ruled = "intensity" in self.reading
        if self.values.dtype.kind == "i" and not ruled:
            with pytest.raises(UserError, match="no natural range"):
                read_everywhere(path, self.reading)
            return
        expected = between_extremes(self.values) if ruled else over_range(self.values)
        image = read_everywhere(path, self.reading)
        np.testing.assert_allclose(image, expected, rtol=2e-6, atol=1e-7)


@st.composite
def pictures(draw: Any, kinds: list[str] = KINDS, sides: int = 9) -> Picture:
    kind = np.dtype(draw(st.sampled_from(kinds)))
    axes = draw(st.sampled_from(["HW", "WH", "HWC", "CHW", "CWH", "WHC", "NHW", "HNW", "NCHW"]))
    shape = tuple(draw(st.integers(1, limit)) for limit in (sides, sides, 4 if "C" in axes else 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    if kind.kind == "b":
        values = rng.integers(0, 2, shape).astype(bool)
    elif kind.kind == "f":
        values = rng.random(shape).astype(kind)
    else:
        whole = np.iinfo(kind)
        low, high = (whole.min, whole.max) if draw(st.booleans()) else (0, 100)
        values = rng.integers(low, high, shape, kind, endpoint=True)
    rule = draw(st.sampled_from(RULES))
    declared = [f"axes={axes}" if len(axes) > 2 or axes == "WH" else "", rule]
    reading = ";".join(filter(None, [*declared, "page=1" if "N" in axes else ""]))
    return Picture(values, axes, reading)


def in_folder(check: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder))


@BRIEF
@given(
    picture=pictures(),
    order=st.sampled_from("<>"),
    by_columns=st.booleans(),
    file=st.sampled_from(["a.npy", "a.npz", "packed.npz"]),
    surplus=st.integers(0, 2),
)
def test_numpy(picture: Picture, order: str, by_columns: bool, file: str, surplus: int) -> None:
    stored = picture.stored[(np.newaxis,) * surplus]
    stored = stored.astype(stored.dtype.newbyteorder(order), order="F" if by_columns else "C")

    def check(folder: Path) -> None:
        if file == "a.npy":
            np.save(folder / file, stored)
        else:
            save = np.savez_compressed if file.startswith("packed") else np.savez
            save(folder / file, stored)
        picture.check(folder / file)

    in_folder(check)


@BRIEF
@given(
    picture=pictures(),
    order=st.sampled_from("<>"),
    options=st.fixed_dictionaries(
        {
            "compression": st.sampled_from([None, "gzip", "lzf", "plugin"]),
            "shuffle": st.booleans(),
            "fletcher32": st.booleans(),
            "chunks": st.booleans(),
        }
    ),
    block=st.sampled_from([0, 512, 2048]),
    version=st.sampled_from(["earliest", "latest"]),
)
def test_hdf5(
    picture: Picture, order: str, options: dict[str, Any], block: int, version: str
) -> None:
    h5py, hdf5plugin = pytest.importorskip("h5py"), pytest.importorskip("hdf5plugin")
    stored = picture.stored
    chosen = dict(options)
    if chosen["compression"] == "plugin":
        chosen |= dict(hdf5plugin.Zstd())
    if not chosen["chunks"]:
        chosen.pop("chunks")

    def check(folder: Path) -> None:
        path = folder / "a.h5"
        with h5py.File(path, "w", userblock_size=block, libver=version) as file:
            kind = stored.dtype.newbyteorder(order)
            file.create_dataset("deep/image", data=stored.astype(kind), dtype=kind, **chosen)
        picture.check(path)

    in_folder(check)


FITS_KINDS = [*INTEGERS, "f4", "f8"]


@BRIEF
@given(
    picture=pictures(FITS_KINDS, sides=40),
    compression=st.sampled_from(
        [None, None, "RICE_1", "GZIP_1", "GZIP_2", "HCOMPRESS_1", "PLIO_1", "NOCOMPRESS"]
    ),
    tile=st.integers(1, 40),
    packing=st.sampled_from([None, (".gz", gzip.compress), (".bz2", bz2.compress)]),
)
def test_fits(picture: Picture, compression: str | None, tile: int, packing: Any) -> None:
    fits = pytest.importorskip("astropy.io.fits")
    stored = picture.stored
    lossless = compression in (None, "GZIP_1", "GZIP_2")
    assume(lossless or stored.dtype.kind != "f")  # else it would be quantized
    try:
        if compression:
            side = max(4, tile)
            tiles = (*(1 for _ in stored.shape[:-2]), side, side)
            hdu = fits.CompImageHDU(
                stored, compression_type=compression, tile_shape=tiles, quantize_level=0
            )
            stream_of = [fits.PrimaryHDU(), hdu]
        else:
            stream_of = [fits.PrimaryHDU(stored)]
        with tempfile.TemporaryFile() as probe:
            fits.HDUList(stream_of).writeto(probe)
            probe.seek(0)
            content = probe.read()
    except (ValueError, TypeError, KeyError, OverflowError, UserWarning):
        assume(False)  # astropy does not write this, or not with these types

    def check(folder: Path) -> None:
        path = folder / f"a.fits{packing[0] if packing else ''}"
        path.write_bytes(packing[1](content) if packing else content)
        picture.check(path)

    in_folder(check)


@BRIEF
@given(
    bits=st.sampled_from([8, 16, 32, 64, -32, -64]),
    scale=st.sampled_from([1, 0.5, -2.0, 1e-3]),
    zero=st.sampled_from([0, 3.5, -128, 2**15, 2**31, 2**63]),
    blank=st.sampled_from([None, 0, 1, 100]),
    nan=st.sampled_from(["", "min", "zero", "median"]),
    seed=st.integers(0, 2**32),
    packed=st.booleans(),
)
def test_scaling_of_fits(
    bits: int, scale: float, zero: float, blank: int | None, nan: str, seed: int, packed: bool
) -> None:
    """The formula of the FITS standard (4.0, section 4.4.2), in numbers of unlimited length."""
    pytest.importorskip("astropy.io.fits")
    rng = np.random.default_rng(seed)
    kind = np.dtype(f"{'f' if bits < 0 else 'u' if bits == 8 else 'i'}{abs(bits) // 8}")
    values = (rng.random((6, 5)) if bits < 0 else rng.integers(0, 120, (6, 5))).astype(kind)
    cards = [
        "SIMPLE  =                    T", f"BITPIX  = {bits:>20}", "NAXIS   =                    2",
        "NAXIS1  =                    5", "NAXIS2  =                    6",
        f"BSCALE  = {scale:>20}", f"BZERO   = {zero:>20}",
    ]  # fmt: skip
    if blank is not None:
        cards.append(f"BLANK   = {blank:>20}")
    header = "".join(card.ljust(80) for card in [*cards, "END"]).ljust(2880).encode()
    content = header + values.astype(kind.newbyteorder(">")).tobytes().ljust(2880, b"\0")
    undefined = values == blank if bits > 0 and blank is not None else np.zeros((6, 5), bool)
    exact = np.array([float(int(v) * scale + zero) if bits > 0 else float(v) * scale + zero
                      for v in values.ravel()]).reshape(6, 5)  # fmt: skip
    finite = exact[~undefined]
    filling = {"": 0, "zero": 0, "min": finite.min(), "median": np.median(finite)}[nan]
    exact[undefined] = filling
    reading = "intensity=minmax" + (f";nan={nan}" if nan else "")

    def check(folder: Path) -> None:
        path = folder / "a.fits"
        path.write_bytes(gzip.compress(content) if packed else content)
        if undefined.any() and not nan:
            with pytest.raises(UserError, match="say what they become"):
                read_everywhere(path, reading)
            return
        image = read_everywhere(path, reading)
        if zero < 2**31:  # beyond, float64 has no room for the values
            # Integers are filled by integers: half a step for a median between two.
            np.testing.assert_allclose(
                image[..., 0], between_extremes(exact), atol=0.5 / np.ptp(exact) + 1e-5
            )

    in_folder(check)
