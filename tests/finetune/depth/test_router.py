"""Images go where a classifier sends them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from finetune.depth.pipeline import Pipeline
from finetune.depth.router import Router, routing
from finetune.trained import BatchScorer, Trained, open_trained
from simclr_tf.evaluation.intervals import wilson_interval
from tests.finetune.depth.fakes import FakeModel, write_router

CASES = ("case_1", "case_2", "case_3")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("router") / "run"
    return open_trained(str(write_router(folder, CASES, noise()[:, :16, :16])))


def noise() -> np.ndarray:
    """Images of rising contrast, float32 [7, 24, 18, 1] in steps of a grey level."""
    rng, level = np.random.default_rng(0), np.linspace(0, 1, 7).reshape(7, 1, 1, 1)
    return (np.rint(level * rng.integers(0, 256, (7, 24, 18, 1))) / 255).astype(np.float32)


def test_an_image_goes_where_the_classifier_sends_its_file(
    classifier: Trained, tmp_path: Path
) -> None:
    """Files are resized in 8 bits, arrays in floating point; the batches are of other sizes."""
    images = noise()
    for number, image in enumerate(images):
        pixels = np.rint(255 * image[..., 0]).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    manifest = Manifest(tuple(Record(f"{n}.png") for n in range(7)), str(tmp_path))
    expected = BatchScorer(classifier, 4).scores(manifest)
    router = Router(classifier, CASES, batch_size=3)
    found = router.probabilities(images)
    np.testing.assert_allclose(found, expected, atol=0.02)
    routes = router.route(images)
    assert routes.cases == tuple(CASES[c] for c in expected.argmax(axis=1))
    np.testing.assert_array_equal(routes.probability, found.max(axis=1))
    assert len(set(routes.cases)) > 1


def test_a_case_without_a_generator_is_refused(classifier: Trained) -> None:
    with pytest.raises(UserError, match="knows a case 'case_3' that has no generator"):
        Router(classifier, ("case_1", "case_2"))


def test_blended_maps_are_the_mean_over_cases_by_their_probabilities(
    classifier: Trained,
) -> None:
    images = np.repeat(noise()[:, :16, :12], 2, axis=0)
    models = {case: FakeModel(case, 100.0 * n, 50.0) for n, case in enumerate(CASES)}
    router = Router(classifier, CASES)
    blended = Pipeline(models, router, blend=True)
    cases = [""] * len(images)
    found = blended.run(images, cases, 4)
    shares = router.probabilities(images)
    wanted = np.zeros((14, 16, 12))
    for image in range(14):
        for case in range(3):
            wanted[image] += shares[image, case] * (100 * case + 50 * (1 - images[image, :, :, 0]))
    np.testing.assert_allclose(found.depth, wanted, rtol=1e-5)
    hard = Pipeline(models, router).run(images, cases, 4)
    assert hard.routed == found.routed
    for image, case in enumerate(shares.argmax(axis=1)):
        np.testing.assert_allclose(
            hard.depth[image], 100 * case + 50 * (1 - images[image, :, :, 0]), rtol=1e-5
        )
    with pytest.raises(UserError, match="--blend_cases: needs the probabilities of a --router"):
        Pipeline(models, blend=True).check(Manifest(()))


def test_routes_are_compared_with_the_cases_that_are_known() -> None:
    found = routing(["a", "a", "b", "", "b"], ["a", "b", "b", "a", "b"])
    assert found
    assert found.names == ("a", "b")
    assert found.confusion.tolist() == [[1, 1], [0, 2]]
    assert found.accuracy == wilson_interval(np.array([True, False, True, True]))
    assert routing(["", ""], ["a", "b"]) is None
