"""`simclr VERB`: every command by one name, help that searches, completion."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from finetune.cli import simclr
from tests.docs import PROJECT


def said(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    assert simclr.main(arguments) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_every_script_is_a_verb_and_every_verb_shares_its_command() -> None:
    scripts = {n.removeprefix("simclr-"): target for n, target in PROJECT["scripts"].items()}
    assert scripts.pop("simclr") == "finetune.cli.simclr:main"
    verbs = {verb.name: f"{verb.module}:main" for verb in simclr.VERBS}
    assert scripts.items() <= verbs.items()
    assert set(verbs) - set(scripts) == {"pretrain", "doctor"}
    for verb in simclr.VERBS:
        command = verb.command()
        assert command.name == f"simclr-{verb.name}"
        known = {s.name for s in command.config_type.settings()} | {"preset"}
        assert set(command.positional) | set(command.basics) <= known


def test_the_overview_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    overview = said([], capsys)
    assert overview == said(["--help"], capsys)
    assert all(f"  {verb.name} " in overview for verb in simclr.VERBS)
    assert max(map(len, overview.splitlines())) <= 80


def test_a_word_is_looked_for_in_names_and_meanings(capsys: pytest.CaptureFixture[str]) -> None:
    found = said(["help", "crop"], capsys)
    assert found.startswith("--")
    assert "crop" in found.splitlines()[0]
    assert "--min_crop_area  (" in found
    assert "--eval_crops" in found
    assert "no flag speaks of wurst" in said(["help", "wurst"], capsys, 2)
    assert "Usage: simclr-split" in said(["help", "split"], capsys)


def test_a_misspelt_verb_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean pretrain?" in said(["pretrian"], capsys, 2)
    assert "did you mean finetune?" in said(["simclr-finetun"], capsys, 2)


def test_shells_complete_verbs_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert {"pretrain", "split", "help"} <= set(said(["complete-words"], capsys).split())
    flags = said(["complete-words", "split"], capsys).split()
    assert {"--ratios=", "--resplit"} <= set(flags)
    for shell in ("bash", "zsh", "fish"):
        assert "simclr complete-words" in said(["completion", shell], capsys)
    assert "say for which shell" in said(["completion", "cmd"], capsys, 2)


def test_bash_completes_a_flag(tmp_path: Path) -> None:
    script = tmp_path / "complete.sh"
    simclr_command = f'simclr() {{ "{sys.executable}" -m finetune.cli.simclr "$@"; }}\n'
    script.write_text(
        simclr_command
        + simclr._SHELLS["bash"]
        + "\nCOMP_WORDS=(simclr split --rat) COMP_CWORD=2\n_simclr\necho ${COMPREPLY[@]}\n"
    )
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "--ratios="


def test_it_starts_without_tensorflow_and_at_once() -> None:
    program = (
        "import sys; from finetune.cli.simclr import main; main(['--help']);"
        " sys.exit(bool({'tensorflow', 'keras', 'numpy'} & set(sys.modules)))"
    )
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0
    assert time.perf_counter() - began < 5


def test_a_csv_in_the_place_of_images_is_a_manifest() -> None:
    command = next(verb for verb in simclr.VERBS if verb.name == "split").command()
    by_position = command.parsed(["images.csv", "out.csv", "--ratios=train:1"])
    assert by_position == command.parsed(
        ["--manifest=images.csv", "--output=out.csv", "--ratios=train:1"]
    )
