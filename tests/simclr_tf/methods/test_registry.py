"""What holds for every method of pretraining that is registered."""

import json
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from data_prep.errors import UserError
from simclr_tf.config.run_config import RunConfig
from simclr_tf.config.sections import MethodSettings
from simclr_tf.evaluation.metrics import effective_rank
from simclr_tf.methods.registry import METHODS
from tests.simclr_tf.methods.trainer import Trainer, views

ALL = sorted(METHODS)


def loss_name(method: str) -> str:
    return "contrast_loss" if method == "simclr" else "pretrain_loss"


def test_the_flag_offers_exactly_the_registered_methods() -> None:
    assert set(get_args(get_type_hints(MethodSettings)["method"])) == set(METHODS)


@pytest.mark.parametrize("method", ALL)
def test_settings_survive_json_and_fit_no_other_mode(method: str) -> None:
    config = RunConfig.from_values({"method": method})
    assert RunConfig.from_json(config.to_json()) == config
    assert json.loads(config.to_json())["method"]["method"] == method
    if method != "simclr":
        with pytest.raises(UserError, match=f"--method={method} is for --train_mode=pretrain"):
            RunConfig.from_values({"method": method, "train_mode": "finetune"})


@pytest.mark.slow
@pytest.mark.parametrize("method", ALL)
def test_a_step_moves_all_that_trains_and_going_on_is_exact(method: str, tmp_path: Path) -> None:
    adam = {"optimizer": "adam", "learning_rate": 0.3}  # moves what has the least gradient
    whole = Trainer(method, **adam)
    own = {v.path: v.numpy() for v in whole.extension.trainable_variables}
    before = {v.path: v.numpy() for v in whole.model.trainable_variables}
    first = whole.train(0, 2)
    assert all(np.isfinite(value) for step in first for value in step.values())
    still = {v.path for v in whole.model.trainable_variables if (v.numpy() == before[v.path]).all()}
    # The normalisation of the projection is SimCLR's and SimSiam's alone.
    normalized = method in ("simclr", "simsiam")
    assert {path.partition("projection_head/")[2] for path in still} == (
        set() if normalized else {"nl_1/norm/gamma"}
    )
    assert all((v.numpy() != own[v.path]).any() for v in whole.extension.trainable_variables)

    whole.store(tmp_path).save(2)
    expected = whole.train(2, 2)
    resumed = Trainer(method, seed=1, **adam)  # other weights, until they are restored
    assert resumed.store(tmp_path).restore_latest() == 2
    again = resumed.train(2, 2)
    assert again == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["moco", pytest.param("swav", marks=pytest.mark.thorough)]
)  # twin and queue; prototypes and queue
def test_two_replicas_learn_what_one_learns_from_the_whole_batch(method: str) -> None:
    alone, together = (Trainer(method, n, small_crops=1) for n in (1, 2))
    steps = list(zip(alone.train(0, 2), together.train(0, 2), strict=True))
    name = loss_name(method)
    assert steps[0][1][name] == pytest.approx(steps[0][0][name], rel=1e-4)
    for one, two in steps:
        assert two[name] == pytest.approx(one[name], rel=2e-2)
    for key, variable in together.extension.checkpoint_variables().items():
        per_replica = together.devices.strategy.experimental_local_results(variable)
        if "momentum_network" in key and variable.synchronization.name == "ON_READ":
            continue  # moving statistics, which are read as the mean
        np.testing.assert_array_equal(per_replica[0], per_replica[1], err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "decoupled"), [*((method, False) for method in ALL), ("simclr", True)]
)
def test_the_loss_falls_on_32_images_and_the_features_do_not_collapse(
    method: str, decoupled: bool
) -> None:
    trainer = Trainer(
        method, train_batch_size=32, train_steps=200, optimizer="adam", learning_rate=0.016,
        weight_decay=1e-6, queue_size=96, assignment_queue=0, target_momentum=0.9,
        decoupled=decoupled,
    )  # fmt: skip
    losses = [step[loss_name(method)] for step in trainer.train(0, 200, every=4)]
    assert np.mean(losses[-10:]) < 0.9 * np.mean(losses[4:14]) + 0.1 * min(0, losses[4])
    features = trainer.features(views(1000, 96)[0])
    assert effective_rank(features) > 4


@pytest.mark.slow
def test_the_decoupled_loss_is_less_by_the_share_of_the_positive() -> None:
    """Of one network, by what the log says of the first step."""
    plain, decoupled = (
        Trainer("simclr", temperature=1000.0, decoupled=flag).train(0, 1)[0]["contrast_loss"]
        for flag in (False, True)
    )
    # At such a temperature all similarities are alike: one of 2N - 1 = 15 candidates is missing.
    assert plain - decoupled == pytest.approx(2 * np.log(15 / 14), rel=0.01)
