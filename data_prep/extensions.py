"""Loading of users' modules that add a method, a backbone or a file format: docs/extend.md."""

import importlib
import logging
import os
import sys

from data_prep.errors import UserError

log = logging.getLogger(__name__)

VARIABLE = "SIMCLR_TF_EXTENSIONS"
# Modules of version 0.1 that docs/extend.md named, and where their contents are now.
_FORMER = {
    "data_prep.formats": "data_prep.reading.formats",
    "data_prep.formats.arrays": "data_prep.reading.formats.arrays",
    "data_prep.formats.source": "data_prep.reading.formats.source",
    "simclr_tf.architectures": "simclr_tf.models.architectures",
    "simclr_tf.losses.gathering": "simclr_tf.losses.replicas",
    "simclr_tf.methods.pairs": "simclr_tf.methods.base",
    "simclr_tf.methods.pretraining": "simclr_tf.methods.base",
    "simclr_tf.methods.probe": "simclr_tf.methods.base",
    "simclr_tf.models.backbones": "simclr_tf.models.registry",
    "simclr_tf.models.staged": "simclr_tf.models.backbone",
}


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
            _import(name)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
            raise UserError(
                f"{VARIABLE}={os.environ[VARIABLE]}: there is no module {name} in the working "
                "directory or on PYTHONPATH"
            ) from None


def _import(name: str) -> None:
    """Imports an extension, also one that was written for version 0.1."""
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in _FORMER:
            raise
        log.warning("%s imports %s, which is %s now", name, error.name, _FORMER[error.name])
        for former, new in _FORMER.items():
            sys.modules[former] = importlib.import_module(new)
        importlib.import_module(name)
