import json
import unicodedata
from pathlib import Path

import pytest

from data_prep.check.names import name_findings
from data_prep.cli import check as command
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.scan import LeftOut
from tests.data_prep.image_files import pixels, write

KOREAN = "석영"
DECOMPOSED = unicodedata.normalize("NFD", KOREAN)


def found(manifest: Manifest, left_out: LeftOut | None = None) -> dict[str, tuple[str, str]]:
    findings = name_findings(manifest, left_out)
    return {f.kind: (f.severity, "; ".join((f.title, *f.examples))) for f in findings}


def labeled(*labels: str) -> Manifest:
    return Manifest(tuple(Record(f"{i}.png", label) for i, label in enumerate(labels)))


def test_plain_names_give_no_finding() -> None:
    assert found(labeled("quartz", "feldspar", "quartz", "")) == {}


def test_names_that_look_alike() -> None:
    severity, text = found(labeled("Quartz", "quartz", "1", "1.0", "qua\u200brtz"))[
        "look_alike_names"
    ]
    assert severity == "warning"
    assert "2 sets of class names" in text
    assert "'1' and '1.0'" in text
    assert "'Quartz' and 'quartz' and 'qua\\u200brtz'" in text


@pytest.mark.parametrize("column", ["split", "group", "case"])
def test_other_names_that_look_alike(column: str) -> None:
    records = tuple(Record(f"{name}.png", **{column: name}) for name in ("Core1", "core1", "b"))
    assert f"1 set of {column} names" in found(Manifest(records))["look_alike_names"][1]


def test_names_of_missing_values() -> None:
    assert found(labeled("nan", "quartz"))["missing_values"][0] == "warning"


def test_folders_in_two_forms() -> None:
    records = [Record(f"{name}/a.png", KOREAN) for name in (KOREAN, DECOMPOSED)]
    severity, text = found(Manifest(tuple(records)))["name_forms"]
    assert severity == "warning"
    assert "composed and decomposed" in text
    one = found(Manifest((records[1],)))
    assert set(one) == {"odd_names"}
    assert one["odd_names"][0] == "note"


def test_file_names_that_differ_by_case_alone() -> None:
    manifest = Manifest((Record("a/X.png", "a"), Record("a/x.png", "a"), Record("b/x.png", "b")))
    assert "'a/X.png' and 'a/x.png'" in found(manifest)["file_names"][1]


def test_what_was_left_out() -> None:
    left_out = LeftOut(
        others=("c/1.jp2", "c/2.jp2", "a/1.heic", "a/notes.txt"),
        hidden=(".cache",),
        rubbish=("@eaDir",),
        empty=("c", "d"),
    )
    findings = found(labeled("a", "b"), left_out)
    assert {kind: severity for kind, (severity, _) in findings.items()} == {
        "class_left_out": "serious",
        "empty_folder": "warning",
        "not_read": "warning",
        "no_image": "note",
        "hidden": "note",
        "rubbish": "note",
    }
    assert "c: 2 .jp2" in findings["class_left_out"][1]
    assert "a/1.heic" in findings["not_read"][1]


def check(*arguments: str) -> int:
    return command.main(arguments)


def test_command_fails_for_a_class_that_vanishes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place, name in enumerate(("a", "b", "@eaDir")):
        for number in range(12):
            write(tmp_path / "in" / name / f"{number}.png", pixels(20 * place + number, 40, 40))
    (tmp_path / "in/c").mkdir()
    (tmp_path / "in/c/x.jp2").write_bytes(b"x")
    assert check(f"--image_dir={tmp_path / 'in'}", f"--output={tmp_path / 'out'}") == 3
    assert "serious: 1 folder left out" in capsys.readouterr().out
    facts = json.loads((tmp_path / "out/check.json").read_text())
    assert set(facts["classes"]) == {"a", "b"}
    assert {"class_left_out", "rubbish"} <= {finding["kind"] for finding in facts["findings"]}
