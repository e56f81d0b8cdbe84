import logging
import sys

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, trustworthiness
from sklearn.random_projection import GaussianRandomProjection
from threadpoolctl import threadpool_limits

from data_prep.errors import UserError
from simclr_tf.explore import projections
from simclr_tf.explore.projections import NotPossibleError, project, project_all


def heaps(count: int = 60, width: int = 16, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centers = 4 * rng.normal(size=(3, width))
    return (centers[np.arange(count) % 3] + rng.normal(size=(count, width))).astype(np.float32)


def unit(features: np.ndarray) -> np.ndarray:
    return features / np.linalg.norm(features, axis=1, keepdims=True)


@pytest.mark.parametrize(("method", "given"), [("pca", False), ("pca_given", True)])
def test_pca_is_that_of_scikit_learn(method: str, given: bool) -> None:
    features = heaps()
    fitted = PCA(2, random_state=0).fit(features if given else unit(features))
    projection = project(features, method)
    expected = fitted.transform(features if given else unit(features))
    np.testing.assert_allclose(projection.points, expected, atol=1e-4)
    assert f"{fitted.explained_variance_ratio_[0]:.1%}" in projection.note
    assert projection.title == ("PCA of unscaled features" if given else "PCA")


def test_random_projection_is_that_of_scikit_learn() -> None:
    features = heaps()
    method = GaussianRandomProjection(2, random_state=3).fit(features)
    expected = unit(features) @ method.components_.T
    np.testing.assert_allclose(project(features, "random", 3).points, expected, atol=1e-5)


def test_tsne_is_that_of_scikit_learn_after_pca() -> None:
    features = heaps(width=80)
    points = project(features, "tsne", seed=1).points
    with threadpool_limits(1):
        reduced = PCA(50, random_state=1).fit_transform(unit(features))
        expected = TSNE(perplexity=59 / 3, init="pca", random_state=1).fit_transform(reduced)
    np.testing.assert_array_equal(points, expected)
    assert trustworthiness(features, points, n_neighbors=5) > 0.8


@pytest.mark.parametrize("method", ["pca", "tsne", "random"])
def test_the_same_seed_gives_the_same_points(method: str) -> None:
    features = heaps(30)
    first, second = (project(features, method, 5).points for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.dtype == np.float32
    assert first.shape == (30, 2)


@pytest.mark.slow
@pytest.mark.thorough
def test_umap_keeps_heaps_apart() -> None:
    pytest.importorskip("umap")
    features = heaps(45)
    points = project(features, "umap", 2).points
    assert points.tobytes() == project(features, "umap", 2).points.tobytes()
    assert trustworthiness(unit(features), points, n_neighbors=5) > 0.8


def test_without_umap_the_others_remain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    made, remarks = project_all(heaps(), ("pca", "umap", "random", "pca"))
    assert [projection.method for projection in made] == ["pca", "random"]
    assert len(remarks) == 1
    assert "simclr-tf[umap]" in remarks[0]
    with pytest.raises(UserError, match=r"no projection can be shown; UMAP is left out"):
        project_all(heaps(), ("umap",))


def test_images_too_few_or_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotPossibleError, match="10 images at least"):
        project(heaps(9), "tsne")
    monkeypatch.setattr(projections, "_MOST_TSNE", 20)
    with pytest.raises(NotPossibleError, match="at most 20"):
        project(heaps(21), "tsne")


@pytest.mark.parametrize("method", ["pca", "random", "tsne"])
def test_features_without_width_or_difference(method: str) -> None:
    assert project(np.ones((12, 4), np.float32), method).points.tolist() == [[0, 0]] * 12
    ramp = np.arange(1, 13, dtype=np.float32)[:, None]
    points = project(ramp, f"{method}_given").points
    assert points.shape == (12, 2)
    assert np.isfinite(points).all()


def test_one_image_lies_somewhere() -> None:
    assert project(np.ones((1, 4), np.float32), "pca").points.shape == (1, 2)


def test_unknown_methods_are_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="no projection is called 'isomap'; there are pca, tsne"):
        project(heaps(), "isomap")


def test_long_tsne_tells_of_its_progress(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    project(heaps(), "tsne")
    assert not caplog.messages
    monkeypatch.setattr(projections, "_LONG_TSNE", 20)
    project(heaps(), "tsne")
    assert caplog.messages[0] == "t-SNE of 60 images: this takes some minutes"
    assert caplog.messages[1] == "t-SNE: step 50 of 1000"
    assert caplog.messages[-1] == "t-SNE: step 1000 of 1000"
    assert capsys.readouterr().out == ""
