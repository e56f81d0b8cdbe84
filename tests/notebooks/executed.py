"""Executes a notebook in a process of its own, and holds what came of it."""

import csv
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat

from tests.tiny import NAME

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = ROOT / "notebooks"

# Enough to go through every cell, and no more.
TINY = {"STEPS": "10", "EPOCHS": "2", "SIZE": "32", "WIDTH": "0.125", "BATCH": "8"}

# Tracing a ResNet-18 takes longer than all the steps: another where the network is not the subject.
SMALL_NETWORK = {"BACKBONE": NAME, "SIMCLR_TF_EXTENSIONS": "tests.tiny"}

# What would change what a notebook does or how its kernel draws.
_LEFT_OUT = ("SIMCLR_TF_DATA", "MPLBACKEND", "IMAGES", "NEW_IMAGES", "TF_CPP_MIN_LOG_LEVEL")


@dataclass(frozen=True)
class Executed:
    """A notebook that ran to its end.

    Attributes:
        folder: That it wrote to.
        cells: Its cells, with outputs.
    """

    folder: Path
    cells: list[nbformat.NotebookNode]

    @property
    def outputs(self) -> list[nbformat.NotebookNode]:
        return [out for cell in self.cells for out in cell.get("outputs", ())]

    @property
    def text(self) -> str:
        """What was printed."""
        return "".join(out.text for out in self.outputs if out.get("name") == "stdout")

    @property
    def complaints(self) -> str:
        """What was written to the standard error."""
        return "".join(out.text for out in self.outputs if out.get("name") == "stderr")

    @property
    def pictures(self) -> int:
        """How many pictures it shows."""
        return sum("image/png" in out.get("data", ()) for out in self.outputs)

    def number(self, pattern: str) -> float:
        """The number that is printed where the pattern's first group is."""
        found = re.search(pattern, self.text)
        assert found, f"{pattern} is not in:\n{self.text}"
        return float(found[1])

    def rows(self, name: str) -> list[dict[str, str]]:
        """The rows of a CSV that it left."""
        with (self.folder / name).open(newline="") as file:
            return list(csv.DictReader(file))


def execute(name: str, folder: Path, **settings: str) -> Executed:
    """Executes a notebook with settings from outside; everything it writes is below the folder.

    Raises:
        AssertionError: A cell failed.
    """
    kept = {key: value for key, value in os.environ.items() if key not in _LEFT_OUT}
    work, output = folder / "work", folder / f"{name}.ipynb"
    started_in = folder / "elsewhere"
    started_in.mkdir()
    places = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    run = subprocess.run(
        [
            sys.executable, "-c", _EXECUTE,
            str(NOTEBOOKS / f"{name}.ipynb"), str(output), str(started_in),
        ],
        env={**kept, "PYTHONPATH": os.pathsep.join(places), **settings, "WORK": str(work)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-4000:]
    assert not list(started_in.iterdir()), "it wrote outside its working folder"
    notebook = nbformat.read(output, as_version=4)
    assert not [out for cell in notebook.cells for out in cell.get("outputs", ())
                if out.output_type == "error"]  # fmt: skip
    done = Executed(work, notebook.cells)
    assert "cuda" not in done.complaints.lower(), done.complaints
    return done


_EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

source, target, folder = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
NotebookClient(
    notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": folder}}
).execute()
nbformat.write(notebook, target)
"""
