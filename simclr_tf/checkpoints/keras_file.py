"""Opening `.keras` files: whole, or refused in one line.

A `.keras` file is a zip archive with a checksum for each of its parts. Keras reads the weights
without looking at it, so that a flipped byte would change a weight and nothing would be said.
"""

import os
import zipfile
import zlib

from data_prep.errors import UserError


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
