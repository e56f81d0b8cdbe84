"""Writes every notebook (.ipynb) from its source (.py, jupytext's percent format).

`python notebooks/generate.py` writes those that differ. The same source gives the same bytes: cells
have no outputs, and their names come from their content.
"""

import hashlib
import re
from pathlib import Path

import jupytext
import nbformat

FOLDER = Path(__file__).resolve().parent

# A magic inside a block is a comment in the source, which has to be Python.
_MAGIC_IN_BLOCK = re.compile(r"^(\s+)# (%pip )", flags=re.MULTILINE)
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def sources() -> list[Path]:
    """The sources of the notebooks, by name."""
    return sorted(path for path in FOLDER.glob("*.py") if path != Path(__file__).resolve())


def generate(source: Path) -> str:
    """The notebook of a source, as the text of its .ipynb file."""
    notebook = jupytext.read(source, fmt="py:percent")
    notebook.metadata = nbformat.from_dict(_METADATA)
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        cell.source = _MAGIC_IN_BLOCK.sub(r"\1\2", cell.source)
        name = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[name] = seen.get(name, 0) + 1
        cell.id = name if seen[name] == 1 else f"{name}-{seen[name]}"
        kept = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        cell.metadata = nbformat.from_dict(kept)
    nbformat.validate(notebook)
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def main() -> None:
    """Writes the notebooks that are not what their sources give."""
    for source in sources():
        target, text = source.with_suffix(".ipynb"), generate(source)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")
            print(f"wrote {target.name}")


if __name__ == "__main__":
    main()
