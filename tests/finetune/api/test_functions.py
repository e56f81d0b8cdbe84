"""Jobs as functions: the signatures of commands, the same runs, objects of what they leave."""

import inspect
import json
import pkgutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import simclr_tf as st
from data_prep.cli import synthesize as synthesize_command
from data_prep.csv_files import read_rows
from finetune.api.call import as_arguments, command_of
from finetune.api.results import Folder, numbers_in
from finetune.api.stubs import stub
from simclr_tf.cli import run as run_command
from simclr_tf.evaluation.intervals import Interval
from tests.docs import ROOT
from tests.images import make_split_folder
from tests.tiny import NAME as TINY

FUNCTIONS = {
    name: getattr(st, name)
    for name in st.PLACES["finetune.api.functions"]
    if hasattr(getattr(st, name), "verb")
}
QUICK: dict[str, Any] = {
    "backbone": TINY, "image_size": 32, "train_batch_size": 8, "train_epochs": 2, "floors": False,
    "proj_out_dim": 16, "warmup_epochs": 0.0, "optimizer": "adam", "learning_rate": 0.01,
}  # fmt: skip
# Settings that a function's own parameters stand for.
STAND_FOR = {
    "images": {"image_dir", "manifest"}, "output": {"output", "model_dir"},
    "encoder": {"encoder"}, "teacher": {"teacher"}, "model": {"model"},
    "checkpoint": {"checkpoint"}, "command": {"command"},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_functions_keywords_are_its_commands_settings(name: str) -> None:
    function = FUNCTIONS[name]
    parameters = inspect.signature(function).parameters
    command = command_of(function.verb)
    settings = {s.name: s for s in command.config_type.settings()}
    stood_for = set().union(*(STAND_FOR.get(p, set()) for p in parameters))
    preset = {"preset"} if command.preset_help else set()
    assert set(parameters) - set(STAND_FOR) - {"training"} - preset == set(settings) - stood_for
    for key, parameter in parameters.items():
        if key in settings and key not in STAND_FOR:
            expected = command.defaults.get(key, settings[key].default)
            assert parameter.default == (None if key in command.chosen else expected)
    assert all(f"    {key}: " in function.__doc__ for key in parameters if key not in preset)


def test_no_module_hides_a_public_name() -> None:
    """A subpackage becomes an attribute of its package as soon as it is imported."""
    modules = {module.name for module in pkgutil.iter_modules(st.__path__)}
    assert "training" in modules
    assert not modules & set(st.__all__)


def test_the_types_of_the_public_names_are_written_anew() -> None:
    """`python -m finetune.api.stubs > simclr_tf/__init__.pyi` writes them."""
    assert (ROOT / "simclr_tf" / "__init__.pyi").read_text() == stub()


@pytest.mark.slow
def test_the_examples_are_typed(tmp_path: Path) -> None:
    example = tmp_path / "example.py"
    example.write_text(
        "import simclr_tf as st\n\n"
        "images = st.images('images')\n"
        "run = st.pretrain(images, 'runs/a', train_epochs=3, method='byol', use_blur=False)\n"
        "classifier: st.Classifier = st.finetune(run, 'runs/b', labels_per_class=5)\n"
        "print(classifier.results, classifier.class_names)\n"
    )
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import simclr_tf as st\n\nst.pretrain('images', 'a', method='byl')\n")
    for file, code in ((example, 0), (wrong, 1)):
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"),
             "--follow-imports=silent", str(file)],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
    assert "byl" in done.stdout


def test_flags_in_messages_become_keywords() -> None:
    said = "--image_size=4: give --image_size=32 or --nouse_blur (not-a--flag, a -- dash)"
    assert as_arguments(said) == (
        "image_size=4: give image_size=32 or use_blur=False (not-a--flag, a -- dash)"
    )


def test_errors_speak_of_keywords(tmp_path: Path) -> None:
    images = make_split_folder(tmp_path / "images", train=2, held_out=1, size=24)
    with pytest.raises(st.UserError, match=r"^temperature=-1: must be at least"):
        st.pretrain(images, tmp_path / "out", temperature=-1)
    with pytest.raises(st.UserError, match=r"unknown setting 'bakbone'; did you mean backbone\?"):
        st.transfer(images, tmp_path / "out", bakbone="vgg16")
    with pytest.raises(st.UserError, match=r"^encoder="):
        st.finetune(tmp_path / "nowhere", tmp_path / "out", images)
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("api")
    images = make_split_folder(root / "images", train=8, held_out=6, size=32)
    run = st.run(images, root / "python", mode="train_then_eval", **QUICK)
    return {"root": root, "images": images, "run": run}


@pytest.mark.slow
def test_a_run_from_python_is_the_run_of_the_command(made: dict[str, Any]) -> None:
    root, run = made["root"], made["run"]
    config = run_command.COMMAND.config_type.load(run.path / "config.json")
    flags = [f for f in config.flags(config.values()) if not f.startswith("--model_dir")]
    assert run_command.main([*flags, f"--model_dir={root / 'command'}"]) == 0
    command = st.load(root / "command")
    ours, theirs = ((r.path / "config.json").read_text() for r in (run, command))
    assert ours.replace(str(run.path), "OUT") == theirs.replace(str(command.path), "OUT")
    assert run.results == command.results
    own, other = (read_rows(r.path / "metrics.csv") for r in (run, command))
    for row in (*own, *other):
        row.pop("seconds")
    assert own == other


@pytest.mark.slow
def test_the_way_from_images_to_predictions(made: dict[str, Any]) -> None:
    root, run = made["root"], made["run"]
    assert repr(run).startswith("Run('")
    assert isinstance(run.results["validation/knn_accuracy"], Interval)
    classifier = st.finetune(run, root / "classifier", train_epochs=2, bootstrap=100)
    stored = json.loads((root / "classifier" / "report.json").read_text())
    accuracy = stored["splits"]["test"]["metrics"]["accuracy"]
    assert classifier.results["test/accuracy"] == Interval(**accuracy)
    assert classifier.class_names == tuple(stored["class_names"])
    assert "test/accuracy" in classifier._repr_html_()
    judged = json.loads((root / "classifier" / "floors.json").read_text())["verdict"]
    assert classifier.verdict == judged["sentence"]
    for floor in judged["floors"]:
        found = classifier.floors[f"{floor['name']}/accuracy"]
        assert found == Interval(**floor["metrics"]["accuracy"])
    other = st.finetune(
        run, root / "other", fresh_weights=True, train_epochs=1, bootstrap=100, floors=False
    )
    assert (other.floors, other.verdict) == ({}, "")
    gain = classifier.difference(other)
    expected = classifier.results["test/accuracy"].value - other.results["test/accuracy"].value
    assert gain.value == pytest.approx(expected)
    assert gain.low <= gain.value <= gain.high
    with pytest.raises(st.UserError, match="metric='acuracy': must be one of accuracy"):
        classifier.difference(other, "acuracy")
    with pytest.raises(st.UserError, match=r"split='tset': .* has scored train"):
        classifier.confusion("tset")
    pairs = Counter(
        (row["true"], row["predicted"])
        for row in read_rows(root / "classifier" / "predictions.csv")
        if row["split"] == "test"
    )
    drawn = Counter(text.get_text() for text in classifier.confusion().axes[0].texts)
    assert Counter(map(str, pairs.values())) <= drawn
    new = made["images"] / "test"
    predictions = classifier.predict(new)
    assert len(predictions) == sum(predictions.results.values()) == len(st.images(new))
    scores = [[float(row[f"score_{i}"]) for i in (1, 2, 3)] for row in predictions.rows()]
    np.testing.assert_allclose(np.sum(scores, axis=1), 1, atol=1e-5)
    assert predictions.rows()[0]["predicted"] == predictions.rows()[0]["class_1"]
    assert st.load(predictions.path).results == predictions.results
    embedding = st.embed(run, None, root / "embedding", projections="pca", hdbscan=False)
    assert embedding.features.shape[0] == len(run.images)
    assert embedding.knn()
    assert isinstance(st.load(root / "embedding"), st.Embedding)
    assert isinstance(st.load(root / "classifier"), st.Classifier)
    encoder = st.load_encoder(run)
    assert encoder.count_params() > 0


def test_a_set_is_made_as_the_command_makes_it(tmp_path: Path) -> None:
    made = st.synthesize(tmp_path / "python", kind="core", images_per_class=2, image_size="32")
    flags = ["--kind=core", "--images_per_class=2", "--image_size=32"]
    assert synthesize_command.main([*flags, f"--output={tmp_path}/command"]) == 0
    ours, theirs = (
        {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.png")}
        for folder in (made, tmp_path / "command")
    )
    assert len(ours) == 8
    assert ours == theirs
    with pytest.raises(st.UserError, match=r"unknown setting 'atoms'"):
        st.synthesize(tmp_path / "other", kind="core", atoms=3)


def test_a_sweep_is_read_from_its_table(tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text('{"runs": []}')
    (tmp_path / "sweep.csv").write_text(
        "run,untrained,method,finished,knn_accuracy,knn_accuracy_low,knn_accuracy_high,loss\n"
        "untrained,true,,true,0.5,0.25,0.75,\n"
        "method=byol,false,byol,false,,,,\n"
    )
    found = st.load(tmp_path)
    assert isinstance(found, st.Sweep)
    assert found.results == {"untrained/knn_accuracy": Interval(0.5, 0.25, 0.75)}
    assert [run.path for run in found.runs.values()] == [tmp_path / "runs" / "untrained"]
    assert found.rows()[1]["method"] == "byol"


def test_numbers_are_found_with_their_intervals() -> None:
    facts = {
        "a": 0.5, "a_low": 0.4, "a_high": 0.6, "b": {"value": 1, "low": 0, "high": 2},
        "c": 3, "d": True, "e": "text", "f": {"value": 1, "low": None, "high": None},
    }  # fmt: skip
    found = numbers_in(facts)
    assert found["a"] == Interval(0.5, 0.4, 0.6)
    assert found["b"] == Interval(1, 0, 2)
    assert found["c"] == 3.0
    assert found["f"] == 1.0
    assert set(found) == {"a", "b", "c", "f"}


def test_a_folder_that_is_nothing_of_ours(tmp_path: Path) -> None:
    with pytest.raises(st.UserError, match="no folder that simclr-tf has left"):
        st.load(tmp_path)
    with pytest.raises(st.UserError, match="has no page yet"):
        Folder(tmp_path).explore()
