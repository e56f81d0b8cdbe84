"""The L2 term covers what the reference's covers, chosen by variable object."""

import keras
import numpy as np
import pytest

from simclr_tf.losses.weight_decay import WeightDecay, decayed_variables
from simclr_tf.models import SimCLREncoder, SimCLRModel, canonical_variables
from simclr_tf.models.variable_names import normalization_variables, supervised_head_variables
from simclr_tf.models.weights import freeze
from tests import golden

FACTS = golden.load_json("optimizer/optimizer")
CASES = FACTS["add_weight_decay"]["cases"]


def recorded_variables() -> dict[str, keras.Variable]:
    start = golden.load_arrays("optimizer/trajectories")
    return {name: keras.Variable(start[f"init/{name}"]) for name, _ in FACTS["variables"]}


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c['optimizer']}-{c['value']:.3g}")
def test_recorded_values(case: dict[str, object]) -> None:
    named = recorded_variables()
    head = [v for n, v in named.items() if "head_supervised" in n]
    norms = [v for n, v in named.items() if "batch_normalization" in n]
    if "no head_supervised" in str(case.get("note")):
        head = []
    # Without adjustment for the optimizer, LARS too decays as the others do.
    name = str(case["optimizer"]) if case["adjust_per_optimizer"] else "momentum"
    covered = decayed_variables(name, list(named.values()), head, norms)
    value = WeightDecay(covered, float(str(case["weight_decay"])))()
    np.testing.assert_allclose(value, case["value"], rtol=1e-6)


@pytest.fixture(scope="module")
def model() -> SimCLRModel:
    encoder = SimCLREncoder(18, width_multiplier=0.0625, cifar_stem=True, se_ratio=0.25)
    return SimCLRModel(encoder, 3)


def covered_names(model: SimCLRModel, optimizer: str) -> set[str]:
    variables = decayed_variables(
        optimizer,
        model.trainable_variables,
        supervised_head_variables(model),
        normalization_variables(model),
    )
    ids = {id(v) for v in variables}
    return {name for name, v in canonical_variables(model).items() if id(v) in ids}


def test_what_every_optimizer_leaves_to_the_loss(model: SimCLRModel) -> None:
    freeze(model)
    names = set(canonical_variables(model))
    assert covered_names(model, "lars") == {"head_supervised/linear_layer/dense/kernel"}
    assert covered_names(model, "adamw") == set()
    expected = {name for name in names if "batch_normalization" not in name}
    assert covered_names(model, "momentum") == covered_names(model, "adam") == expected


def test_frozen_weights_do_not_decay(model: SimCLRModel) -> None:
    freeze(model, fine_tune_after_block=4)
    names = covered_names(model, "momentum")
    assert names
    assert not any(name.startswith("base_model") for name in names)


def test_nothing_to_decay_is_zero() -> None:
    assert float(WeightDecay([], 0.1)()) == 0.0
