"""What is said of an embedding, against scikit-learn and plain loops."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier

from data_prep.manifest.manifest import Manifest, Record
from simclr_tf.embedding.analyze import analyze_embedding, reanalyze, stored_settings
from simclr_tf.embedding.measures import FloorFeatures
from simclr_tf.embedding.stored import StoredEmbedding, open_stored, read_rows
from simclr_tf.evaluation.intervals import wilson_interval
from simclr_tf.evaluation.linear_probe import fit_linear_probe
from tests.simclr_tf.embedding.common import blobs, config, records, store


@pytest.fixture
def stored(tmp_path: Path) -> StoredEmbedding:
    """60 images in three classes that overlap; as it is after the shards were joined."""
    return store(tmp_path / "out", blobs(60, noise=0.6), Manifest(records(60), str(tmp_path)))


def facts_of(stored: StoredEmbedding, **values: Any) -> dict[str, Any]:
    analyze_embedding(stored, config(**values), stored.folder)
    facts: dict[str, Any] = json.loads((stored.folder / "embedding.json").read_text())
    return facts


def score(facts: dict[str, Any], method: str, column: str = "label") -> dict[str, Any]:
    scores = facts["measures"][column]["scores"]
    return next(s for s in scores if s["method"] == method)


def test_knn_and_probe_learn_from_train_and_are_scored_on_the_rest(stored: StoredEmbedding) -> None:
    facts = facts_of(stored, knn_neighbors=5)
    x, labels = stored.features[:], np.array(stored.columns["label"])
    train = np.array(stored.columns["split"]) == "train"
    knn = KNeighborsClassifier(5, metric="cosine").fit(x[train], labels[train])
    found = score(facts, "knn")
    assert (found["split"], found["train_images"], found["images"]) == ("test", 48, 12)
    assert found["accuracy"]["value"] == pytest.approx(knn.score(x[~train], labels[~train]))
    right = knn.predict(x[~train]) == labels[~train]
    assert found["accuracy"] == wilson_interval(right).to_json()
    y = np.unique(labels, return_inverse=True)[1]
    strength = fit_linear_probe(x[train], y[train]).strength
    mean, scale = x[train].mean(axis=0), x[train].std(axis=0)
    probe = LogisticRegression(C=strength, max_iter=1000)
    probe.fit((x[train] - mean) / scale, y[train])
    expected = probe.score((x[~train] - mean) / scale, y[~train])
    assert score(facts, "linear_probe")["accuracy"]["value"] == pytest.approx(expected)


def test_the_features_are_held_against_simpler_methods_on_the_same_images(tmp_path: Path) -> None:
    """Floors that tell the classes as well as the features do are said to be no lower."""
    images = Manifest(records(150), str(tmp_path))
    stored = store(tmp_path / "out", blobs(150, noise=0.3), images)
    noise = np.random.default_rng(1).normal(size=(150, 5)).astype(np.float32)
    for pixels, above in ((stored.features[:], False), (noise, True)):
        FloorFeatures(np.arange(150), pixels, noise).save(stored.folder)
        facts = facts_of(stored, bootstrap=200)
        verdict = facts["floors"]["label"]
        probe = score(facts, "linear_probe")["accuracy"]["value"]
        assert verdict["network"]["value"] == pytest.approx(probe)
        assert (verdict["split"], verdict["images"]) == ("test", 30)
        names = [floor["name"] for floor in verdict["floors"]]
        assert names == ["majority", "raw_pixels", "untrained features"]
        same = verdict["floors"][1]["difference"]
        assert same["low"] < same["high"]
        assert verdict["above"] is above
        assert verdict["sentence"].startswith("A linear probe on the features: ")


def test_leave_one_out_looks_at_all_other_images(stored: StoredEmbedding) -> None:
    found = score(facts_of(stored, knn_neighbors=1), "knn_leave_one_out")
    x = stored.features[:]
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    labels = np.array(stored.columns["label"])
    cosines = unit @ unit.T - 2 * np.eye(60)
    assert found["accuracy"]["value"] == pytest.approx(
        (labels[cosines.argmax(axis=1)] == labels).mean()
    )
    assert "split" not in found


def test_clusters_are_compared_with_the_labels(stored: StoredEmbedding) -> None:
    facts = facts_of(stored)
    table = read_rows(stored.folder / "embedding.csv")
    agreement = facts["measures"]["label"]["clusters"]["kmeans"]
    assert facts["clusters"]["kmeans"]["clusters"] == 3, "as many as classes"
    labels, clusters = table["label"], table["kmeans"]
    nmi, ari = normalized_mutual_info_score, adjusted_rand_score
    assert agreement["nmi"]["value"] == pytest.approx(nmi(labels, clusters))
    assert agreement["ari"]["value"] == pytest.approx(ari(labels, clusters))
    by_cluster = {c: [a for a, b in zip(labels, clusters, strict=True) if b == c]
                  for c in set(clusters)}  # fmt: skip
    most = sum(max(map(own.count, own)) for own in by_cluster.values())
    assert agreement["purity"]["value"] == pytest.approx(most / 60)
    rows = read_rows(stored.folder / "clusters.csv")
    kmeans = [row for row in zip(*rows.values(), strict=True) if row[0] == "kmeans"]
    for _, cluster, images, medoid, name, share in kmeans:
        own = by_cluster[cluster]
        assert int(images) == len(own)
        assert clusters[table["path"].index(medoid)] == cluster
        assert float(share) == pytest.approx(own.count(name) / len(own), abs=6e-4)


def test_noise_is_no_cluster_of_its_own(tmp_path: Path) -> None:
    features = np.concatenate([blobs(40, 2, noise=0.02), blobs(8, 6, noise=3, seed=1)])
    stored = store(tmp_path / "out", features, Manifest(records(48, ("a", "b")), str(tmp_path)))
    facts = facts_of(stored, min_cluster_size=10)
    table = read_rows(stored.folder / "embedding.csv")
    inside = [i for i, c in enumerate(table["hdbscan"]) if c != "noise"]
    assert facts["clusters"]["hdbscan"] == {"clusters": 2, "noise": 48 - len(inside)}
    assert 0 < len(inside) < 48
    found = facts["measures"]["label"]["clusters"]["hdbscan"]
    assert found["images"] == len(inside)
    assert found["nmi"]["value"] == pytest.approx(
        normalized_mutual_info_score(
            [table["label"][i] for i in inside], [table["hdbscan"][i] for i in inside]
        )
    )


def test_neighbors_outliers_and_duplicates_are_listed_by_name(tmp_path: Path) -> None:
    features = blobs(30)
    features[17] = 2.5 * features[4]
    stored = store(tmp_path / "out", features, Manifest(records(30), str(tmp_path)))
    facts = facts_of(stored, neighbors=3, near_duplicates=0.99999)
    paths = stored.columns["path"]
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosines = unit @ unit.T - 2 * np.eye(30)
    rows = read_rows(stored.folder / "neighbours.csv")
    assert rows["path"] == [p for p in paths for _ in range(3)]
    assert rows["rank"] == ["1", "2", "3"] * 30
    order = np.argsort(-cosines, axis=1)[:, :3]
    assert rows["neighbour"] == [paths[i] for i in order.ravel()]
    near = np.take_along_axis(cosines, order, axis=1)
    np.testing.assert_allclose(np.array(rows["similarity"], float), near.ravel(), atol=1e-6)
    table = read_rows(stored.folder / "embedding.csv")
    np.testing.assert_allclose(np.array(table["outlier"], float), 1 - near.mean(axis=1), atol=1e-6)
    pairs = read_rows(stored.folder / "near_duplicates.csv")
    assert (pairs["path"], pairs["other"]) == ([paths[4]], [paths[17]])
    assert facts["near_duplicates"] == {"pairs": 1, "listed": 1}


def test_images_of_one_group_do_not_tell_each_others_label(tmp_path: Path) -> None:
    """Features that know the group and nothing of the class."""
    rng = np.random.default_rng(0)
    groups = np.arange(48) // 4
    features = rng.normal(size=(12, 6)).astype(np.float32)[groups]
    features += 0.01 * rng.normal(size=features.shape).astype(np.float32)
    labels = rng.permutation(["a", "b"] * 6)
    rows = tuple(
        Record(f"{i}.png", label=str(labels[g]), split="train", group=f"g{g}")
        for i, g in enumerate(groups)
    )
    stored = store(tmp_path / "out", features, Manifest(rows, str(tmp_path)))
    assert score(facts_of(stored, knn_neighbors=3), "knn_group_folds")["accuracy"]["value"] < 0.8
    alone = Manifest(tuple(Record(r.path, r.label, r.split) for r in rows), str(tmp_path))
    other = store(tmp_path / "alone", features, alone)
    assert score(facts_of(other, knn_neighbors=3), "knn_leave_one_out")["accuracy"]["value"] == 1


def test_without_labels_the_silhouette_chooses_and_nothing_is_measured(tmp_path: Path) -> None:
    stored = store(
        tmp_path / "out", blobs(60, 4, noise=0.1), Manifest(records(60, ()), str(tmp_path))
    )
    facts = facts_of(stored)
    assert facts["clusters"]["kmeans"]["clusters"] == 4
    assert max(facts["silhouette"], key=facts["silhouette"].__getitem__) == "4"
    assert facts["measures"] == {}


def test_large_sets_are_not_compared_pair_by_pair(stored: StoredEmbedding) -> None:
    facts = facts_of(stored, compare_limit=59)
    assert not (stored.folder / "neighbours.csv").exists()
    assert "hdbscan" not in facts["clusters"]
    assert [r.split(" left out")[0] for r in facts["remarks"]] == [
        "HDBSCAN", "neighbours, outliers and near duplicates",
    ]  # fmt: skip


def test_a_finished_embedding_is_looked_at_again_with_its_own_settings(
    stored: StoredEmbedding,
) -> None:
    analyze_embedding(stored, config(neighbors=2, seed=5, suggest_labels=4), stored.folder)
    features = (stored.folder / "features.npy").stat()
    before = (stored.folder / "embedding.csv").read_bytes()
    kept = stored_settings(str(stored.folder))
    assert (kept["neighbors"], kept["seed"], kept["suggest_labels"]) == (2, 5, 4)
    (stored.folder / "notes.txt").write_text("keep")
    again = {**kept, "embedding": str(stored.folder)}
    reanalyze(config(**again))
    assert (stored.folder / "embedding.csv").read_bytes() == before
    reanalyze(config(**{**again, "neighbors": 0, "suggest_labels": 0}))
    names = {p.name for p in stored.folder.iterdir()}
    assert "neighbours.csv" not in names
    assert "suggestions.csv" not in names
    assert "notes.txt" in names
    assert (stored.folder / "features.npy").stat() == features
    assert open_stored(stored.folder).facts["settings"]["neighbors"] == 0
    assert [p.name for p in stored.folder.parent.iterdir() if p.name.startswith(".out.again")] == []
