"""A batch in micro-batches: the gradients of the whole, the network seeing a part at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from data_prep.augment.views import host_views
from data_prep.errors import UserError
from simclr_tf.config.run_config import RunConfig
from simclr_tf.methods.base import Pretraining, StepOutputs
from simclr_tf.methods.registry import METHODS
from simclr_tf.models.architectures import BLOCKS_PER_GROUP
from simclr_tf.models.batch_norm import BatchNorm
from simclr_tf.models.simclr import SimCLREncoder
from simclr_tf.training.build import build_step
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.gradients import check_size
from simclr_tf.training.run import execute
from tests.images import make_split_folder
from tests.replicas import per_replica
from tests.simclr_tf.methods.trainer import BATCH, CHANNELS, SIZE, TINY, Trainer

RUN: dict[str, Any] = {
    **TINY,
    "image_size": 32,
    "train_steps": 4,
    "checkpoint_steps": 2,
    "eval_batch_size": 8,
    "microbatch": 4,
}
MICRO = 2
NUMBER = BATCH // MICRO
# Rows of the micro-batches: of first views in turn, of second views with a stride.
IN_TURN = [[0, 1], [2, 3], [4, 5], [6, 7]]
STRIDED = [[0, 4], [1, 5], [2, 6], [3, 7]]


@pytest.fixture
def _one_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of stem and one block, which is traced in no time."""
    monkeypatch.setitem(BLOCKS_PER_GROUP, 18, (1,))
    for module in ("architectures", "resnet"):
        monkeypatch.setattr(f"simclr_tf.models.{module}.NUM_GROUPS", 1)


@pytest.fixture
def _float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("simclr_tf.training.build.choose_precision", lambda *_: "float64")
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx("float32")


def norms(encoder: SimCLREncoder) -> list[BatchNorm]:
    return [x for x in encoder.resnet._flatten_layers() if isinstance(x, BatchNorm)]


class Case(Trainer):
    """A network whose normalisations all do something, and what a step finds on a batch."""

    def __init__(self, method: str, replicas: int = 1, stored: bool = False, **values: Any) -> None:
        super().__init__(method, replicas, weight_decay=1e-3, **values)
        self.method = self.parts.method
        assert isinstance(self.method, Pretraining)
        rng = np.random.default_rng(0)
        for encoder in self.method.encoders:
            for norm in norms(encoder):
                norm.trainable = not stored  # then it normalises by its stored statistics
                for v in (norm.gamma, norm.moving_variance):
                    v.assign(rng.uniform(0.5, 1.5, v.shape))
                for v in (norm.beta, norm.moving_mean):
                    v.assign(rng.normal(0, 0.2, v.shape))

    def found(self, microbatch: int) -> tuple[list[np.ndarray], dict[str, float]]:
        """Gradients, summed over replicas, and scalars, their mean."""
        values = {**self.config.values(), "microbatch": microbatch}
        config = RunConfig.from_values(values)
        step = build_step(config, self.devices, self.model, self.parts, CHANNELS)
        variables = step._trainable

        def run(*inputs: tf.Tensor) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
            found = step.gradients(*inputs)
            pairs = zip(found.gradients, variables, strict=True)
            return [tf.zeros(v.shape) if g is None else g for g, v in pairs], found.metrics

        strategy = self.devices.strategy
        shared = [
            per_replica(strategy, [tf.constant(p, self.dtype(p)) for p in parts])
            for parts in (
                np.split(x, strategy.num_replicas_in_sync, axis=min(1, x.ndim - 1))
                for x in self.inputs(0)
            )
        ]
        on_all = strategy.run if strategy.num_replicas_in_sync == 1 else tf.function(strategy.run)
        gradients, metrics = on_all(run, shared)
        return (
            [strategy.reduce("SUM", g, axis=None).numpy() for g in gradients],
            {n: float(strategy.reduce("MEAN", v, axis=None)) for n, v in metrics.items()},
        )

    def dtype(self, x: np.ndarray) -> Any:
        return x.dtype if x.ndim == 1 else self.model.variable_dtype

    def statistics(self) -> list[np.ndarray]:
        assert isinstance(self.method, Pretraining)
        found = [norm for encoder in self.method.encoders for norm in norms(encoder)]
        return [v.numpy() for n in found for v in (n.moving_mean, n.moving_variance)]


def same(found: Any, expected: Any, rtol: float) -> None:
    for mine, theirs in zip(found[0], expected[0], strict=True):
        np.testing.assert_allclose(mine, theirs, rtol, rtol * np.abs(theirs).max())
    assert found[1] == pytest.approx(expected[1], rel=rtol, abs=rtol)


@pytest.mark.slow
@pytest.mark.usefixtures("_one_block", "_float64")
@pytest.mark.parametrize("method", sorted(METHODS))
def test_with_stored_statistics_the_gradients_are_those_of_the_whole_batch(method: str) -> None:
    """On one replica and on two, which have half of the batch each."""
    alone = Case(method, stored=True)
    whole, before = alone.found(0), alone.statistics()
    assert any(g.any() for g in whole[0])
    same(alone.found(MICRO), whole, 1e-9)
    gradients, metrics = Case(method, replicas=2, stored=True).found(MICRO)
    losses = ("total_loss", "weight_decay")  # of other scalars the mean over halves may differ
    same((gradients, {n: metrics[n] for n in losses}), (whole[0], {n: whole[1][n] for n in losses}),
         1e-9)  # fmt: skip
    for mine, theirs in zip(alone.statistics(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def ghost_losses(case: Case) -> StepOutputs:
    """The losses of a batch as a plain loop has them; leaves stored statistics as documented."""
    method = case.method
    assert isinstance(method, Pretraining)
    images, labels, *small = (tf.constant(x, case.dtype(x)) for x in case.inputs(0))
    before, moved = case.statistics(), []
    rows: dict[int, list[tf.Tensor]] = {}
    targets: dict[int, list[tf.Tensor]] = {}
    for micro in range(NUMBER):
        restore(case, before)
        views = [tf.gather(images[v], (IN_TURN, STRIDED)[v][micro]) for v in range(2)]
        crops = [
            tf.stack([
                tf.gather(kind[v], (IN_TURN, STRIDED)[v % 2][micro]) for v in range(len(kind))
            ])
            for kind in small
        ]  # fmt: skip
        for view, made in method.features(tf.stack(views), *crops).items():
            rows.setdefault(view, []).append(made)
        for view, made in method.targets(tf.stack(views)).items():
            targets.setdefault(view, []).append(made)
        moved.append(case.statistics())
    restore(case, [np.mean(values, 0) for values in zip(*moved, strict=True)])

    def whole(view: int, parts: list[tf.Tensor]) -> tf.Tensor:
        order = np.concatenate((IN_TURN, STRIDED)[view % 2])
        return tf.gather(tf.concat(parts, 0), np.argsort(order))

    batch = [{view: whole(view, parts) for view, parts in x.items()} for x in (rows, targets)]
    return method.losses(*batch, labels)


def restore(case: Case, values: list[np.ndarray]) -> None:
    assert isinstance(case.method, Pretraining)
    found = [norm for encoder in case.method.encoders for norm in norms(encoder)]
    variables = [v for n in found for v in (n.moving_mean, n.moving_variance)]
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


@pytest.mark.slow
@pytest.mark.usefixtures("_one_block", "_float64")
@pytest.mark.parametrize("method", ["simclr", "moco", "swav"])
def test_each_micro_batch_is_normalized_by_itself_and_statistics_move_once(method: str) -> None:
    case = Case(method)
    before = case.statistics()
    variables = build_step(case.config, case.devices, case.model, case.parts, CHANNELS)._trainable
    with tf.GradientTape() as tape:
        outputs = ghost_losses(case)
        decay = case.parts.weight_decay()
        total = outputs.loss + decay
    gradients = tape.gradient(total, [v.value for v in variables])
    pairs = zip(gradients, variables, strict=True)
    expected = [np.zeros(v.shape) if g is None else g.numpy() for g, v in pairs]
    metrics = {"total_loss": total, "weight_decay": decay, **outputs.metrics}
    moved = case.statistics()
    restore(case, before)

    same(case.found(MICRO), (expected, {n: float(v) for n, v in metrics.items()}), 1e-9)
    for mine, theirs, old in zip(case.statistics(), moved, before, strict=True):
        np.testing.assert_allclose(mine, theirs, 1e-10, 1e-12)
        assert (theirs != old).any()


@pytest.mark.slow
@pytest.mark.usefixtures("_one_block", "_float64")
def test_the_statistics_of_the_first_layer_move_as_numpy_says() -> None:
    case = Case("byol")
    assert isinstance(case.method, Pretraining)
    old = [norms(encoder)[0].moving_variance.numpy() for encoder in case.method.encoders]
    case.found(MICRO)
    images = tf.constant(case.inputs(0)[0], tf.float64)
    for encoder, start in zip(case.method.encoders, old, strict=True):
        maps = [encoder.resnet.stem.convs[0](images[v]).numpy() for v in range(2)]
        ends = []
        for micro in range(NUMBER):
            value = start
            for rows, x in zip((IN_TURN, STRIDED), maps, strict=True):
                value = 0.9 * value + 0.1 * x[rows[micro]].var((0, 1, 2))
            ends.append(value)
        stored = norms(encoder)[0].moving_variance.numpy()
        np.testing.assert_allclose(stored, np.mean(ends, 0), rtol=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("_one_block", "_float64")
def test_a_micro_batch_as_large_as_the_batch_changes_nothing() -> None:
    case = Case("simclr")
    before = case.statistics()
    whole, moved = case.found(0), case.statistics()
    restore(case, before)
    same(case.found(BATCH), whole, 1e-9)
    for mine, theirs in zip(case.statistics(), moved, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("_one_block")
@pytest.mark.parametrize("option", [{"precision": "bfloat16"}, {"jit_compile": "true"}], ids=str)
def test_half_precision_and_compiled_steps_find_what_they_find_on_the_whole(
    option: dict[str, Any],
) -> None:
    case = Case("simclr", stored=True, **option)
    (whole, metrics), (parts, found) = case.found(0), case.found(MICRO)
    tolerance = 0.02 if "precision" in option else 1e-4
    assert found == pytest.approx(metrics, rel=tolerance)
    one, other = (np.concatenate([g.ravel() for g in gradients]) for gradients in (whole, parts))
    assert np.isfinite(other).all()
    cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
    assert cosine > 1 - tolerance
    assert np.linalg.norm(other) == pytest.approx(np.linalg.norm(one), rel=tolerance)


@pytest.mark.slow
def test_a_stopped_run_goes_on_exactly_and_logs_what_others_log(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    given = {**RUN, "image_dir": str(make_split_folder(tmp_path / "images"))}
    config = RunConfig.from_values({**given, "model_dir": str(folder)})
    assert execute(config) == 0
    before = read_metrics(folder / "metrics.csv")
    assert {"contrast_loss", "contrast_acc", "supervised_acc", "learning_rate"} < set(before)
    assert np.isfinite(before["total_loss"]).all()
    for file in folder.glob("ckpt-4*"):
        file.unlink()  # as if the run had been killed after its second step
    assert execute(config) == 0
    after = read_metrics(folder / "metrics.csv")
    np.testing.assert_array_equal(after["step"], [1, 2, 3, 4])
    np.testing.assert_allclose(after["total_loss"], before["total_loss"], rtol=1e-6)


@pytest.mark.usefixtures("_one_block")
def test_a_micro_batch_of_a_batch_is_finished_like_the_whole() -> None:
    """The device's half of the augmentation sees a micro-batch at a time, small crops too."""
    trainer = Trainer("swav", microbatch=MICRO)
    step = trainer.step
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, 40, 40, CHANNELS), np.uint8)
    batch = {}
    for prefix, config in (("", step._views), ("small_", step._small_views)):
        assert config is not None
        made = [host_views(tf.constant(x), tf.constant([1, i], tf.int64), config)
                for i, x in enumerate(pixels)]  # fmt: skip
        views, draws = zip(*made, strict=True)
        batch |= {f"{prefix}views": tf.stack(views), f"{prefix}draws": tf.stack(draws)}
    whole = step._finished(batch)
    part = step._finished(batch, lambda view: tf.constant((IN_TURN, STRIDED)[view % 2][1]))
    assert [x.shape[0] for x in part] == [2, 2]
    for kind, everything in zip(part, whole, strict=True):
        for v in range(2):
            rows = (IN_TURN, STRIDED)[v][1]
            np.testing.assert_array_equal(kind[v], everything[v].numpy()[rows])
    assert part[0].shape[2] == SIZE


def test_sizes_that_do_not_make_up_the_batch_are_refused() -> None:
    check_size(0, 7)
    check_size(64, 512)
    with pytest.raises(UserError, match=r"--microbatch=48: does not divide the 128 .* give 32"):
        check_size(48, 128)
    with pytest.raises(UserError, match="give 128"):
        check_size(200, 128)
    with pytest.raises(UserError, match="--microbatch=8 is for --train_mode=pretrain"):
        RunConfig.from_values({"microbatch": 8, "train_mode": "finetune"})
