"""Opens `.keras` files that others may have written: whole, without their code, or not at all.

A `.keras` file is a zip archive with a checksum for each of its parts. Keras reads the weights
without looking at it, so that a flipped byte would change a weight and nothing would be said.
"""

import os
import zipfile
import zlib

import keras

from data_prep.errors import UserError


def open_keras_file(path: str | os.PathLike[str]) -> keras.Model:
    """Reads a `.keras` file; code that it holds (Lambda layers) is never run.

    Args:
        path: The file.

    Returns:
        The model, not compiled.

    Raises:
        UserError: In one line that names the file: it is missing or damaged, cannot be read, or
            holds code.
    """
    check_keras_file(path)
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, TypeError, KeyError) as error:
        text = str(error)
        if "safe_mode" in text or "unsafe" in text:
            why = "it holds code of its own (such as a Lambda layer), which is never run"
        else:
            why = text.splitlines()[0] if text else type(error).__name__
        raise UserError(f"{path} cannot be read: {why}") from None


def check_keras_file(path: str | os.PathLike[str]) -> None:
    """Checks the checksum of every part of a `.keras` file.

    Raises:
        UserError: It is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{path} is damaged: {error}") from None
    if broken:
        raise UserError(f"{path} is damaged: the checksum of {broken} in it is wrong")
