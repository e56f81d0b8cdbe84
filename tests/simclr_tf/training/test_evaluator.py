"""The network's outputs over a whole split."""

import numpy as np
import pytest
from PIL import Image

from data_prep.augment.views import ViewConfig
from data_prep.manifest.scan import scan_folder
from data_prep.sources.manifest_source import ManifestSource
from simclr_tf.models.simclr import SimCLREncoder, SimCLRModel
from simclr_tf.training.distribution import Devices
from simclr_tf.training.evaluator import Evaluator
from tests.images import make_folder
from tests.replicas import mirrored

LEVEL = np.float32(1 / 255)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ManifestSource:
    """Five images of 40 x 40 pixels."""
    folder = make_folder(tmp_path_factory.mktemp("i"), per_class=5, size=40, classes=("a",))
    return ManifestSource(scan_folder(folder), channels=3)


def devices(replicas: int) -> Devices:
    return Devices(mirrored(replicas), 0, 1, "CPU")


def network() -> SimCLRModel:
    model = SimCLRModel(SimCLREncoder(depth=18, width_multiplier=0.0625, cifar_stem=True), 4)
    model.build((None, None, None, 3))
    rng = np.random.default_rng(0)
    for variable in model.variables:  # the supervised head is all zeros otherwise
        variable.assign(variable.value + rng.uniform(0, 0.1, variable.shape))
    return model


@pytest.mark.slow
@pytest.mark.parametrize("replicas", [1, 2])
def test_several_crops_are_averaged(source: ManifestSource, replicas: int) -> None:
    """Against the network on plain slices of the pixels, one after the other."""
    on = devices(replicas)
    with on.strategy.scope():
        model = network()
    found = Evaluator(model, ViewConfig(24, 3), on, batch_size=4, crops=3).outputs(source)
    pixels = [np.asarray(Image.open(file)) * LEVEL for file in source.manifest.files()]
    grid = [(y, x) for y in (0, 8, 16) for x in (0, 8, 16)]
    each = [
        model(np.stack([p[y : y + 24, x : x + 24] for p in pixels]), training=False)
        for y, x in grid
    ]
    assert found.logits is not None
    for name, value in (("final_avg_pool", found.features), ("logits_sup", found.logits)):
        mean = np.mean([e[name].numpy() for e in each], axis=0)
        assert np.abs(mean - each[4][name].numpy()).max() > 1e-3, "the crops differ"
        np.testing.assert_allclose(value, mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.index, range(5))


def test_one_crop_is_the_central_one(source: ManifestSource) -> None:
    model = network()
    views = ViewConfig(32, 3, central_crop=0.8)
    found = Evaluator(model, views, devices(1), batch_size=4).outputs(source)
    pixels = [np.asarray(Image.open(file)) * LEVEL for file in source.manifest.files()]
    center = np.stack([p[4:36, 4:36] for p in pixels])
    expected = model(center, training=False)["final_avg_pool"].numpy()
    np.testing.assert_allclose(found.features, expected, rtol=1e-4, atol=1e-5)
