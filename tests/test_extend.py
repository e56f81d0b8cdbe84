"""docs/extend.md is followed word by word: its modules are written, registered and used."""

import csv
import json
import os
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from data_prep import extensions, parallel
from data_prep.cli.app import run_app
from data_prep.errors import UserError
from data_prep.extensions import VARIABLE, load_extensions
from data_prep.manifest.manifest import Manifest
from data_prep.reading.formats import arrays
from data_prep.reading.images import read_image
from simclr_tf.checkpoints.load import load_encoder
from simclr_tf.config.run_config import RunConfig
from simclr_tf.config.sections import ADDED_METHODS
from simclr_tf.methods import registry
from simclr_tf.models import architectures
from tests.docs import own_commands, run_command, shell_lines, text_of
from tests.images import make_folder, picture

TEXT = text_of("docs/extend.md")
TINY = [
    "--image_size=32", "--width_multiplier=0.125", "--resnet_depth=18", "--train_batch_size=8",
    "--train_steps=2", "--checkpoint_steps=2", "--precision=float32", "--nohealth_watch",
]  # fmt: skip


def modules() -> dict[str, str]:
    """Every block of Python by the name that stands before it: "`my_method.py`:"."""
    found = re.findall(r"`(\w+)\.py`:\n\n```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return dict(found)


def commands(module: str) -> list[tuple[str, list[str]]]:
    """The commands that the text gives with a module."""
    lines = [words for words in shell_lines(TEXT) if words[0] == f"{VARIABLE}={module}"]
    return [(words[1], words[2:]) for words in lines]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the modules of the page, which are loaded as it says."""
    folder = tmp_path_factory.mktemp("extend")
    for name, code in modules().items():
        (folder / f"{name}.py").write_text(code)
    make_folder(folder / "images", per_class=10, channels=1)
    return folder


@pytest.fixture(autouse=True)
def loaded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Works in that folder; what is registered is taken back at the end."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(registry, "METHODS", dict(registry.METHODS))
    monkeypatch.setattr("simclr_tf.training.build.METHODS", registry.METHODS)
    monkeypatch.setattr(architectures, "_REGISTERED", {})
    monkeypatch.setattr(arrays, "_BY_START", list(arrays._BY_START))
    monkeypatch.setattr(arrays, "_SUFFIXES", list(arrays._SUFFIXES))
    known = list(ADDED_METHODS)
    for name in modules():
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setenv(VARIABLE, ",".join(modules()))
    load_extensions()
    yield
    ADDED_METHODS[:] = known


def test_the_page_has_a_module_of_each_kind_and_commands_for_it() -> None:
    assert list(modules()) == ["my_method", "my_backbone", "my_format"]
    assert all(commands(name) for name in modules())
    assert len(own_commands(TEXT)) == sum(len(commands(name)) for name in modules())


def test_the_method_has_the_loss_of_its_paper() -> None:
    """Against a plain loop over pairs."""
    method = sys.modules["my_method"]
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(6, 4))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    potentials = [
        np.exp(-2 * np.sum((rows[i] - rows[j]) ** 2)) for i in range(6) for j in range(i + 1, 6)
    ]
    assert float(method._uniformity(tf.constant(rows))) == pytest.approx(
        np.log(np.mean(potentials))
    )


@pytest.mark.slow
def test_the_command_with_the_method_trains() -> None:
    ((name, arguments),) = commands("my_method")
    assert run_command(name, [*arguments, *TINY, "--train_steps=8", "--warmup_epochs=0"]) == 0
    config = RunConfig.load("runs/align/config.json")
    assert config.method.method == "align_uniform"
    with open("runs/align/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert 0 < float(rows[-1]["align"]) < 4, "squared distances on the sphere"
    assert float(rows[-1]["pretrain_loss"]) < float(rows[0]["pretrain_loss"])


@pytest.mark.slow
def test_the_backbone_trains_is_saved_and_read_and_freezes_by_block() -> None:
    (pretrain, finetune) = commands("my_backbone")
    assert run_command(pretrain[0], [*pretrain[1], *TINY]) == 0
    facts = json.loads(Path("runs/plain/config.json").read_text())["model"]
    assert (facts["backbone"], facts["width_multiplier"]) == ("plain", 0.125)
    by_checkpoint, by_file = load_encoder("runs/plain"), load_encoder("runs/plain/encoder.keras")
    assert by_checkpoint.backbone().architecture.width_multiplier == 0.125
    images = np.random.default_rng(0).random((2, 32, 32, 1), np.float32)
    np.testing.assert_array_equal(by_checkpoint(images), by_file(images))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(by_checkpoint(images, training=True) ** 2)
    variables = [v.value for v in by_checkpoint.backbone().trainable_variables]
    gradients = tape.gradient(loss, variables)
    assert len(gradients) == 15, "kernel, scale and offset of five stages"
    assert all(np.abs(g).max() > 0 for g in gradients[::3])

    small = ["--train_batch_size=8", "--train_steps=2", "--warmup_epochs=0"]
    assert run_command(finetune[0], [*finetune[1], *small]) == 0
    tuned = keras.models.load_model("runs/plain_classifier/model.keras", compile=False)
    assert tuned is not None


@pytest.mark.slow
def test_files_of_the_new_format_go_through_the_pipeline(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for kind in ("dots", "stripes"):
        folder = place / "scans" / kind
        folder.mkdir(parents=True)
        for i in range(12):
            pixels = picture(kind, 40, rng, 1)[..., 0]
            Image.fromarray(pixels).save(folder / f"{i}.pgm")
    one = place / "scans" / "dots" / "0.pgm"
    with Image.open(one) as image:
        np.testing.assert_array_equal(read_image(one)[..., 0], np.asarray(image))
    np.testing.assert_array_equal(read_image(one, tile="3,4,10,20"), read_image(one)[4:24, 3:13])
    monkeypatch.setattr(parallel, "_MANY", 1)  # so that other processes read the files, too
    for name, arguments in commands("my_format"):
        tiny = TINY if name == "simclr-run" else []
        assert run_command(name, [*arguments, *tiny]) == 0
    assert len(Manifest.load("split.csv")) == 24
    assert json.loads(Path("runs/scans/preprocessing.json").read_text())["channels"] == 1


def test_deep_and_damaged_files_of_the_new_format(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (5, 7), dtype=np.uint16)
    header = b"P5\n# a remark\n7 5\n65535\n"
    file = tmp_path / "deep.pgm"
    file.write_bytes(header + deep.astype(">u2").tobytes())
    np.testing.assert_allclose(read_image(file)[..., 0], deep / 65535, rtol=1e-6)
    np.testing.assert_array_equal(read_image(file.read_bytes()), read_image(file))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"deep\.pgm: truncated"):
        read_image(file)


def test_names_and_beginnings_that_are_taken_are_refused() -> None:
    with pytest.raises(ValueError, match="there is a method 'byol'"):
        registry.register_method("byol", registry.METHODS["byol"])
    with pytest.raises(ValueError, match="there is a backbone 'hybrid'"):
        architectures.register_architecture("hybrid", architectures.HybridArchitecture)
    for start in (b"P", b"\x93NUM", b"\x89PNG\r\n", b"P5"):
        with pytest.raises(ValueError, match="does not tell a file from"):
            arrays.register_format([".x"], start, arrays.open_array)


def test_a_module_that_imports_what_has_moved_is_loaded_and_told_of_it(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (place / "of_before.py").write_text(
        "from data_prep.formats.arrays import register_format\n"
        "from simclr_tf.methods.pairs import both_views\n"
    )
    for former in extensions._FORMER:
        monkeypatch.delitem(sys.modules, former, raising=False)
    monkeypatch.setenv(VARIABLE, "of_before")
    try:
        load_extensions()
    finally:
        for former in extensions._FORMER:
            sys.modules.pop(former, None)
    module = sys.modules.pop("of_before")
    assert module.register_format is arrays.register_format
    (told,) = [r.getMessage() for r in caplog.records if r.name == extensions.__name__]
    assert told.startswith("of_before imports data_prep.formats")


def test_a_module_that_is_not_there_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, "no_such_module")
    assert run_app(lambda values: 0, lambda values: None, [], name="simclr-thing") != 0
    error = capsys.readouterr().err
    assert "there is no module no_such_module in the working directory" in error
    assert len(error.splitlines()) == 1
    monkeypatch.setitem(os.environ, VARIABLE, "")
    load_extensions()


def test_a_flag_offers_what_is_registered_and_nothing_else() -> None:
    assert RunConfig.from_values({"method": "align_uniform"}).method.method == "align_uniform"
    with pytest.raises(UserError, match=r"must be one of .*align_uniform"):
        RunConfig.from_values({"method": "aling_uniform"})
    with pytest.raises(UserError, match=r"choose .*plain"):
        RunConfig.from_values({"backbone": "plane"})
