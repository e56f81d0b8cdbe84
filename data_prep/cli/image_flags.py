"""The flags that say where images are and how files are read, the same for every command."""

from dataclasses import fields
from typing import Any, get_args, get_origin, get_type_hints

from absl import flags

from data_prep.cli.app import topic
from data_prep.cli.runtime import progress_lines
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.read_options import Declaration, where_declared


def define_images(flag_values: flags.FlagValues, *, may_skip: bool = True) -> None:
    """Defines `--image_dir`, `--manifest` and, unless told otherwise, `--skip_unreadable`."""
    own: dict[str, Any] = {"flag_values": flag_values}
    with topic(flag_values, "Images"):
        flags.DEFINE_string(
            "image_dir",
            None,
            "Folder of images: CLASS/FILE, SPLIT/CLASS/FILE, or images without classes.",
            **own,
        )
        flags.DEFINE_string(
            "manifest",
            None,
            "Or a CSV that lists them (column path); --image_dir is then where they lie now.",
            **own,
        )
        if may_skip:
            flags.DEFINE_bool("skip_unreadable", False, "Leave out unreadable images.", **own)


def open_images(flag_values: flags.FlagValues) -> Manifest:
    """The images that the flags name, every one checked by its header.

    Raises:
        UserError: Neither of the flags, or images that cannot be used.
    """
    from data_prep.manifest.scan import check_images, scan_folder

    folder, listed = given_images(flag_values)
    skip = flag_values.skip_unreadable
    try:
        if not listed:
            return scan_folder(folder, skip_unreadable=skip)
        return check_images(Manifest.load(listed, folder), skip_unreadable=skip)
    except UserError as error:
        raise UserError(". ".join(filter(None, (str(error), where_declared(str(error)))))) from None


def given_images(flag_values: flags.FlagValues) -> tuple[str, str]:
    """Returns the values of `--image_dir` and `--manifest`; "" for a flag that is not given.

    With both, the images that the manifest lists lie in the folder (`Manifest.load`).

    Raises:
        UserError: Neither is given.
    """
    folder, listed = flag_values.image_dir or "", flag_values.manifest or ""
    if not folder and not listed:
        raise UserError("give either --image_dir=FOLDER or --manifest=FILE")
    return folder, listed


TOPIC = "Reading of files"


def define_reading(flag_values: flags.FlagValues) -> None:
    """Defines a flag for each field of `Declaration`."""
    hints = get_type_hints(Declaration)
    own: dict[str, Any] = {"flag_values": flag_values}
    with topic(flag_values, TOPIC):
        for field in fields(Declaration):
            kind, help_text = hints[field.name], field.metadata["help"]
            if get_origin(kind) is not None:
                flags.DEFINE_enum(field.name, field.default, get_args(kind), help_text, **own)
            elif kind is int:
                flags.DEFINE_integer(field.name, field.default, help_text, 0, **own)
            else:
                flags.DEFINE_string(field.name, field.default, help_text, **own)


def given_reading(flag_values: flags.FlagValues) -> dict[str, Any]:
    """Returns the fields of `Declaration` that the command line gives, by name."""
    return {
        field.name: getattr(flag_values, field.name)
        for field in fields(Declaration)
        if not flag_values[field.name].using_default_value
    }


def read_reading(flag_values: flags.FlagValues) -> Declaration:
    """The declaration that the flags make."""
    return Declaration(**given_reading(flag_values))


def define_declared_images(flag_values: flags.FlagValues) -> None:
    """Defines the flags that say where images are and how they are read."""
    define_images(flag_values)
    define_reading(flag_values)


def open_declared_images(flag_values: flags.FlagValues, training_split: str = "train") -> Manifest:
    """The images that the flags name, every one checked by its header.

    Limits of intensity rules that are still to be found are found over the training images, or
    over all images of a set without splits.

    Raises:
        UserError: Neither of the flags, images that cannot be used or read as declared.
    """
    from data_prep.manifest.open_images import find_set_limits, open_declared

    folder, listed = given_images(flag_values)
    skip = flag_values.skip_unreadable
    manifest = open_declared(folder, listed, read_reading(flag_values), skip_unreadable=skip)
    has_training = training_split in manifest.splits
    training = manifest.split(training_split) if has_training else manifest
    return find_set_limits(manifest, training, progress_lines("pictures"))
