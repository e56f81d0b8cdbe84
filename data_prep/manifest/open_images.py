"""Declared files to records: images page by page, tile by tile, with their intensity limits."""

import logging
from collections.abc import Callable
from dataclasses import replace

from data_prep.errors import UserError
from data_prep.manifest.identity import Picture
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.read_options import ALL_PAGES, Declaration, readings_of, where_declared
from data_prep.manifest.scan import check_images, scan_folder, survey_of
from data_prep.reading.headers import count_pages, unusable
from data_prep.reading.images import read_stored
from data_prep.reading.intensity import Intensity, LimitFinder, with_limits
from data_prep.reading.spec import Reading, merge, parse_reading
from data_prep.reading.tiles import cut
from data_prep.reading.training_files import stored_bits
from data_prep.sections import ImageSettings

_LOGGER = logging.getLogger(__name__)


def open_images(images: ImageSettings) -> Manifest:
    """The images that settings name, every one checked by its header.

    Raises:
        UserError: Neither a folder nor a manifest is given, or images cannot be used.
    """
    images.check_given()
    folder, skip = images.image_dir, images.skip_unreadable
    try:
        if not images.manifest:
            return scan_folder(folder, skip_unreadable=skip)
        return check_images(Manifest.load(images.manifest, folder), skip_unreadable=skip)
    except UserError as error:
        raise UserError(". ".join(filter(None, (str(error), where_declared(str(error)))))) from None


def open_training_images(
    images: ImageSettings,
    declaration: Declaration,
    progress: Callable[[int, int], None] = lambda done, total: None,
    training_split: str = "train",
) -> Manifest:
    """The images that settings name, read as declared, every one checked by its header.

    Limits of intensity rules that are still to be found are found over the training images, or
    over all images of a set without splits.

    Args:
        images: Where they are.
        declaration: What is declared of all files.
        progress: Called with (pictures read, pictures in all) where limits are found.
        training_split: Name of the split of training images.

    Raises:
        UserError: Neither a folder nor a manifest is given, or images cannot be used or read as
            declared.
    """
    images.check_given()
    manifest = open_declared(
        images.image_dir, images.manifest, declaration, skip_unreadable=images.skip_unreadable
    )
    has_training = training_split in manifest.splits
    training = manifest.split(training_split) if has_training else manifest
    return find_set_limits(manifest, training, progress)


def open_declared(
    image_dir: str, manifest: str, declaration: Declaration, *, skip_unreadable: bool = False
) -> Manifest:
    """The images of a folder or of a manifest, read as declared.

    What is declared completes the readings in a manifest and does not replace them.

    Args:
        image_dir: The folder; with a manifest, where its images lie now.
        manifest: The CSV file.
        declaration: What is declared of all files.
        skip_unreadable: Leave out images that cannot be read (logged) instead of raising.

    Returns:
        The records, one a page and tile, with `reading` and `tile` filled.

    Raises:
        UserError: As `scan_folder` and `check_images`, or what is declared does not fit.
    """
    reading = declaration.reading()
    pages = page_choice(declaration.page, reading)
    declared = replace(reading, page=0 if pages == ALL_PAGES else pages)
    if not manifest:
        own = str(merge(Reading(), declared))
        found = scan_folder(image_dir, skip_unreadable=skip_unreadable, reading=own)
        if pages == ALL_PAGES:
            files = zip(found.records, found.files(), strict=True)
            found = found.subset(page for record, file in files for page in _pages(record, file))
    else:
        listed = Manifest.load(manifest, image_dir)
        files = zip(listed.records, listed.files(), strict=True)
        found = listed.subset(
            page
            for record, file in files
            for page in completed(record, file, declared, pages == ALL_PAGES)
        )
        found = check_images(found, skip_unreadable=skip_unreadable)
    if pages == ALL_PAGES and "N" not in reading.axes and len(set(found.files())) < len(found):
        _LOGGER.info(
            "the pages of a file are a group, which no split tears; --axes=NHW takes them for"
            " images of their own"
        )
    if declaration.tile or declaration.overlap:
        found = with_tiles(found, declaration)
    return found


def page_choice(page: str, reading: Reading) -> int | str | None:
    """The page that is chosen: a number, `stack`, `ALL_PAGES`, or None if none is named."""
    if page == ALL_PAGES or (not page and "N" in reading.axes):
        return ALL_PAGES
    return parse_reading(f"page={page}").page if page else None


def completed(record: Record, file: str, declared: Reading, all_pages: bool) -> list[Record]:
    """Completes a record by what is declared; with `all_pages`, all its pages if it names none."""
    own = parse_reading(record.reading)
    chosen = own.page is not None
    if all_pages and chosen:
        declared = replace(declared, page=None)
    try:
        completed = replace(record, reading=str(merge(own, declared)))
        return _pages(completed, file) if all_pages and not chosen else [completed]
    except (UserError, OSError) as error:
        if isinstance(error, OSError):  # check_images will say so of all such files
            return [record]
        raise UserError(f"{record.path}: {error}") from None


def _pages(record: Record, file: str) -> list[Record]:
    """Makes a record of every page; pages of a TIFF form a group, images of a stack do not."""
    reading = parse_reading(record.reading)
    number = count_pages(file, record.reading)
    if number == 1 and "N" not in reading.axes:
        return [replace(record, reading=str(replace(reading, page=None)))]
    group = record.group or ("" if "N" in reading.axes else record.path)
    return [
        replace(record, group=group, reading=str(replace(reading, page=page)))
        for page in range(number)
    ]


def with_tiles(manifest: Manifest, declaration: Declaration) -> Manifest:
    """Makes a record of every tile; those of one picture form a group."""
    cut(1, 1, declaration.tile, declaration.overlap)  # complains of impossible sizes
    whole = manifest.subset(replace(record, tile="") for record in manifest.records)
    found = survey_of(whole)
    if found.problems:
        raise unusable(manifest.files(), found.problems)
    records: list[Record] = []
    too_small = []
    for index, record in enumerate(manifest.records):
        if record.tile:
            records.append(record)
            continue
        height, width = int(found.height[index]), int(found.width[index])
        boxes = cut(height, width, declaration.tile, declaration.overlap, declaration.tile_rest)
        if not boxes:
            too_small.append(record.path)
        group = record.group or record.picture_name
        records.extend(replace(record, tile=str(box), group=group) for box in boxes)
    if too_small:
        problem = f"{len(too_small)} pictures are smaller than --tile={declaration.tile}"
        if not records:
            raise UserError(f"{problem}; take a smaller one, or --tile_rest=keep")
        _LOGGER.warning("%s and give none: %s", problem, ", ".join(too_small[:3]))
    return manifest.subset(records)


def has_open_limits(manifest: Manifest) -> bool:
    """Returns True if limits of any intensity rule must be found over the training images."""
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
    resolved = [_resolved(record, found) for record in manifest.records]
    for record, other in zip(manifest.records, resolved, strict=True):
        if other is not record:  # size and channels do not depend on the limits
            manifest.headers.note_same(record, other)
    return manifest.subset(resolved)


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
