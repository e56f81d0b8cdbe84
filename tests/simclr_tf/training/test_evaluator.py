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


def test_a_pipeline_serves_every_pass_and_the_weights_are_those_of_the_pass(
    source: ManifestSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict] = []
    elements = source.elements
    monkeypatch.setattr(source, "elements", lambda **how: made.append(how) or elements(**how))
    model = network()
    evaluator = Evaluator(model, ViewConfig(32, 3), devices(1), batch_size=4)
    first, again = evaluator.outputs(source), evaluator.outputs(source)
    np.testing.assert_array_equal(again.features, first.features)
    np.testing.assert_array_equal(again.index, range(5))
    assert len(made) == 1
    head = model.supervised_head.trainable_variables[0]
    head.assign(head.value + 1.0)
    assert first.logits is not None
    moved = evaluator.outputs(source).logits
    assert moved is not None
    assert np.abs(moved - first.logits).min() > 1e-3
    assert len(evaluator.outputs(source, max_steps=1).index) == 4
    assert len(made) == 2


@pytest.mark.parametrize(
    ("replicas", "batch_size", "max_steps", "sizes"),
    [
        (1, 256, 0, [5]), (1, 4, 0, [3, 3]), (1, 4, 1, [4]), (1, 4, 9, [3, 3]), (1, 1, 0, [1] * 5),
        (2, 256, 0, [6]), (2, 4, 0, [4, 4]),
    ],
)  # fmt: skip
def test_batches_are_padded_as_little_as_can_be(
    source: ManifestSource, replicas: int, batch_size: int, max_steps: int, sizes: list[int]
) -> None:
    on = devices(replicas)
    evaluator = Evaluator(lambda images: {"sum": images[:, 0, 0, 0]}, ViewConfig(8, 3), on,
                          batch_size)  # fmt: skip
    batches = list(evaluator.batches(source, max_steps))
    assert [len(batch["index"]) for batch in batches] == sizes
    seen = np.concatenate([batch["index"] for batch in batches])
    assert sorted(seen[seen >= 0]) == list(range(min(5, sum(sizes))))


def test_batches_of_fixed_size_do_not_depend_on_the_number_of_images(
    source: ManifestSource,
) -> None:
    evaluator = Evaluator(lambda images: {"sum": images[:, 0, 0, 0]}, ViewConfig(8, 3), devices(1),
                          4, fixed_size=True)  # fmt: skip
    assert [len(batch["index"]) for batch in evaluator.batches(source)] == [4, 4]
