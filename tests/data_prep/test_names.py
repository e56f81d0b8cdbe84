import unicodedata
from pathlib import Path

import pytest

from data_prep.names import (
    DiskNames,
    clean_name,
    look_alikes,
    match_name,
    missing_names,
    name_problems,
)

KOREAN = "석영"
DECOMPOSED = unicodedata.normalize("NFD", KOREAN)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (DECOMPOSED, KOREAN),
        (unicodedata.normalize("NFD", "Grünstein"), "Grünstein"),
        (" quartz\t", "quartz"),
        ("\u00a0quartz\u2003", "quartz"),
        ("quartz\u200b", "quartz"),
        ("\ufeffquartz", "quartz"),
        ("ice\u00a0I", "ice\u00a0I"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("1.0", "1.0"),
        ("Quartz", "Quartz"),
        ("", ""),
    ],
)
def test_a_name_has_one_form(written: str, name: str) -> None:
    assert clean_name(written) == name
    assert clean_name(name) == name


@pytest.mark.parametrize(
    "names",
    [
        ("Quartz", "quartz"),
        ("1", "1.0"),
        ("01", "1"),
        ("1", "1,0"),
        ("-0.50", "-0.5"),
        ("ice I", "ice\u00a0I"),
        ("ice I", "ice  I"),
        ("qua\u200brtz", "quartz"),
        ("Сu", "Cu"),  # a Cyrillic letter
        ("Ａ１", "A1"),
        ("n-type", "n–type"),
    ],
)
def test_look_alikes_are_found(names: tuple[str, str]) -> None:
    assert look_alikes([*names, "feldspar"]) == [tuple(sorted(names))]


def test_other_names_do_not_look_alike() -> None:
    names = ["quartz", "quartzite", "1", "10", "2.0", "2.1", "-1", "1a", "석영", "a", "ä"]
    assert look_alikes(names) == []


def test_names_of_missing_values() -> None:
    assert missing_names(["NaN", "nan", "Nana", "N/A", "quartz", "none"]) == [
        "N/A", "NaN", "nan", "none",
    ]  # fmt: skip


def test_invisible_differences_are_spelled_out() -> None:
    (problem,) = name_problems(["quartz", "qua\u200brtz"])
    assert "'quartz' and 'qua\\u200brtz'" in problem
    assert "--merge" in problem


def test_a_name_is_matched_in_any_form() -> None:
    assert match_name(DECOMPOSED, ["feldspar", KOREAN]) == KOREAN
    assert match_name(KOREAN, ["feldspar", DECOMPOSED]) == DECOMPOSED
    assert match_name(KOREAN, [DECOMPOSED, KOREAN]) == KOREAN
    assert match_name("quartz", ["Quartz"]) is None


@pytest.fixture
def disk(tmp_path: Path) -> DiskNames:
    for name in (f"{DECOMPOSED}/é.png", "plain/a.png", " blank /b.png", "back\\slash.png"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return DiskNames(str(tmp_path))


@pytest.mark.parametrize(
    ("written", "found"),
    [
        (f"{KOREAN}/é.png", f"{DECOMPOSED}/é.png"),
        (f"{DECOMPOSED}/e\u0301.png", f"{DECOMPOSED}/é.png"),
        ("plain/a.png", "plain/a.png"),
        ("plain\\a.png", "plain/a.png"),
        (f"{KOREAN}\\é.png", f"{DECOMPOSED}/é.png"),
        ("./plain/a.png ", "./plain/a.png"),
        (" blank /b.png", " blank /b.png"),
        ("\u00a0blank /b.png", " blank /b.png"),
        ("back\\slash.png", "back\\slash.png"),
        ("plain/missing.png", "plain/missing.png"),
        ("plain\\missing.png", "plain/missing.png"),
        (f"{DECOMPOSED}/missing.png", f"{KOREAN}/missing.png"),
    ],
)
def test_files_are_found_as_they_are_on_disk(disk: DiskNames, written: str, found: str) -> None:
    assert disk.find(written) == found


def test_an_absolute_path_is_found_in_another_form(disk: DiskNames, tmp_path: Path) -> None:
    assert disk.find(f"{tmp_path}/{KOREAN}/é.png") == f"{tmp_path}/{DECOMPOSED}/é.png"
