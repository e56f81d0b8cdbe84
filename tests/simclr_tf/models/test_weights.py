"""Frozen parts stay as they are, to the last bit, and cost no backward pass."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.losses.nt_xent import nt_xent
from simclr_tf.losses.supervised import supervised_loss
from simclr_tf.models import SimCLREncoder, SimCLRModel, canonical_variables, freeze
from simclr_tf.optim.factory import build_optimizer
from tests import golden
from tests.simclr_tf.golden_models import fill_model

LABELS = np.array([0, 1, 2, 0, 1, 2])
TRAINING = [
    path.stem for path in sorted((golden.REFERENCE / "training").glob("*after_block*.json"))
]


def small_model(selector: int = 0) -> SimCLRModel:
    encoder = SimCLREncoder(18, width_multiplier=0.0625, cifar_stem=True)
    model = SimCLRModel(encoder, 3, selector)
    fill_model(model)
    return model


def part_of(name: str) -> str | int:
    """The part of the network that a variable of a ResNet-18 belongs to."""
    scope, layer = name.split("/")[:2]
    if scope != "base_model":
        return "head" if scope == "head_contrastive" else "supervised"
    number = int(layer.rsplit("_", 1)[1]) if layer[-1].isdigit() else 0
    return "stem" if number == 0 else (number - 1) // 5 + 1


def snapshot(model: SimCLRModel) -> dict[str, np.ndarray]:
    return {name: v.numpy() for name, v in canonical_variables(model).items()}


def train(model: SimCLRModel, steps: int = 2, **forward: Any) -> None:
    """A few training steps."""
    x = tf.constant(golden.images("freeze", 6, 16, 3))
    optimizer = build_optimizer("momentum", 0.1, variables=model.trainable_variables)

    for _ in range(steps):
        with tf.GradientTape() as tape:
            outputs = model.forward(x, training=True, **forward)
            loss = supervised_loss(outputs.logits, LABELS)
            if outputs.projection is not None:
                loss += nt_xent(outputs.projection, 0.5).loss
        grads = tape.gradient(loss, [v.value for v in model.trainable_variables])
        pairs = [
            (g, v) for g, v in zip(grads, model.trainable_variables, strict=True) if g is not None
        ]
        optimizer.apply([g for g, _ in pairs], [v for _, v in pairs])


def changed_parts(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> set[str | int]:
    """Parts of which every variable changed; asserts that the others did not change at all."""
    by_part: dict[str | int, set[bool]] = {}
    for name, value in before.items():
        same = np.array_equal(value, after[name])
        by_part.setdefault(part_of(name), set()).add(not same)
    assert all(len(changes) == 1 for changes in by_part.values()), by_part
    return {part for part, changes in by_part.items() if True in changes}


@pytest.mark.parametrize("after_block", [-1, 0, 1, 2, 3, 4])
def test_everything_up_to_the_block_stays(after_block: int) -> None:
    model = small_model()
    freeze(model, after_block)
    before = snapshot(model)
    train(model)
    parts: list[str | int] = ["stem", 1, 2, 3, 4, "head", "supervised"]
    assert changed_parts(before, snapshot(model)) == set(parts[after_block + 1 :])


@pytest.mark.parametrize(
    "parts", [("stem", 3), (2,), ("head",), (), (1, 2, 3, 4), ("stem", 1, 2, 3, 4, "head")], ids=str
)
def test_any_parts_can_be_trained(parts: tuple[str | int, ...]) -> None:
    model = small_model()
    freeze(model, train_blocks=parts)
    before = snapshot(model)
    train(model)
    assert changed_parts(before, snapshot(model)) == {*parts, "supervised"}


def test_frozen_statistics_move_if_told_so() -> None:
    model = small_model()
    freeze(model, 2, frozen_statistics_move=True)
    before = snapshot(model)
    train(model)
    after = snapshot(model)
    for name in before:
        moves = "moving_" in name or part_of(name) in (3, 4, "head", "supervised")
        assert np.array_equal(before[name], after[name]) != moves, name


def test_freezing_can_be_undone() -> None:
    model = small_model()
    everything = [id(v) for v in model.trainable_variables]
    freeze(model, 4, unused_projection_head=False)
    assert len(model.trainable_variables) == 2
    freeze(model)
    assert [id(v) for v in model.trainable_variables] == everything


@pytest.mark.parametrize(("selector", "used"), [(0, 0), (1, 1), (-1, 3)])
def test_unused_projection_layers_neither_run_nor_train(selector: int, used: int) -> None:
    model = small_model(selector)
    freeze(model, 4, unused_projection_head=False)
    before = snapshot(model)
    train(model, projection_layers="used")
    after = snapshot(model)
    changed = {n for n in before if not np.array_equal(before[n], after[n])}
    heads = {n.split("/")[1] for n in changed if n.startswith("head_contrastive")}
    assert heads == {f"nl_{i}" for i in range(used)}
    assert not any(n.startswith("base_model") for n in changed)


def backward_convolutions(model: SimCLRModel) -> int:
    x = tf.TensorSpec([6, 16, 16, 3], tf.float32)

    @tf.function
    def gradients(images: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model.forward(images, training=True).logits)
        return tape.gradient(loss, [v.value for v in model.trainable_variables if v.ndim == 4])

    graph = gradients.get_concrete_function(x).graph
    return sum(op.type.startswith("Conv2DBackprop") for op in graph.get_operations())


@pytest.mark.slow
def test_a_frozen_beginning_has_no_backward_pass() -> None:
    model = small_model()
    freeze(model)
    # Two operations a convolution: the gradients of its kernel and of its input.
    assert backward_convolutions(model) == 2 * 21
    freeze(model, 2)
    assert backward_convolutions(model) == 2 * 10
    freeze(model, 4)
    assert backward_convolutions(model) == 0


def test_gradient_passes_frozen_parts_above_a_trained_one() -> None:
    model = small_model()
    x = golden.images("freeze", 6, 16, 3)

    def stem_gradient() -> np.ndarray:
        kernel = canonical_variables(model)["base_model/conv2d/kernel"].value
        with tf.GradientTape() as tape:
            loss = supervised_loss(model.forward(x, training=False).logits, LABELS)
        return tape.gradient(loss, kernel).numpy()

    freeze(model)
    expected = stem_gradient()
    freeze(model, train_blocks=["stem"])
    np.testing.assert_allclose(stem_gradient(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("case", TRAINING)
def test_trainable_variables_are_the_reference_s(case: str) -> None:
    facts = golden.load_json(f"training/{case}")
    flags = facts["case"]["flags"]
    model = small_model(flags.get("ft_proj_selector", 0))
    freeze(model, flags["fine_tune_after_block"])
    named = canonical_variables(model)
    assert {n for n, v in named.items() if v.trainable} == set(facts["trainable_variables"])
    trained = {id(v) for v in model.trainable_variables}
    assert {id(named[n]) for n in facts["trainable_variables"]} == trained


def test_impossible_parts_are_refused() -> None:
    with pytest.raises(UserError, match="-1"):
        freeze(small_model(), 5)
    with pytest.raises(UserError, match="tail"):
        freeze(small_model(), train_blocks=["tail"])
