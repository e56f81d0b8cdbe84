"""Commands made of declared settings: flags, positions, files of settings, both of two names."""

import tomllib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from data_prep.cli.command import Command
from data_prep.errors import UserError, setting_renamed
from data_prep.settings import Config, preset_values, read_toml, setting


@dataclass(frozen=True)
class Places:
    """Places."""

    images: str = setting("", "Folder of images.")
    output: str = setting("", "Folder to write to.", required=True, also="out")


@dataclass(frozen=True)
class Numbers:
    """Numbers."""

    batch: int = setting(8, "Images of a batch.", low=1, also="batch_size")
    rate: float = setting(0.5, "Rate.", low=0, high=1)
    limit: int | None = setting(None, "Most images.")
    shares: tuple[float, ...] = setting((0.1, 1.0), "Shares.", low=0, high=1)
    names: tuple[str, ...] = setting((), "Names.")
    merge: tuple[str, ...] = setting((), "NEW:A,B; may be given again.", repeated=True)
    flip: bool = setting(True, "Mirror.", only="mode=eval")
    mode: Literal["train", "eval"] = setting("train", "What to do.")


@dataclass(frozen=True)
class Thing(Config):
    """All settings of a command."""

    places: Places = field(default_factory=Places)
    numbers: Numbers = field(default_factory=Numbers)


seen: list[tuple[Thing, Collection[str]]] = []


def run(config: Thing, given: Collection[str]) -> int:
    seen.append((config, given))
    return 0


COMMAND = Command(
    "simclr-thing",
    "Does the thing.",
    Thing,
    run,
    presets={"small": {"batch": 2, "rate": 0.25}},
    preset_help="Settings of a work.",
    basics=("images", "output", "batch"),
    positional=("images", "output"),
    chosen=("rate",),
)


def test_every_kind_of_setting_arrives_as_it_was_given() -> None:
    config, given = COMMAND.parsed(
        ["--output=o", "--batch=4", "--rate=0.25", "--limit=7", "--shares=0.5,0.75", "--names=a,b",
         "--merge=x:a,b", "--merge=y:c", "--noflip", "--mode=eval"]
    )  # fmt: skip
    assert config.numbers == Numbers(
        4, 0.25, 7, (0.5, 0.75), ("a", "b"), ("x:a,b", "y:c"), False, "eval"
    )
    assert given == set(config.values()) - {"images"}


def test_the_flags_of_a_configuration_are_read_as_the_same_configuration() -> None:
    line = [
        "--output=o",
        "--rate=0.3",
        "--shares=0.1,1",
        "--merge=x:a,b",
        "--merge=y:c",
        "--noflip",
    ]
    config, given = COMMAND.parsed(line)
    assert config.flags(given) == line
    assert COMMAND.parsed(config.flags(given)) == (config, given)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--output=o", "--batch=0"], 2, "--batch=0: must be at least 1"),
        (["--output=o", "--batch_size=0"], 2, "--batch_size=0: must be at least 1"),
        (["--output=o", "--rate=2"], 2, "--rate=2.0: must be at most 1"),
        (["--output=o", "--shares=0.5,2"], 2, "--shares=0.5,2: must be at most 1"),
        (["--output=o", "--shares=a"], 2, "--shares=a: give numbers, such as 0.1,1"),
        (["--output=o", "--mode=tran"], 2, "did you mean train?"),
        (["images"], 2, "--output is missing: it must be given"),
        (["images", "o", "more"], 2, "unexpected argument 'more'"),
        (["--output=o", "--out=p"], 1, "--out=p and --output=o are the same setting"),
        (["--output=o", "--preset=smal"], 2, "--preset=smal: must be one of small"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert COMMAND.main(arguments) == code
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_places_are_given_by_position_among_flags() -> None:
    expected = COMMAND.parsed(["--images=i", "--output=o", "--batch=3", "--noflip"])
    for line in (
        ["i", "o", "--batch=3", "--noflip"],
        ["--batch", "3", "i", "--noflip", "o"],
        ["--noflip", "i", "--output=o", "--batch=3"],
    ):
        assert COMMAND.parsed(line) == expected


def test_either_name_of_a_setting_counts() -> None:
    config, given = COMMAND.parsed(["--out=o", "--batch_size=3"])
    assert (config.places.output, config.numbers.batch) == ("o", 3)
    assert given == {"output", "batch"}
    assert COMMAND.parsed(["--output=o", "--batch=3", "--batch_size=3"])[0] == config


def test_flags_win_over_a_file_and_a_file_over_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('preset = "small"\n[numbers]\nrate = 0.75\nnames = ["x", "é \\"q\\""]\n')
    config, given = COMMAND.parsed(["i", "o", f"--config={file}", "--names=z"])
    assert (config.numbers.batch, config.numbers.rate, config.numbers.names) == (2, 0.75, ("z",))
    assert {"batch", "rate", "names"} <= given


def test_settings_written_as_toml_repeat_the_command(tmp_path: Path) -> None:
    config, _ = COMMAND.parsed(
        [
            'i/é "x"',
            "o\\p",
            "--limit=3",
            "--rate=1e-05",
            "--shares=0.1",
            "--merge=x:a,b",
            "--noflip",
        ]
    )
    file = tmp_path / "settings.toml"
    file.write_text(config.to_toml(config.values()))
    assert tomllib.loads(file.read_text())["numbers"]["rate"] == 1e-05
    assert COMMAND.parsed([f"--config={file}"])[0] == config


def test_a_flag_wins_over_a_file_that_uses_the_other_name(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("batch_size = 4\nout = 'there'\n")
    config, given = COMMAND.parsed([f"--config={file}"])
    assert (config.numbers.batch, config.places.output) == (4, "there")
    assert given == {"batch", "output"}
    for flags in (["--batch=6", "--output=o"], ["--batch_size=6", "--out=o"]):
        config, given = COMMAND.parsed([f"--config={file}", *flags])
        assert (config.numbers.batch, config.places.output) == (6, "o")
    with pytest.raises(UserError, match=r"^--batch_size=4 and --batch=2 are the same setting"):
        Thing.from_values({"batch_size": 4, "batch": 2, "output": "o"})


def test_a_file_may_give_what_must_be_given(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Needed:
        """Needed."""

        target: str = setting("", "Where to.", required=True)

    @dataclass(frozen=True)
    class Needy(Config):
        """All settings."""

        needed: Needed = field(default_factory=Needed)

    command = Command("simclr-needy", "Needs it.", Needy, run)
    file = tmp_path / "settings.toml"
    file.write_text("target = 'here'\n")
    assert command.parsed([f"--config={file}"])[0].needed.target == "here"
    file.write_text("")
    for line in ([], [f"--config={file}"]):
        with pytest.raises(UserError, match=r"^--target is missing: it must be given$"):
            command.parsed(line)


@pytest.mark.parametrize(
    ("content", "said"),
    [("batch = ", "is no TOML"), ("[a]\nbatch = 1\n[b]\nbatch = 2", "names batch twice"),
     ("bach = 1", "unknown setting 'bach'; did you mean batch?"),
     ('batch = "8"', "--batch='8': give a value of kind int")],
)  # fmt: skip
def test_files_of_settings_that_cannot_be_used(content: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(content)
    with pytest.raises(UserError, match=said.replace("?", r"\?")):
        COMMAND.parsed(["--output=o", f"--config={file}"])
    with pytest.raises(UserError, match="No such file"):
        read_toml(tmp_path / "other.toml")


def test_help_shows_what_matters_and_helpfull_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert COMMAND.main(["--help"]) == 0
    short = capsys.readouterr().out
    assert "Usage: simclr-thing IMAGES OUTPUT --flag=value" in short
    assert "--batch=N" in short
    assert "--rate" not in short
    assert "--helpfull lists 11 more flags" in short
    assert COMMAND.main(["--helpfull"]) == 0
    whole = capsys.readouterr().out
    assert all(f"--{s.name}" in whole or f"--[no]{s.name}" in whole for s in Thing.settings())
    assert "Rate. (default: suits images and machine)" in whole
    assert COMMAND.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("simclr-tf ")


def test_an_error_names_the_setting_that_the_caller_gave() -> None:
    def opened(checkpoint: str) -> None:
        raise UserError("no such file", setting="checkpoint", value=checkpoint)

    with (
        pytest.raises(UserError, match=r"^--encoder=x: no such file$"),
        setting_renamed(checkpoint="encoder"),
    ):
        opened("x")
    assert str(UserError("is missing: give it", setting="model")) == "--model is missing: give it"
    assert str(UserError("not here", setting="flip", value=False)) == "--noflip: not here"
    assert str(UserError("too few", setting="names", value=("a", "b"))) == "--names=a,b: too few"


def test_a_preset_that_is_not_there() -> None:
    assert preset_values("", {"a": {}}) == {}
    with pytest.raises(UserError, match=r"--preset=smal: there are small; did you mean small\?"):
        preset_values("smal", COMMAND.presets)


def test_a_setting_that_takes_no_effect_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert COMMAND.main(["--output=o", "--noflip"]) == 0
    assert "--noflip has no effect: it is for --mode=eval" in capsys.readouterr().err
    for line in (["--output=o", "--noflip", "--mode=eval"], ["--output=o", "--flip"]):
        assert COMMAND.main(line) == 0
        assert "no effect" not in capsys.readouterr().err
