"""What README and the pages of docs promise: commands parse, links lead somewhere, facts agree.

`test_readme_runs.py` runs the commands of the README.
"""

import importlib
import math
import re
import shlex
from collections.abc import Iterable, Iterator
from functools import cache

import pytest
import yaml

from data_prep.cli.app import parse
from simclr_tf.config.run_config import QUIRKS, RunConfig
from simclr_tf.optim.schedules import checkpoint_interval, run_steps, train_steps
from tests.docs import (
    COMMANDS,
    PAGES,
    PROJECT,
    ROOT,
    anchors,
    blocks,
    defined_flags,
    inline_code,
    own_command,
    own_commands,
    shell_lines,
    table_below,
    text_of,
)

README = text_of("README.md")
COMING = text_of("docs/coming_from.md")
# Its commands need its modules; test_extend.py runs every one of them.
FOLLOWED = "docs/extend.md"
EVERY_COMMAND_HAS = {"help", "helpfull", "version", "flagfile"}
# Commands that hand what follows two dashes on to another one.
HANDED_ON = {"simclr-folds": "simclr-finetune", "simclr-sweep": "simclr-run"}
# What stands in a page beside flags of this package.
OF_OTHER_PROGRAMS = {
    "benchmarks/methods.md": {"--output", "--image_dir"},
    "docs/data.md": {"--images"},
    "docs/embed.md": {"--logdir"},
}


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
    module = importlib.import_module(COMMANDS[command].partition(":")[0])
    config: RunConfig = module.COMMAND.parsed(arguments)[0]
    return config


def check_command(name: str, arguments: list[str]) -> None:
    """Parses a command, and checks what its settings say together."""
    if "--" in arguments:
        cut = arguments.index("--")
        assert not unknown_flags(arguments[cut + 1 :], [HANDED_ON[name]])
        arguments = arguments[:cut]
    assert not unknown_flags(arguments, [name]), f"{name} has no such flag"
    if name in ("simclr-run", "simclr-distill"):
        assert configuration(arguments, name).run.model_dir, "it would be refused"
    else:
        module = importlib.import_module(COMMANDS[name].partition(":")[0])
        parse(defined_flags(name), arguments, name, module.COMMAND.positional)


COMMAND_LINES = [
    pytest.param(name, arguments, id=f"{page}-{i}-{name}")
    for page in PAGES
    if page != FOLLOWED
    for i, (name, arguments) in enumerate(own_commands(text_of(page)))
]


@pytest.mark.parametrize("page", PAGES)
def test_every_shell_line_is_of_a_kind_that_is_checked_here(page: str) -> None:
    for words in shell_lines(text_of(page)):
        head = next(word for word in words if not re.match(r"[A-Z_]+=", word))
        assert head in {*COMMANDS, "simclr", "make", "pip"}, " ".join(words)


@pytest.mark.parametrize(("name", "arguments"), COMMAND_LINES)
def test_the_commands_of_the_bash_blocks_parse(name: str, arguments: list[str]) -> None:
    check_command(name, arguments)


def old_and_new() -> Iterator[tuple[str, str, str]]:
    """Every row of the tables "old, new", and the command that bare flags of "new" belong to."""
    for heading in re.findall(r"^## From .*$", COMING, re.MULTILINE):
        head, *rows = table_below(heading, COMING)
        command = re.search(r"`(simclr-[\w-]+)`", head[1])
        for old, new in rows:
            yield old, new, command[1] if command else "simclr-run"
    for old, new in table_below("## Coming from another program", README)[1:]:
        yield old, new.replace(" ...", " --model_dir=runs"), "simclr-run"


def test_every_new_line_for_an_old_one_is_a_command_or_flags_of_one() -> None:
    seen = 0
    for _, new, command in old_and_new():
        for code in re.findall(r"`([^`]+)`", new):
            words = shlex.split(code)
            if code.startswith("--") and "NAME" not in code:
                needs = ["--model_dir=runs"] if command == "simclr-run" else []
                check_command(command, [*needs, *words])
                seen += 1
            name, arguments = own_command(words)
            if len(words) > 1 and name:
                check_command(name, arguments)
                seen += 1
    assert seen > 80


def test_old_lines_of_run_py_and_of_the_drill_core_code_still_run_but_for_one_flag() -> None:
    old = [code for line, _, _ in old_and_new() for code in re.findall(r"`([^`]+)`", line)]
    scripts = [code for code in old if re.match(r"python \S*run(_finetune)?\.py --", code)]
    assert len(scripts) >= 4
    for code in scripts:
        words = [w for w in shlex.split(code)[2:] if not w.startswith("--variable_schema=")]
        words = [w for w in words if w != "..."]
        assert not unknown_flags(words, ["simclr-run"]), code
        configuration(words)


def values_in_prose(page: str) -> Iterator[str]:
    """Every `--flag=value`, and every switch, of the inline code; placeholders left out."""
    switches = {n for n in flag_names("simclr-run") if f"no{n}" in flag_names("simclr-run")}
    for code in inline_code(text_of(page)):
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


@pytest.mark.parametrize("page", ["README.md", "docs/pretrain.md", "docs/checkpoints.md"])
def test_the_flags_with_values_in_the_text_parse_one_by_one(page: str) -> None:
    words = sorted(set(values_in_prose(page)))
    assert words
    for word in words:
        name = word.removeprefix("--").partition("=")[0]
        if name in flag_names("simclr-run") - {"config"}:  # a file, which is not here
            configuration([*GOES_WITH.get(name, []), word])
        else:
            assert not unknown_flags([word], COMMANDS), "no command has such a flag"


@pytest.mark.parametrize("page", PAGES)
def test_every_flag_that_is_named_exists(page: str) -> None:
    text = text_of(page)
    if page == "docs/coming_from.md":  # of its tables, what is new
        for old, _, _ in old_and_new():
            text = text.replace(f"| {old} |", "|", 1)
    named = set(re.findall(r"(?<![-\w])--[a-z][\w-]*", text)) - OF_OTHER_PROGRAMS.get(page, set())
    assert not unknown_flags(named, COMMANDS), "no command has such a flag"


def test_the_migration_table_names_every_quirk() -> None:
    named = set(re.findall(r"--reference_quirks=(\w+)", COMING))
    assert named == {*QUIRKS, "all"}


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    in_blocks = {word for words in shell_lines(README) if words[0] == "make" for word in words[1:]}
    in_text = {
        code.split()[1]
        for page in PAGES
        for code in inline_code(text_of(page))
        if code.startswith("make ")
    }
    assert {"demo", "test"} <= in_blocks
    assert in_blocks | in_text <= targets


def test_extras_exist() -> None:
    named = {
        extra
        for page in PAGES
        for extra in re.findall(r"(?:'\.|simclr-tf)\[(\w+)\]", text_of(page))
    }
    assert {"gpu", "dev", "science"} <= named
    assert named <= set(PROJECT["optional-dependencies"])


def test_the_table_of_commands_names_every_command() -> None:
    rows = table_below("## The commands", README)[1:]
    named = [row[0].strip("`").replace("simclr ", "simclr-") for row in rows]
    assert sorted(named) == sorted(COMMANDS)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings_that_exist(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / page).parent / file if file else ROOT / page
        assert path.exists(), target
        assert path.resolve().is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(path.read_text(encoding="utf-8")), target


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\((docs/\w+\.md)", README))
    assert linked == {page for page in PAGES if page.startswith("docs/")}


def test_files_and_folders_of_the_project_that_are_named_exist() -> None:
    named = {
        code
        for page in PAGES
        for code in inline_code(text_of(page))
        if re.fullmatch(r"(tests|benchmarks|data_prep|simclr_tf|finetune)(/\w+)*(\.py|\.md)?", code)
    }
    named |= {
        code.split()[1]
        for page in PAGES
        for code in inline_code(text_of(page))
        if code.startswith("python benchmarks/")
    }
    assert len(named) >= 8
    for name in (*named, "LICENSE"):
        assert (ROOT / name).exists(), name


def test_the_numbers_of_the_quick_start_are_right() -> None:
    first = next(arguments for name, arguments in own_commands(README) if name == "simclr-run")
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


def test_what_the_python_of_the_docs_imports_is_there() -> None:
    found = [
        (match[1], match[2].split(", "))
        for page in PAGES
        for block in blocks("python", text_of(page))
        for match in re.finditer(r"^from (data_prep\S*|simclr_tf\S*|finetune\S*) import (.+)$",
                                 block, re.MULTILINE)
    ]  # fmt: skip
    assert found
    for module, names in found:
        for name in names:
            assert hasattr(importlib.import_module(module), name), f"{module}.{name}"


def test_the_citation_file_agrees_with_the_package_and_cites_what_the_readme_cites() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors", "type"} <= set(cited)
    assert cited["cff-version"] == "1.2.0"
    assert cited["title"] == PROJECT["name"]
    assert cited["version"] == PROJECT["version"]
    assert cited["license"] == PROJECT["license"]
    assert cited["authors"] == PROJECT["authors"]
    assert cited["keywords"] == PROJECT["keywords"]
    for reference in cited["references"]:
        assert {"type", "title", "authors", "year", "doi"} <= set(reference)
        assert all({"family-names", "given-names"} == set(who) for who in reference["authors"])
    identifiers = {r["doi"].removeprefix("10.48550/arXiv.") for r in cited["references"]}
    section = README.split("## Citations\n", 1)[1].split("\n## ", 1)[0]
    in_readme = set(re.findall(r"arXiv:([\d.]+\d)|doi:([^\s;,]+)", section))
    assert {arxiv or doi for arxiv, doi in in_readme} == identifiers
