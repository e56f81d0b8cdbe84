"""The committed notebooks are what their sources give, and begin as every notebook here does."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

from tests.notebooks.executed import NOTEBOOKS

NAMES = ("start_here", "a_drill_core", "b_stem_lattices", "c_lenses", "d_rheed", "e_depth")
each = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", NOTEBOOKS / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_cells(name: str) -> list[nbformat.NotebookNode]:
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_is_a_notebook_for_each_workflow_and_one_from_zero(generator: ModuleType) -> None:
    assert sorted(path.stem for path in generator.sources()) == sorted(NAMES)
    assert sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")) == sorted(NAMES)


@each
def test_a_notebook_is_what_its_source_gives(name: str, generator: ModuleType) -> None:
    made = generator.generate(NOTEBOOKS / f"{name}.py")
    assert made == generator.generate(NOTEBOOKS / f"{name}.py")
    committed = (NOTEBOOKS / f"{name}.ipynb").read_text(encoding="utf-8")
    assert made == committed, "run `make notebooks`"


def test_a_cell_keeps_its_name_when_others_come_and_go(
    tmp_path: Path, generator: ModuleType
) -> None:
    ids = []
    for text in ("# %%\na = 1\n\n# %%\na = 1\n", "# %%\nb = 2\n\n# %%\na = 1\n"):
        (tmp_path / "source.py").write_text(text)
        notebook = nbformat.reads(generator.generate(tmp_path / "source.py"), as_version=4)
        ids.append([cell.id for cell in notebook.cells])
    assert ids[0][0] == ids[1][1], "the same content, the same name"
    assert len({*ids[0], ids[1][0]}) == 3, "names of one notebook differ"


@each
@pytest.mark.parametrize("on_colab", [True, False])
def test_the_first_cell_installs_the_package_on_colab_alone(
    name: str, on_colab: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str]] = []

    class FakeIPython:
        def run_line_magic(self, magic: str, line: str) -> None:
            asked.append((magic, line))

    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    if on_colab:
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    cell = TransformerManager().transform_cell(code_cells(name)[0].source)
    exec(cell, {"get_ipython": FakeIPython})
    assert asked == ([("pip", "install --quiet simclr-tf")] if on_colab else [])


@each
def test_the_second_cell_holds_the_settings_and_keeps_those_that_are_set(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = code_cells(name)[1]
    assert cell.metadata.tags == ["parameters"]
    monkeypatch.setattr("os.environ", {"PATH": "/usr/bin", "SIZE": "33", "WORK": f"{tmp_path}/w"})
    monkeypatch.chdir(tmp_path)
    settings: dict[str, object] = {}
    exec(cell.source, settings)
    environ = settings["os"].environ  # type: ignore[attr-defined]
    assert environ["SIZE"] == "33"
    assert Path.cwd() == tmp_path / "w", "commands run in the working folder"
    assert environ["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert str(tmp_path) in capsys.readouterr().out


@each
def test_a_cell_of_commands_fails_with_the_first_command_that_fails(name: str) -> None:
    shells = [cell.source for cell in code_cells(name) if cell.source.startswith("%%")]
    assert len(shells) >= 3
    assert all(source.startswith("%%bash -e\n") for source in shells)
    assert not any(" | " in source and "pipefail" not in source for source in shells)
