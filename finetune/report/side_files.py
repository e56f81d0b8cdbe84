"""Names of the files that lie beside an output and belong to it."""

from pathlib import Path

FACTS = "classifier.json"  # in the folder of a SavedModel


def unreadable_file(output: Path) -> Path:
    """Where the files that could not be read are listed, beside a table of predictions."""
    return output.with_name(f"{output.stem}.unreadable.csv")


def facts_file(output: Path, *, folder: bool) -> Path:
    """Where class names and the way to prepare images are said, of an exported model.

    Args:
        output: The model.
        folder: Whether it is a folder, in which the file lies then.
    """
    return output / FACTS if folder else output.with_name(f"{output.name}.json")
