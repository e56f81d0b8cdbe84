"""Opens `.keras` files that others may have written."""

import os

import keras

from data_prep.errors import UserError


def open_keras_file(path: str | os.PathLike[str]) -> keras.Model:
    """Reads a `.keras` file; code that it holds (Lambda layers) is never run.

    Args:
        path: The file.

    Returns:
        The model, not compiled.

    Raises:
        UserError: In one line, without the flag: it cannot be read, or holds code.
    """
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, OSError, TypeError, KeyError) as error:
        text = str(error)
        if "safe_mode" in text or "unsafe" in text:
            why = "it holds code of its own (such as a Lambda layer), which is never run"
        else:
            why = text.splitlines()[0] if text else type(error).__name__
        raise UserError(f"cannot be read: {why}") from None
