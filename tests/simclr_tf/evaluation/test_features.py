from pathlib import Path

import numpy as np

from simclr_tf.evaluation.features import Embeddings, l2_normalize


def test_saved_and_loaded_and_filtered(tmp_path: Path) -> None:
    indices = np.arange(9)
    features = np.random.default_rng(0).random((9, 3), np.float32)
    made = Embeddings(features, indices % 3 - 1, indices)
    made.save(tmp_path / "features.npz")
    loaded = Embeddings.load(tmp_path / "features.npz")
    np.testing.assert_array_equal(loaded.features, made.features)
    np.testing.assert_array_equal(loaded.labels, made.labels)
    assert [file.name for file in tmp_path.iterdir()] == ["features.npz"]
    labeled = loaded.labeled()
    np.testing.assert_array_equal(labeled.indices, [1, 2, 4, 5, 7, 8])
    assert len(loaded.take(loaded.labels == 1)) == 3


def test_unit_length() -> None:
    rows = l2_normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 0.0]])
