"""The estimate counts what a plain count does, grows as it should, and its advice fits."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.build import build_model
from simclr_tf.training.distribution import Devices
from simclr_tf.training.memory import (
    Activations,
    Load,
    check_memory,
    count_activations,
    memory_here,
    variable_bytes,
)
from tests.images import make_folder

GIB = 2**30
FLAGS = ("microbatch", "train_batch_size", "image_size")
# ResNet-50 at 224 pixels in float32, as counted, with LARS.
RESNET50 = Load(Activations(80e6, 6e6), 200e6, 100e6, 224, 3, 512)


def test_activations_are_the_outputs_of_layers_behind_the_first_that_trains() -> None:
    first, second = (keras.layers.Conv2D(n, 3, padding="same", activation="relu") for n in (4, 8))
    model = keras.Sequential([keras.Input((16, 16, 3)), first, second])

    def kept(trainable: list[keras.Variable]) -> float:
        found = count_activations(lambda x: model(x, training=False), 16, 3, trainable)
        assert found.largest == 2 * 16 * 16 * 8 * 4
        return found.kept

    sides = 16 * 16 * 4  # bytes of a channel
    assert kept(model.trainable_variables) == 2 * sides * (4 + 8), "of convolution and relu"
    assert kept(second.trainable_variables) == 2 * sides * 8
    assert kept([]) == 0
    assert variable_bytes(second.variables) == 4 * (3 * 3 * 4 * 8 + 8)


def test_the_network_of_a_run_is_counted_as_it_is_frozen() -> None:
    values = {"image_size": 64, "resnet_depth": 18, "width_multiplier": 0.25}
    kept = []
    for after in (-1, 1, 3, 4):
        config = RunConfig.from_values(
            {**values, "fine_tune_after_block": after, "train_mode": "finetune"}
        )
        model = build_model(config, 3, 2)
        known = count_activations(
            lambda x, model=model: model(x, training=False), 64, 3, model.trainable_variables
        )
        kept.append(known.kept)
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > 2 * kept[1] > 4 * kept[2]
    assert kept[3] < 0.01 * kept[0]


def test_the_defaults_on_24_gib_are_refused_with_flags_that_fit() -> None:
    """512 images of 224 pixels in a ResNet-50, which the kernel ended at 24 GiB."""
    with pytest.raises(UserError, match="--nomemory_check") as error:
        check_memory(RESNET50, 24 * GIB, FLAGS)
    advised = dict(
        re.findall(r"--(microbatch|train_batch_size|image_size)=(\d+)", str(error.value))
    )
    assert set(advised) >= {"microbatch", "train_batch_size"}
    assert 512 % int(advised["microbatch"]) == 0
    for load in (
        RESNET50.at(microbatch=int(advised["microbatch"])),
        RESNET50.at(batch=int(advised["train_batch_size"])),
    ):
        check_memory(load, 24 * GIB)
        assert load.bytes() < 24 * GIB


def test_what_fits_is_not_refused_and_what_is_near_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wanted = RESNET50.bytes()
    check_memory(RESNET50, 1.01 * wanted)
    assert caplog.text == ""
    check_memory(RESNET50, 0.9 * wanted, FLAGS)
    assert "is estimated to take" in caplog.text
    with pytest.raises(UserError):
        check_memory(RESNET50, 0.7 * wanted, FLAGS)


def test_the_estimate_grows_with_what_takes_memory() -> None:
    base = RESNET50.bytes()
    assert RESNET50.at(size=112).bytes() < 0.3 * base
    assert RESNET50.at(batch=256).bytes() < 0.55 * base
    assert replace(RESNET50, views=1).bytes() < 0.6 * base
    assert replace(RESNET50, cache=GIB).bytes() == base + GIB
    four = replace(RESNET50, replicas=4)
    assert base < four.bytes() < 1.05 * base, "the batch is shared out, the network is not"
    assert replace(four, shared=False).bytes() < 0.3 * base, "each GPU has a memory of its own"


def test_a_micro_batch_is_advised_for_pretraining_alone() -> None:
    with pytest.raises(UserError) as error:
        check_memory(RESNET50, 24 * GIB, ("train_batch_size", "image_size"))
    assert "microbatch" not in str(error.value)
    with pytest.raises(UserError, match="a smaller network"):
        check_memory(replace(RESNET50, variables=90e9), 24 * GIB, FLAGS)


def test_a_pass_of_fewer_images_is_advised_where_nothing_is_trained() -> None:
    load = Load(Activations(0.0, 6e6, layers=53), 100e6, 0.0, 224, 3, 4096, views=1)
    with pytest.raises(
        UserError, match=r"embedding is estimated .*give --eval_batch_size=\d+;"
    ) as e:
        check_memory(load, 8 * GIB, ("eval_batch_size",), "embedding")
    batch = int(re.findall(r"eval_batch_size=(\d+)", str(e.value))[0])
    assert load.at(batch=batch).bytes() < 8 * GIB < load.at(batch=4 * batch).bytes()


def test_there_is_some_memory_here() -> None:
    devices = Devices(tf.distribute.get_strategy(), 0, 1, "CPU")
    assert GIB / 4 < memory_here(devices) < 2**50


_PEAK = """
import resource, sys
import simclr_tf.training.session as session
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.run import execute
def note(load, available, flags):
    print("estimate", load.bytes())
session.check_memory = note
execute(RunConfig.from_values(eval(sys.argv[1])))
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is counted as Linux does")
@pytest.mark.parametrize(
    "values",
    [
        {"resnet_depth": 50, "image_size": 128, "train_batch_size": 32, "precision": "float32"},
        {"resnet_depth": 50, "image_size": 128, "train_batch_size": 32, "microbatch": 8},
        {"resnet_depth": 18, "image_size": 96, "train_batch_size": 64},
    ],
    ids=str,
)
def test_the_estimate_is_within_a_third_of_the_true_peak(tmp_path: Path, values: dict) -> None:
    images = make_folder(tmp_path / "images", per_class=24)
    config = {**values, "image_dir": str(images), "model_dir": str(tmp_path / "run"),
              "train_steps": 2, "checkpoint_steps": 2, "health_watch": False}  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, repr(config)], capture_output=True, text=True, check=True
    )
    said = dict(line.split() for line in done.stdout.splitlines() if line.count(" ") == 1)
    assert float(said["estimate"]) == pytest.approx(float(said["peak"]), rel=0.33)
