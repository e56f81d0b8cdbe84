"""Limits of intensity rules that are found once, over the training images, and written down."""

import logging
from collections.abc import Callable
from dataclasses import replace

from data_prep.errors import UserError
from data_prep.manifest.identity import Picture
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.read_options import readings_of
from data_prep.reading.images import read_stored
from data_prep.reading.intensity import Intensity, LimitFinder, with_limits
from data_prep.reading.spec import Reading, parse_reading
from data_prep.reading.training_files import stored_bits

_LOGGER = logging.getLogger(__name__)


def has_open_limits(manifest: Manifest) -> bool:
    """Whether limits of an intensity rule are still to be found over the training images."""
    return any(map(_open_rule, readings_of(manifest)))


def _open_rule(reading: Reading) -> Intensity | None:
    """The rule of a reading if its limits are still to be found."""
    rule = reading.active_intensity
    return rule if rule and rule.limits == "set" else None


def find_set_limits(
    manifest: Manifest,
    training: Manifest,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Manifest:
    """Finds the limits of intensity rules once, over the training images, and writes them in.

    Pictures count once, whole, whatever their tiles; values that are not finite do not count.

    Args:
        manifest: All images.
        training: Those of them that limits may be learned from.
        progress: Called with (pictures read, pictures in all).

    Returns:
        The manifest; where a reading said `@set` it has the numbers.

    Raises:
        UserError: A picture cannot be read, or no training image is read by a rule that needs it.
    """
    if not has_open_limits(manifest):
        return manifest
    pictures: dict[Picture, str] = {}
    for picture, record in zip(training.pictures(), training.records, strict=True):
        if _open_rule(parse_reading(record.reading)):
            pictures.setdefault(picture, record.reading)
    if not pictures:
        raise UserError("no training image to find the limits of the intensity rule from")
    finders: dict[Intensity, LimitFinder] = {}
    depths: dict[int, str] = {}
    _LOGGER.info("finding black and white point over %d training pictures", len(pictures))
    for done, (picture, text) in enumerate(pictures.items(), 1):
        values = read_stored(picture.file, text)
        if values.dtype.kind == "u":
            depths.setdefault(_bits(picture.file, text), picture.file)
        if rule := _open_rule(parse_reading(text)):
            finders.setdefault(rule, LimitFinder(rule, len(pictures))).add(values)
        progress(done, len(pictures))
    if len(depths) > 1:
        shown = ", ".join(f"{depths[bits]} of {bits} bits" for bits in sorted(depths))
        if 8 in depths:
            raise UserError(
                f"images of 8 bits and of more have no common black and white point ({shown});"
                " give --intensity_per=image, or bring them to one depth"
            )
        _LOGGER.warning(
            "the training images are of different depths (%s): a common black and white point is"
            " right only if the same value means the same in all of them; else give"
            " --intensity_per=image",
            shown,
        )
    found = {rule: with_limits(rule, finder.limits()) for rule, finder in finders.items()}
    _LOGGER.info("intensity rule: %s", ", ".join(map(str, found.values())))
    return manifest.subset(_resolved(record, found) for record in manifest.records)


def _bits(file: str, text: str) -> int:
    """Bits a value of a file as it declares them, such as 12 of a type of 16."""
    with open(file, "rb") as stream:
        start = stream.read(64)
    return stored_bits(file, start, parse_reading(text))


def _resolved(record: Record, found: dict[Intensity, Intensity]) -> Record:
    reading = parse_reading(record.reading)
    rule = _open_rule(reading)
    if rule is None:
        return record
    if rule not in found:
        raise UserError(f"{record.path}: no training image is read by its rule {rule}")
    reading = replace(reading, intensity=found[rule], percentiles="")
    return replace(record, reading=str(reading))
