"""The committed notebooks are what their sources give, and begin as every notebook here does."""

import ast
import importlib.util
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

import simclr_tf as st
from tests.notebooks.executed import NOTEBOOKS

NAMES = ("start_here", "a_drill_core", "b_stem_lattices", "c_lenses", "d_rheed", "e_depth")
PUBLIC = re.compile(r"st\.\w+")
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
@pytest.mark.parametrize(
    ("on_colab", "given", "installed", "asked", "told"),
    [
        (False, "", False, "", False),
        (False, "own.whl", False, "", False),
        (True, "", True, "simclr-tf", False),
        (True, "own.whl", True, "own.whl", False),
        (True, "", False, "simclr-tf", True),
    ],
)
def test_the_first_cell_installs_the_package_on_colab_alone(
    name: str, on_colab: bool, given: str, installed: bool, asked: str, told: bool,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """From what `SIMCLR_TF_INSTALL` names, else from the index; where neither is, it says so."""
    namespace: dict[str, object] = {}
    lines: list[str] = []

    class FakeIPython:
        def run_line_magic(self, magic: str, line: str) -> None:
            # IPython fills in variables of the notebook as str.format does.
            lines.append(f"{magic} {line.format(**namespace)}")

    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    if on_colab:
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setenv("SIMCLR_TF_INSTALL", given)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda wanted: (wanted == "simclr_tf" and installed) or None
    )
    namespace["get_ipython"] = FakeIPython
    exec(TransformerManager().transform_cell(code_cells(name)[0].source), namespace)
    assert lines == ([f'pip install --quiet "{asked}"'] if asked else [])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == told
    assert all("set SIMCLR_TF_INSTALL to" in line for line in said)


@each
def test_the_second_cell_holds_the_settings_and_keeps_those_that_are_set(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = code_cells(name)[1]
    assert cell.metadata.tags == ["parameters"]
    monkeypatch.setattr("os.environ", {"SIZE": "33", "WORK": f"{tmp_path}/w"})
    monkeypatch.chdir(tmp_path)
    settings: dict[str, object] = {}
    exec(cell.source, settings)
    environ = settings["os"].environ  # type: ignore[attr-defined]
    assert environ["SIZE"] == "33"
    assert settings["SIZE"] == 33
    assert Path.cwd() == tmp_path / "w", "everything is written to the working folder"
    assert environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    assert str(tmp_path) in capsys.readouterr().out


@each
def test_every_cell_is_python_and_calls_what_there_is(name: str) -> None:
    """No shell: a function of `import simclr_tf` in the notebook's own process instead."""
    called = set()
    first, *cells = code_cells(name)
    for cell in cells:
        magics = {line for line in cell.source.splitlines() if line.lstrip().startswith(("%", "!"))}
        assert magics <= {"%matplotlib inline"}
        tree = ast.parse("\n".join(x for x in cell.source.splitlines() if x not in magics))
        imported = {
            alias.name for node in ast.walk(tree) if isinstance(node, ast.Import)
            for alias in node.names
        }  # fmt: skip
        assert not imported & {"subprocess", "shlex"}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and PUBLIC.fullmatch(ast.unparse(node.func)):
                function = getattr(st, ast.unparse(node.func).removeprefix("st."))
                called.add(function.__name__)
                keywords = {k.arg for k in node.keywords if k.arg}
                parameters = inspect.signature(function).parameters
                if hasattr(function, "verb"):
                    assert keywords <= set(parameters), function.__name__
    assert "!" not in first.source
    assert len(called) >= 3, called
