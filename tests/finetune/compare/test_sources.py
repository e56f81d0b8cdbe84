from pathlib import Path

import numpy as np
import pytest

from data_prep.manifest.scan import scan_folder
from finetune.compare.images import Sources, divide_images
from finetune.compare.strategies import CompareSettings
from tests.images import make_folder


def test_a_fit_is_shown_its_own_images_alone_each_as_often_and_never_a_test_image(
    tmp_path: Path,
) -> None:
    images = scan_folder(make_folder(tmp_path, per_class=10, channels=1))
    settings = CompareSettings.from_values({"image_dir": "x", "label_fractions": (0.3, 1.0)})
    d = divide_images(images, settings, lambda what: lambda done, total: None)
    sources = Sources(d, 1)
    for drawn in d.label_sets:
        source = sources.limit(drawn.rows)
        n = len(drawn.rows)
        elements = source.elements(seed=3, shuffle=True, start=0, batch_size=n)
        shown = np.array([int(e["index"]) for e in elements.take(2 * n)])
        rows = sources.pool_rows[shown]
        for epoch in (rows[:n], rows[n:]):
            np.testing.assert_array_equal(np.sort(epoch), np.sort(drawn.rows))
        assert not set(rows) & set(d.test_rows)
    with pytest.raises(KeyError):
        sources.limit(d.test_rows[:1])
