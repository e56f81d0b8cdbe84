"""Reads a file in all the ways there are, and demands that they agree."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from data_prep.reading.headers import read_header
from data_prep.reading.images import read_image
from data_prep.sources.decoding import decode_file


def read_everywhere(path: Path, reading: str = "") -> np.ndarray:
    """The image by header, Python reader (by name and from bytes) and graph: [H, W, C] in [0, 1].

    Raises:
        UserError: The reader refuses the file; then all of them do, in one line.
    """
    pixels = _read_or_refuse_alike(path, reading)
    header = read_header(str(path), reading)
    assert (header.height, header.width, header.channels) == pixels.shape
    assert (header.bits == 8) == (pixels.dtype == np.uint8)
    np.testing.assert_array_equal(read_image(path.read_bytes(), reading=reading), pixels)
    dtype = tf.uint8 if header.bits == 8 else tf.float32
    np.testing.assert_array_equal(_in_graph(path, reading, header.channels, dtype), pixels)
    return in_unit(pixels)


def _read_or_refuse_alike(path: Path, reading: str) -> np.ndarray:
    refusal = None
    try:
        return read_image(path, reading=reading)
    except UserError as error:
        refusal = error
    assert "\n" not in str(refusal)
    with pytest.raises(UserError):
        read_image(path.read_bytes(), reading=reading)
    with pytest.raises(tf.errors.UnknownError, match="UserError"):
        _in_graph(path, reading, 1, tf.float32)
    raise refusal


def _in_graph(path: Path, reading: str, channels: int, dtype: tf.DType) -> np.ndarray:
    decoder = 5  # Decoder.DECLARED, as of all arrays
    pixels: np.ndarray = decode_file(
        tf.constant(str(path)), decoder, [decoder], channels, dtype, reading
    ).numpy()
    return pixels


def in_unit(pixels: np.ndarray) -> np.ndarray:
    """Pixels as a reader gives them, as float32 in [0, 1]."""
    return pixels / np.float32(255) if pixels.dtype == np.uint8 else pixels


def over_range(values: np.ndarray) -> np.ndarray:
    """What values without a rule become: integers over the range of their type."""
    if values.dtype.kind == "b":
        return values.astype(np.float32)
    if values.dtype.kind == "u":
        return (values / float(np.iinfo(values.dtype).max)).astype(np.float32)
    return values.astype(np.float32)


def between_extremes(values: np.ndarray) -> np.ndarray:
    """What values become by `intensity=minmax`, in exact arithmetic for integers."""
    if values.dtype.kind in "uib":
        whole = [int(value) for value in values.ravel()]
        low, span = min(whole), max(whole) - min(whole)
        shares = [(value - low) / span if span else 0.0 for value in whole]
        return np.array(shares, np.float32).reshape(values.shape)
    wide = values.astype(np.float64)
    span = np.ptp(wide)
    return ((wide - wide.min()) / (span or 1.0)).astype(np.float32)
