"""The flags that say where the images are, the same for every command."""

from typing import Any

from absl import flags

from data_prep.cli.app import topic
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.read_options import where_declared


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
    """What `--image_dir` and `--manifest` say.

    With both, the images that the manifest lists lie in the folder (`Manifest.load`).

    Raises:
        UserError: Neither is given.
    """
    folder, listed = flag_values.image_dir or "", flag_values.manifest or ""
    if not folder and not listed:
        raise UserError("give either --image_dir=FOLDER or --manifest=FILE")
    return folder, listed
