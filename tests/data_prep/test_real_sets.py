"""The real sets: what is in them, and that the graph decodes what Pillow decodes."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_prep.manifest.scan import image_facts, scan_folder
from data_prep.sources.manifest_source import ManifestSource
from tests.data_sets import data_set

SETS = {
    # classes, images, channels, largest height and width
    "blood_cells": (3, 600, 3, 96, 96),
    "carbonate_thin_sections": (3, 420, 1, 380, 501),
    "core_columns": (1, 3, 3, 6070, 803),
    "lens_sim": (3, 450, 1, 64, 64),
    "radio_galaxies": (4, 2158, 1, 300, 300),
    "rheed_si111": (3, 40, 1, 519, 694),
    "stem_2d_lattices": (5, 270, 3, 480, 640),
}


@pytest.mark.parametrize("name", sorted(SETS))
def test_scan_finds_what_the_readme_says(name: str) -> None:
    classes, images, channels, height, width = SETS[name]
    manifest = scan_folder(data_set(name))
    facts = image_facts(manifest)
    assert (len(manifest.class_names), len(manifest)) == (classes, images)
    assert (facts.channels, facts.bits) == (channels, 8)
    assert (facts.max_height, facts.max_width) == (height, width)


@pytest.mark.parametrize("name", sorted(SETS))
@pytest.mark.parametrize("cache", ["true", "false"])
def test_pixels_equal_those_of_pillow(name: str, cache: Any) -> None:
    manifest = scan_folder(data_set(name))
    some = manifest.subset(manifest.records[:: max(1, len(manifest) // 12)])
    source = ManifestSource(some, cache=cache)
    elements = source.elements(seed=0, shuffle=False, start=0, batch_size=4)
    images = elements.map(source.decode, num_parallel_calls=tf.data.AUTOTUNE)
    for file, image in zip(some.files(), images, strict=True):
        pixels = np.asarray(Image.open(file).convert("RGB" if source.channels == 3 else "L"))
        # PNG is exact. JPEG decoders may differ by rounding; here both use libjpeg-turbo.
        tolerance = 0 if file.endswith(".png") else 2
        difference = image.numpy().astype(np.int16) - pixels.reshape(image.shape)
        assert np.abs(difference).max() <= tolerance, file
