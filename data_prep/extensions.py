"""Modules of one's own that add a method, a backbone or a file format: docs/extend.md."""

import importlib
import os
import sys

from data_prep.errors import UserError

VARIABLE = "SIMCLR_TF_EXTENSIONS"


def load_extensions() -> None:
    """Imports the modules that `SIMCLR_TF_EXTENSIONS` names, separated by commas.

    They are looked for in the working directory too. What they register holds for this process;
    the processes it starts inherit the variable and load them again.

    Raises:
        UserError: There is no such module.
    """
    names = [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    if not names:
        return
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for name in names:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise UserError(
                f"{VARIABLE}={os.environ[VARIABLE]}: there is no module {name} in the working "
                "directory or on PYTHONPATH"
            ) from None
