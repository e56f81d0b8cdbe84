"""What the README promises: its commands parse, its quick start runs, its Python works on it."""

import csv
import importlib
import json
import math
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from absl import flags

from data_prep.cli.app import parse
from simclr_tf.cli import config_flags
from simclr_tf.cli.run import run
from simclr_tf.config import QUIRKS, RunConfig
from simclr_tf.optim.schedules import checkpoint_interval, run_steps, train_steps
from tests.images import CLASSES, make_folder

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
COMMANDS: dict[str, str] = PROJECT["scripts"]
DOCS = "".join(p.read_text(encoding="utf-8") for p in sorted((ROOT / "docs").glob("*.md")))
PROSE = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)

EVERY_COMMAND_HAS = {"help", "flagfile"}

# Enough to see everything written, and no more.
TINY = [
    "--image_size=32", "--width_multiplier=0.0625", "--train_batch_size=8", "--eval_batch_size=16",
    "--precision=float32", "--train_steps=4", "--checkpoint_steps=2",
]  # fmt: skip


def blocks(language: str, text: str = README) -> list[str]:
    """The contents of the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def shell_lines() -> list[list[str]]:
    """The words of every command in the `bash` blocks; comments left out, lines joined."""
    joined = "\n".join(blocks("bash", f"{README}\n{DOCS}")).replace("\\\n", " ")
    return [words for line in joined.splitlines() if (words := shlex.split(line, comments=True))]


def own_commands() -> list[tuple[str, list[str]]]:
    """Name and arguments of the commands of this package, whatever stands before them."""
    found = []
    for words in shell_lines():
        name = next((word for word in words if word in COMMANDS), "")
        if name:
            found.append((name, words[words.index(name) + 1 :]))
    return found


def inline_code() -> list[str]:
    return re.findall(r"`([^`\n]+)`", PROSE)


def table_below(heading: str) -> list[list[str]]:
    """The rows of the first table below a heading, cell by cell, without head and rule."""
    section = README.split(f"{heading}\n", 1)[1]
    match = re.search(r"(?:^\|.*\n)+", section, flags=re.MULTILINE)
    assert match, f"no table below {heading}"
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in match[0].splitlines()]
    return rows[2:]


def defined_flags(command: str) -> flags.FlagValues:
    """The flags of a command, freshly defined."""
    module = importlib.import_module(COMMANDS[command].partition(":")[0])
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    module.define(values)
    return values


@cache
def flag_names(command: str) -> frozenset[str]:
    values = defined_flags(command)
    negated = {f"no{name}" for name in values if values[name].boolean}
    return frozenset(values) | negated


def unknown_flags(words: Iterable[str], commands: Iterable[str]) -> list[str]:
    """Those of some words that begin like a flag but are one of none of the commands."""
    known = EVERY_COMMAND_HAS.union(*(flag_names(command) for command in commands))
    return [w for w in words if w.startswith("--") and w[2:].partition("=")[0] not in known]


def configuration(arguments: list[str], command: str = "simclr-run") -> RunConfig:
    assert not unknown_flags(arguments, [command]), f"{command} has no such flag"
    values = defined_flags(command)
    parse(values, arguments, command)
    return config_flags.read(values)


def test_every_shell_line_is_of_a_kind_that_is_checked_here() -> None:
    for words in shell_lines():
        head = next(word for word in words if not re.match(r"[A-Z_]+=", word))
        assert head in {*COMMANDS, "make", "pip"}, " ".join(words)
    assert {name for name, _ in own_commands()} >= {"simclr-run", "simclr-synthesize"}


@pytest.mark.parametrize(
    ("name", "arguments"),
    own_commands(),
    ids=[f"{n}-{i}" for i, (n, _) in enumerate(own_commands())],
)
def test_the_commands_of_the_bash_blocks_parse(name: str, arguments: list[str]) -> None:
    if "--" in arguments:  # what follows is another command's
        cut = arguments.index("--")
        other = {"simclr-folds": "simclr-finetune", "simclr-sweep": "simclr-run"}[name]
        assert not unknown_flags(arguments[cut + 1 :], [other])
        arguments = arguments[:cut]
    assert not unknown_flags(arguments, [name]), f"{name} has no such flag"
    if name in ("simclr-run", "simclr-distill"):
        config = configuration(arguments, name)
        assert config.run.model_dir, "it would be refused"
    else:
        parse(defined_flags(name), arguments, name)


def values_in_prose() -> Iterator[str]:
    """Every `--flag=value`, and every switch, of the inline code; placeholders left out."""
    switches = {n for n in flag_names("simclr-run") if f"no{n}" in flag_names("simclr-run")}
    for code in inline_code():
        for word in shlex.split(code):
            name, equals, value = word.removeprefix("--").partition("=")
            if not word.startswith("--") or name in EVERY_COMMAND_HAS or value == "NAME":
                continue
            if equals or name in switches or name.removeprefix("no") in switches:
                yield word


# What a flag of the text goes with: alone it would be refused.
GOES_WITH = {
    "head_only": ["--train_mode=finetune"],
    "cache_frozen": ["--train_mode=finetune", "--norandom_crop", "--nohorizontal_flip"],
}


def test_the_flags_with_values_in_the_text_parse_one_by_one() -> None:
    words = sorted(set(values_in_prose()))
    assert len(words) > 20
    for word in words:
        name = word.removeprefix("--").partition("=")[0]
        if name in flag_names("simclr-run"):
            configuration([*GOES_WITH.get(name, []), word])
        else:
            assert not unknown_flags([word], COMMANDS), "no command has such a flag"


def test_every_flag_that_is_named_exists() -> None:
    named = set(re.findall(r"(?<![-\w])--[a-z][\w-]*", README))
    assert len(named) > 40
    assert not unknown_flags(named, COMMANDS), "no command has such a flag"


def test_the_migration_table_names_every_quirk() -> None:
    named = set(re.findall(r"--reference_quirks=(\w+)", README))
    assert named == {*QUIRKS, "all"}


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    in_blocks = {word for words in shell_lines() if words[0] == "make" for word in words[1:]}
    in_text = {code.split()[1] for code in inline_code() if code.startswith("make ")}
    assert {"demo", "test"} <= in_blocks
    assert in_blocks | in_text <= targets


def test_extras_exist() -> None:
    named = set(re.findall(r"'\.\[(\w+)\]'", README))
    assert named
    assert named <= set(PROJECT["optional-dependencies"])


def test_links_within_the_page_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", PROSE, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


def test_files_and_folders_of_the_project_that_are_named_exist() -> None:
    for name in ("LICENSE", "tests/reference", "benchmarks", "data_prep", "simclr_tf", "finetune"):
        assert f"`{name}`" in README
        assert (ROOT / name).exists()


def test_the_numbers_of_the_quick_start_are_right() -> None:
    first = next(arguments for name, arguments in own_commands() if name == "simclr-run")
    t = configuration(first).train
    match = re.search(r"(\d+) training images make ([\d,]+) steps", README)
    assert match
    images, steps = int(match[1]), int(match[2].replace(",", ""))
    interval = checkpoint_interval(images, t.train_batch_size, t.checkpoint_epochs)
    planned = train_steps(images, t.train_batch_size, t.train_epochs)
    assert run_steps(planned, interval) == steps
    assert f"`runs/pretrain/ckpt-{steps}`" in README
    chance = 2 * math.log(2 * t.train_batch_size - 1)
    assert f"2 ln(2·{t.train_batch_size} − 1) = {chance:.1f}" in README


def quick_start() -> dict[str, list[str]]:
    """The arguments of the two commands of the quick start, by mode."""
    pair = [arguments for name, arguments in own_commands() if name == "simclr-run"][:2]
    return {configuration(arguments).train.train_mode: arguments for arguments in pair}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which both commands of the quick start have run, smaller than written."""
    place = tmp_path_factory.mktemp("readme")
    make_folder(place / "images", per_class=16, channels=1, size=40)
    commands = quick_start()
    assert list(commands) == ["pretrain", "finetune"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for arguments in commands.values():
            values = defined_flags("simclr-run")
            parse(values, [*arguments, *TINY], "simclr-run")
            assert run(values) == 0
    return place


@pytest.mark.slow
@pytest.mark.parametrize("run_name", ["pretrain", "finetune"])
def test_a_run_holds_the_files_of_the_table_and_no_others(workplace: Path, run_name: str) -> None:
    model_dir = workplace / "runs" / run_name
    rows = table_below("### What a run leaves behind")
    named = [re.findall(r"`([^`]+)`", cells[0])[0] for cells in rows]
    patterns = [name.replace("SPLIT", "*").replace("N", "*") for name in named]
    for pattern in patterns:
        assert list(model_dir.glob(pattern)), pattern
    top_level = {path for pattern in patterns for path in model_dir.glob(pattern.split("/")[0])}
    assert {path.name for path in model_dir.iterdir()} == {path.name for path in top_level}


@pytest.mark.slow
def test_what_the_text_says_of_the_quick_start_is_so(workplace: Path) -> None:
    result = json.loads((workplace / "runs/finetune/result.json").read_text())
    assert result["eval_split"] == "test"
    low, value, high = (result[f"test/label_top_1_accuracy{end}"] for end in ("_low", "", "_high"))
    assert 0 <= low <= value <= high <= 1
    environment = json.loads((workplace / "runs/pretrain/environment.json").read_text())
    assert environment["class_names"] == list(CLASSES)
    splits = [(workplace / "runs" / name / "manifest.csv").read_text() for name in quick_start()]
    assert splits[0] == splits[1], "both commands train on the same images"


@pytest.mark.slow
def test_flags_txt_repeats_a_run_elsewhere(
    workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = next(code for code in inline_code() if code.startswith("--flagfile="))
    monkeypatch.chdir(workplace)
    values = configuration(shlex.split(code)).values()
    before = RunConfig.load("runs/pretrain/config.json").values()
    differing = {name for name in values if values[name] != before[name]}
    assert differing == {"model_dir"}


def test_what_the_python_of_the_docs_imports_is_there() -> None:
    found = [
        (match[1], match[2].split(", "))
        for block in blocks("python", DOCS)
        for match in re.finditer(r"^from (data_prep\S*|simclr_tf\S*|finetune\S*) import (.+)$",
                                 block, re.MULTILINE)
    ]  # fmt: skip
    assert found
    for module, names in found:
        for name in names:
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


@pytest.mark.slow
def test_the_python_of_the_readme_runs(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(workplace, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    images, features = names["images"], names["features"]
    assert images.shape == (48, 32, 32, 1)
    assert features.shape == (48, names["encoder"].feature_dim)
    assert names["probabilities"].shape == (48, 3)
    np.testing.assert_allclose(np.sum(names["probabilities"], axis=1), 1, atol=1e-5)
    assert len(names["history"].history["loss"]) == 3
    # The fine-tuned run's own predictions, from the same images.
    with open("runs/finetune/predictions_test.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    place = {path.as_posix().removeprefix("images/"): i for i, path in enumerate(names["paths"])}
    mine = np.array([names["probabilities"][place[row["path"]]] for row in rows])
    theirs = np.array([[float(row[f"score_{name}"]) for name in CLASSES] for row in rows])
    np.testing.assert_allclose(mine, theirs, atol=1e-5)
