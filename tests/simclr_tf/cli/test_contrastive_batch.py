"""`--contrastive_batch`, the other name of `--train_batch_size`."""

import pytest

from data_prep.errors import UserError
from simclr_tf.cli.run import COMMAND
from simclr_tf.config.run_config import RunConfig


def configuration(*arguments: str) -> RunConfig:
    return COMMAND.parsed(arguments)[0]


@pytest.mark.parametrize("others", [[], ["--preset=rheed_byol"], ["--train_batch_size=4096"]])
def test_it_sets_the_whole_batch(others: list[str]) -> None:
    config = configuration("--contrastive_batch=4096", "--microbatch=64", *others)
    assert (config.train.train_batch_size, config.train.microbatch) == (4096, 64)


def test_without_it_the_batch_is_as_it_was() -> None:
    config = configuration("--train_batch_size=32")
    assert (config.train.train_batch_size, config.train.microbatch) == (32, 0)


def test_two_different_batches_are_refused() -> None:
    with pytest.raises(UserError, match="--contrastive_batch=64 and --train_batch_size=32 are the"):
        configuration("--contrastive_batch=64", "--train_batch_size=32")
