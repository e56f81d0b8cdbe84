from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.scan import scan_folder
from data_prep.sources import ManifestSource
from finetune.strategies.floors import majority, raw_pixels
from simclr_tf.distribution import connect
from simclr_tf.sections import MachineSettings


@pytest.mark.slow
@pytest.mark.parametrize("central", [0.0, 0.5])
def test_raw_pixels_are_the_means_of_areas_of_the_whole_image(
    tmp_path: Path, central: float
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 96), dtype=np.uint8)
    for i, image in enumerate(images):
        (tmp_path / "ab"[i % 2]).mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "ab"[i % 2] / f"{i}.png")
    manifest = scan_folder(str(tmp_path))
    found = raw_pixels(ManifestSource(manifest), connect(MachineSettings()), central)
    order = [int(Path(record.path).stem) for record in manifest.records]
    for row, i in zip(found, order, strict=True):
        kept = images[i, 16:48, 32:64] if central else images[i]
        h, w = kept.shape[0] // 16, kept.shape[1] // 16
        means = kept.reshape(16, h, 16, w).mean(axis=(1, 3)) / 255
        np.testing.assert_allclose(row.reshape(16, 16), means, atol=1e-5)


def test_majority_says_the_most_frequent_class_of_every_image() -> None:
    said = majority(np.array([2, 2, 1, 2]), 4, 5)
    np.testing.assert_allclose(said, np.tile([1 / 8, 2 / 8, 4 / 8, 1 / 8], (5, 1)))
