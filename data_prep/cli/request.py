"""A hash of what a command was asked for, by which it recognises its own outputs."""

import hashlib
import json
from collections.abc import Collection, Sequence
from pathlib import Path

from absl import flags

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.outputs import Outputs, stamps

# Flags that name what is read, whose files count with their sizes and times.
_READ = ("image_dir", "manifest", "tfrecord_dir", "target_dir", "model", "checkpoint", "compare")
_HOW = frozenset({"flagfile", "undefok", "overwrite"})


def asked(
    flag_values: flags.FlagValues,
    command: str,
    outputs: Sequence[str],
    besides: Collection[Path] = (),
) -> Outputs:
    """The outputs of a command, by its flags.

    Args:
        flag_values: The parsed flags.
        command: Name of the command.
        outputs: Names of the flags that name outputs. The first must be given; of the others,
            those that are not given write no output.
        besides: Files that are written beside the outputs.
    """
    given = {
        name: flag_values[name].value
        for name in flag_values
        if not flag_values[name].using_default_value and name not in {*outputs, *_HOW}
    }
    places = [flag_values[name].value for name in outputs]
    paths = [Path(place).expanduser().absolute() for place in places if place]
    paths += [Path(path).expanduser().absolute() for path in besides]
    read = {
        name: _stamp(name, given[name], flag_values, paths) for name in _READ if given.get(name)
    }
    key = json.dumps([command, given, read], sort_keys=True, default=str)
    may = "overwrite" in flag_values
    overwrite = may and bool(flag_values["overwrite"].value)
    mend = f"give another --{outputs[0]}, or {'--overwrite' if may else 'remove it first'}"
    request = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
    return Outputs(request, tuple(paths), mend, overwrite)


def _stamp(
    name: str, value: str | list[str], flag_values: flags.FlagValues, outputs: Sequence[Path]
) -> str:
    paths = [value] if isinstance(value, str) else list(value)
    if name == "manifest":
        folder = flag_values["image_dir"].value if "image_dir" in flag_values else ""
        try:
            listed = Manifest.load(paths[0], folder or "")
        except (UserError, OSError):
            return ""  # the command itself says what is wrong with it
        paths = [*paths, *listed.files(), *filter(None, listed.target_files())]
    return stamps(paths, outputs)
