"""From a declaration to records: the images of a folder or manifest, page by page, tile by tile."""

import logging
from dataclasses import replace

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.read_options import ALL_PAGES, Declaration
from data_prep.manifest.scan import check_images, scan_folder
from data_prep.reading.headers import count_pages
from data_prep.reading.spec import Reading, merge, parse_reading
from data_prep.reading.survey import survey, unusable
from data_prep.reading.tiles import cut

_LOGGER = logging.getLogger(__name__)


def open_declared(
    image_dir: str, manifest: str, declaration: Declaration, *, skip_unreadable: bool = False
) -> Manifest:
    """The images of a folder or of a manifest, read as declared.

    What the records of a manifest say themselves is completed, not replaced.

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
    """The page that is meant: a number, `stack`, `ALL_PAGES`, or None if none is named."""
    if page == ALL_PAGES or (not page and "N" in reading.axes):
        return ALL_PAGES
    return parse_reading(f"page={page}").page if page else None


def completed(record: Record, file: str, declared: Reading, all_pages: bool) -> list[Record]:
    """A record of a manifest with what is declared; all its pages if it has not chosen one."""
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
    """A record for every page; pages of a TIFF form a group, images of a stack do not."""
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
    """A record for every tile; those of one picture form a group."""
    cut(1, 1, declaration.tile, declaration.overlap)  # complains of impossible sizes
    found = survey(manifest.files(), [record.reading for record in manifest.records])
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
