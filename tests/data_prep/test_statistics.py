"""Statistics in one pass against NumPy over all pixels at once."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep import statistics
from data_prep.errors import UserError
from data_prep.manifest.scan import scan_folder
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.streams import TFRecordSource
from data_prep.sources.tfrecord_writer import write_shards
from data_prep.statistics import PERCENTILES, PixelStatistics, measure
from tests.data_prep.image_files import pixels, write, write_class_folders


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_pixels_of_all_images_count_alike(
    dtype: type, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "_BLOCK", 50)
    rng = np.random.default_rng(channels)
    found, everything = PixelStatistics(channels), []
    for height, width in [(3, 4), (17, 9), (1, 1), (20, 20)]:
        image = rng.beta(0.5, 3, (height, width, channels))
        if dtype == np.uint8:
            image = (image * 255).astype(np.uint8)
        elif dtype == np.uint16:
            image = ((image * 65535).astype(np.uint16) / 65535).astype(np.float32)
        else:
            image = image.astype(np.float32)
        found.add(image)
        scale = 255.0 if dtype == np.uint8 else 1.0
        everything.append(image.reshape(-1, channels).astype(np.float64) / scale)
    values = np.concatenate(everything)
    assert found.count == len(values)
    np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(found.std, values.std(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(found.min, values.min(axis=0))
    np.testing.assert_array_equal(found.max, values.max(axis=0))
    tolerance = 0.5 / 65535 if dtype == np.float32 else 1e-7
    for percent in PERCENTILES:
        expected = np.percentile(values, percent, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(found.percentile(percent), expected, atol=tolerance, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_cuts_between_images_do_not_matter(heights: list[int], seed: int) -> None:
    values = np.random.default_rng(seed).random((sum(heights), 2, 1), np.float32)
    whole, parts = PixelStatistics(1), PixelStatistics(1)
    whole.add(values)
    for part in np.split(values, np.cumsum(heights)[:-1]):
        parts.add(part)
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(parts.std, whole.std, rtol=1e-12)


def test_a_small_spread_on_a_large_mean_keeps_its_digits() -> None:
    image = np.full((1000, 1000, 1), 0.75, np.float32)
    image[::2] += np.float32(2**-20)
    found = PixelStatistics(1)
    for _ in range(3):
        found.add(image)
    np.testing.assert_allclose(found.std, 2**-21, rtol=1e-9)


def test_channels_that_are_alike_are_noticed() -> None:
    gray, color = PixelStatistics(3), PixelStatistics(3)
    gray.add(np.repeat(pixels(1)[..., :1], 3, axis=-1))
    color.add(pixels(1))
    assert (gray.channels_alike, color.channels_alike) == (True, False)
    assert not PixelStatistics(1).channels_alike


def test_files_and_shards_measure_the_same(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "images", {"a": 4, "b": 7}, channels=3)
    write(tmp_path / "images" / "b" / "large.png", pixels(50, 30, 20))
    manifest = scan_folder(tmp_path / "images")
    write_shards(manifest, tmp_path / "shards", 2)
    files = measure(ManifestSource(manifest, cache="false"))
    shards = measure(TFRecordSource(tmp_path / "shards"))
    assert files.class_counts == shards.class_counts == {"a": 4, "b": 8}
    assert files.sizes == shards.sizes == (12, 30, 16, 20)
    assert (files.images, files.unlabeled) == (12, 0)
    every = [pixels(seed).reshape(-1, 3) for seed in range(1, 12)]
    values = np.concatenate([*every, pixels(50, 30, 20).reshape(-1, 3)]) / 255
    for found in (files.pixels, shards.pixels):
        np.testing.assert_allclose(found.mean, values.mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(found.std, values.std(axis=0), rtol=1e-12)


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"a": 3}, channels=3)
    bad = tmp_path / "a" / "001.png"
    data = bytearray(bad.read_bytes())
    data[60:90] = bytes(30)
    bad.write_bytes(data)
    with pytest.raises(UserError, match=r"1 of 3 images cannot be read: .*001\.png"):
        measure(ManifestSource(scan_folder(tmp_path), cache="false"))
