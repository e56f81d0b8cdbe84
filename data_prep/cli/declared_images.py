"""Images that flags name and declare, for commands that read pixels of the training images."""

from absl import flags

from data_prep.cli.image_flags import define_images, given_images
from data_prep.cli.progress import progress_lines
from data_prep.cli.reading_flags import define_reading, read_reading
from data_prep.manifest.manifest import Manifest


def define_declared_images(flag_values: flags.FlagValues) -> None:
    """Defines the flags that say where images are and how they are read."""
    define_images(flag_values)
    define_reading(flag_values)


def open_declared_images(flag_values: flags.FlagValues, training_split: str = "train") -> Manifest:
    """The images that the flags name, every one checked by its header.

    Limits of intensity rules that are still to be found are found over the training images; of a
    set without splits over all.

    Raises:
        UserError: Neither or both of the flags, images that cannot be used or read as declared.
    """
    from data_prep.manifest.intensity_limits import find_set_limits
    from data_prep.manifest.open_images import open_declared

    folder, listed = given_images(flag_values)
    skip = flag_values.skip_unreadable
    manifest = open_declared(folder, listed, read_reading(flag_values), skip_unreadable=skip)
    has_training = training_split in manifest.splits
    training = manifest.split(training_split) if has_training else manifest
    return find_set_limits(manifest, training, progress_lines("pictures"))
