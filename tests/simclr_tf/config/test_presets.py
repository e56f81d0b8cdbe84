"""The presets of `simclr-run`."""

import pytest

from simclr_tf.cli.run import COMMAND
from simclr_tf.config.run_config import PRESETS, RunConfig
from simclr_tf.optim.schedules import scaled_learning_rate


def configuration(*arguments: str) -> RunConfig:
    return COMMAND.parsed(arguments)[0]


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_preset_sets_what_it_names_and_leaves_the_rest(name: str) -> None:
    values = configuration(f"--preset={name}").values()
    defaults = {s.name: s.default for s in RunConfig.settings()}
    assert values == {**defaults, **PRESETS[name]}
    assert values["method"] == name.removeprefix("rheed_").removesuffix("_views")


def test_flags_that_are_given_win() -> None:
    given = configuration("--queue_size=100", "--preset=rheed_moco", "--train_batch_size=32")
    assert (given.method.queue_size, given.train.train_batch_size) == (100, 32)
    assert given.method.target_momentum == 0.99


@pytest.mark.parametrize(("name", "rate"), [("simclr", 0.06), ("moco", 0.06), ("swav", 0.001)])
def test_the_learning_rate_at_the_presets_batch_is_the_published_one(
    name: str, rate: float
) -> None:
    config = configuration(f"--preset=rheed_{name}")
    o = config.optimizer
    scaling = o.learning_rate_scaling
    peak = scaled_learning_rate(o.learning_rate, config.train.train_batch_size, scaling)
    assert peak == pytest.approx(rate)
