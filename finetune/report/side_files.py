"""Names of the files that lie beside an output and belong to it."""

from pathlib import Path

FACTS = "classifier.json"  # in the folder of a SavedModel


def unreadable_file(output: Path) -> Path:
    """The path of the list of unreadable files, beside a table of predictions."""
    return output.with_name(f"{output.stem}.unreadable.csv")


def facts_file(output: Path, *, folder: bool) -> Path:
    """The path of the file with class names and preparation of images of an exported model.

    Args:
        output: The model.
        folder: Whether it is a folder, in which the file lies then.
    """
    return output / FACTS if folder else output.with_name(f"{output.name}.json")
