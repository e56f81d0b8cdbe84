"""Images by the thousand, a few at a time: what can be read of them, and what is wrong with others.

Only names are held for all images. Headers, pages and tiles are looked at chunk by chunk, so that
a bad file stops nothing and memory does not grow with the pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from data_prep.errors import UserError
from data_prep.manifest.intensity_limits import has_open_limits
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.open_images import completed, page_choice, with_tiles
from data_prep.manifest.places import place_columns
from data_prep.manifest.read_options import ALL_PAGES, Declaration
from data_prep.manifest.scan import list_folder
from data_prep.reading.survey import survey
from data_prep.reading.tiles import cut


@dataclass(frozen=True)
class Chunk:
    """Images that can be read, as far as their headers tell, and files that cannot.

    Attributes:
        files: How many files were looked at.
        images: A record a page and tile, without label and split.
        problems: What is wrong with the other files, by path.
    """

    files: int
    images: Manifest
    problems: dict[str, str]


@dataclass(frozen=True)
class Listed:
    """Files by name, and how they are read.

    Attributes:
        manifest: A record a file, as listed; no file has been opened.
        declaration: What is declared of all of them.
    """

    manifest: Manifest
    declaration: Declaration

    @property
    def tiled(self) -> bool:
        """Whether images may be parts of pictures."""
        d = self.declaration
        return bool(d.tile or d.overlap) or any(record.tile for record in self.manifest.records)

    @property
    def paged(self) -> bool:
        """Whether images may be pages of files."""
        return page_choice(self.declaration.page, self.declaration.reading()) is not None or any(
            "page=" in record.reading for record in self.manifest.records
        )

    def sample(self, files: int = 256) -> Manifest:
        """The images of some of the files, at even distances, with their readings."""
        records = self.manifest.records
        chosen = records[:: max(1, -(-len(records) // files))]
        return self._chunk(self.manifest.subset(chosen)).images

    @property
    def several_arrays(self) -> bool:
        """Whether a file gives several arrays."""
        return "array" in place_columns(self.manifest)

    def chunks(self, files: int) -> Iterator[Chunk]:
        """The images of so many files at a time, in order."""
        records = self.manifest.records
        for start in range(0, len(records), files):
            yield self._chunk(self.manifest.subset(records[start : start + files]))

    def _chunk(self, listed: Manifest) -> Chunk:
        problems: dict[str, str] = {}
        found = self._checked(self._pages(listed, problems), problems)
        if len(found) and self.declaration.tile:
            found = with_tiles(found, self.declaration)
        return Chunk(len(listed), found, problems)

    def _pages(self, listed: Manifest, problems: dict[str, str]) -> Manifest:
        """A record a page; what is wrong with the other files goes to `problems`."""
        reading = self.declaration.reading()
        pages = page_choice(self.declaration.page, reading)
        declared = replace(reading, page=0 if pages == ALL_PAGES else pages)
        images: list[Record] = []
        for record, file in zip(listed.records, listed.files(), strict=True):
            bare = replace(record, label="", split="")
            try:
                images += completed(bare, file, declared, pages == ALL_PAGES)
            except UserError as error:
                problems[record.path] = str(error).removeprefix(f"{record.path}: ")
        return listed.subset(images)

    def _checked(self, images: Manifest, problems: dict[str, str]) -> Manifest:
        """Those with a readable header, large enough for a tile."""
        facts = survey(
            images.files(),
            [record.reading for record in images.records],
            [record.tile for record in images.records],
        )
        good = []
        for index, record in enumerate(images.records):
            height, width = int(facts.height[index]), int(facts.width[index])
            problem = facts.problems.get(index) or self._too_small(record, height, width)
            if problem:
                problems[record.path] = problem
            else:
                good.append(record)
        return images.subset(good)

    def _too_small(self, record: Record, height: int, width: int) -> str:
        d = self.declaration
        if record.tile or not d.tile or cut(height, width, d.tile, d.overlap, d.tile_rest):
            return ""
        return f"its {width} x {height} pixels are less than --tile={d.tile}"


def list_images(image_dir: str, manifest: str, declaration: Declaration) -> Listed:
    """The files of a folder or of a manifest, by name.

    Args:
        image_dir: The folder; with a manifest, where its images lie now.
        manifest: The CSV file.
        declaration: How the files are read.

    Raises:
        UserError: There are none, what is declared is impossible, or an intensity rule whose
            limits would have to be found in the training images.
    """
    reading = declaration.reading()
    if declaration.tile or declaration.overlap:
        cut(1, 1, declaration.tile, declaration.overlap)  # complains of impossible sizes
    if manifest:
        found = Manifest.load(manifest, image_dir)
    else:
        found = list_folder(image_dir, reading=str(reading))
    rules = found.subset([*found.records, Record("", reading=str(reading))])
    if has_open_limits(rules):
        raise UserError(
            "--intensity_per=set: the black and white point are those of the training; give"
            " --intensity=RULE@LOW,HIGH, or leave it to the network's record"
        )
    return Listed(found, declaration)
