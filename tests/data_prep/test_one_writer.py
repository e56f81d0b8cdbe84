"""Files get their names, and tables their form, in one place alone."""

import ast
from pathlib import Path

import pytest

from tests.docs import ROOT

# Module -> what it alone may call.
OWNERS = {
    "data_prep/storage.py": {"replace", "rename", "mkstemp", "NamedTemporaryFile", "move"},
    "data_prep/csv_files.py": {"writer", "DictWriter"},
}
MODULES = ("os", "shutil", "tempfile", "csv")
FILES = [p for part in ("data_prep", "simclr_tf", "finetune") for p in (ROOT / part).rglob("*.py")]


def forbidden_calls(file: Path) -> list[str]:
    """Calls in a file that only one module may make, as MODULE.FUNCTION, or .rename of a path."""
    name = str(file.relative_to(ROOT))
    forbidden = set().union(*(calls for owner, calls in OWNERS.items() if owner != name))
    found = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner = node.func.value.id if isinstance(node.func.value, ast.Name) else ""
            if node.func.attr in forbidden and (owner in MODULES or node.func.attr == "rename"):
                found.append(f"{name}:{node.lineno} {owner}.{node.func.attr}")
    return found


def test_only_storage_gives_names_and_only_csv_files_writes_tables() -> None:
    assert [call for file in FILES for call in forbidden_calls(file)] == []


def test_the_look_finds_what_it_looks_for() -> None:
    assert forbidden_calls(ROOT / "data_prep" / "storage.py") == []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OWNERS, "data_prep/storage.py", set())
        patch.setitem(OWNERS, "elsewhere.py", {"replace"})
        assert any("os.replace" in call for call in forbidden_calls(ROOT / "data_prep/storage.py"))
