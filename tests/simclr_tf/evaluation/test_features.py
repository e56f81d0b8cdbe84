from pathlib import Path

import numpy as np
import pytest

from simclr_tf.evaluation.features import Embeddings, embed, extract, l2_normalize


def batches(order: np.ndarray, size: int, labels: bool = True) -> list[dict]:
    images = np.arange(len(order), dtype=np.float32)[:, None, None, None] * np.ones((1, 4, 4, 3))
    made = []
    for start in range(0, len(order), size):
        index = order[start : start + size]
        batch = {"image": images[index], "index": index}
        if labels:
            batch["label"] = index % 3 - 1
        made.append(batch)
    return made


def test_rows_follow_the_indices_whatever_the_order() -> None:
    order = np.random.default_rng(0).permutation(10)
    features, labels, indices = extract(lambda x: x[:, 0, 0, :] * 2, batches(order, 4))
    np.testing.assert_array_equal(indices, np.arange(10))
    np.testing.assert_array_equal(labels, np.arange(10) % 3 - 1)
    np.testing.assert_array_equal(features, np.arange(10)[:, None] * 2.0 * np.ones((1, 3)))
    assert (features.dtype, labels.dtype, indices.dtype) == (np.float32, np.int64, np.int64)


def test_a_tf_dataset_and_bfloat16_features() -> None:
    import tensorflow as tf

    data = {
        "image": np.ones((5, 2, 2, 1), np.float32) * np.arange(5)[:, None, None, None],
        "label": np.arange(5),
        "index": np.arange(5)[::-1].copy(),
    }
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(2)
    features, labels, _ = extract(lambda x: tf.cast(tf.reshape(x, [-1, 4]), tf.bfloat16), dataset)
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features[:, 0], np.arange(5)[::-1])
    np.testing.assert_array_equal(labels, np.arange(5)[::-1])


def test_maps_are_averaged_over_space() -> None:
    maps = np.random.default_rng(0).random((3, 4, 5, 2)).astype(np.float32)
    batch = [{"image": maps, "index": np.arange(3)}]
    features, labels, _ = extract(lambda x: x, batch)
    np.testing.assert_allclose(features, maps.mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(labels, [-1, -1, -1])


def test_empty_and_repeating_data_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        extract(lambda x: x, [])
    twice = batches(np.array([0, 1]), 2) * 2
    with pytest.raises(ValueError, match="twice"):
        extract(lambda x: x, twice)


def test_saved_and_loaded_and_filtered(tmp_path: Path) -> None:
    made = embed(lambda x: x[:, 0, 0, :], batches(np.arange(9), 4))
    made.save(tmp_path / "features.npz")
    loaded = Embeddings.load(tmp_path / "features.npz")
    np.testing.assert_array_equal(loaded.features, made.features)
    np.testing.assert_array_equal(loaded.labels, made.labels)
    assert [file.name for file in tmp_path.iterdir()] == ["features.npz"]
    labelled = loaded.labelled()
    np.testing.assert_array_equal(labelled.indices, [1, 2, 4, 5, 7, 8])
    assert len(loaded.take(loaded.labels == 1)) == 3


def test_unit_length() -> None:
    rows = l2_normalize(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 0.0]])
