"""The declaration of how files are read, as flags give it and as a network carries it along."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.reading.intensity import parse_intensity
from data_prep.reading.spec import OF_BEFORE, STACK, Reading, parse_reading
from data_prep.settings import setting

ALL_PAGES = "all"


@dataclass(frozen=True)
class Declaration:
    """Reading of files."""

    page: str = setting(
        "",
        "Page of a TIFF, or position in a stack of images (axis N): a number; 'all', each an image "
        "of its own; 'stack', all together as channels. Empty: first page of a TIFF (if it holds "
        "another kind of stack, it is refused), all of a stack.",
    )
    axes: str = setting(
        "",
        "Axes of arrays (NPY, NPZ, HDF5, FITS, RAW), in order: HW, HWC, CHW, NHW, ... with "
        "N images, H height, W width, C channels. Needed for more than two axes. NCHW also makes "
        "images with all channels of a TIFF stack.",
    )
    array_name: str = setting(
        "", "Array of a file with several: HDF5 data set, member of an NPZ, FITS extension."
    )
    raw_shape: str = setting("", "RAW files (.raw, .bin, .dat): shape in the order of --axes.")
    raw_dtype: str = setting(
        "", "RAW files: type, such as uint8, uint16, float32; >uint16 for big-endian."
    )
    raw_offset: int = setting(0, "RAW files: bytes of header before the pixels.", low=0)
    intensity: str = setting(
        "none",
        "Rule that maps values to [0, 1]: none, minmax, percentile:1,99, sqrt, arcsinh:0.1, "
        "zscore:3.",
    )
    intensity_per: Literal["image", "set"] = setting(
        "image",
        "Where the rule finds its black and white point: in each image, or once in all training "
        "images.",
    )
    percentiles: Literal["exact", "sampled"] = setting(
        "exact",
        "Percentiles of the rule: of all values, or of a sample of some hundred values of an image "
        "as in version 0.1.0, whose networks and runs go on so.",
    )
    nan: Literal["refuse", "min", "zero", "median"] = setting(
        "refuse", "What NaN and infinities become: the image's least or median value, or zero."
    )
    hdf5_links: Literal["refuse", "follow"] = setting(
        "refuse",
        "HDF5 data sets whose values lie in other files (virtual, external): refused, or read. "
        "Only for files of your own, for they can name any file of the machine. Not kept with a "
        "network, and never done for uploads.",
    )
    exif: Literal["apply", "ignore"] = setting(
        "apply", "Orientation noted in a photograph (EXIF): turn the image upright, or ignore it."
    )
    extra_samples: Literal["refuse", "drop", "band"] = setting(
        "refuse",
        "Samples of a TIFF whose meaning it does not say (RGB and a fourth one): left out, such as "
        "transparency, or a band, such as near infrared.",
    )
    tile: int = setting(0, "Cut pictures into tiles of this side in pixels; 0 = whole.", low=0)
    overlap: int = setting(0, "Pixels that neighbouring tiles share.", low=0)
    tile_rest: Literal["drop", "keep"] = setting(
        "drop",
        "What is left at the right and lower edge, too narrow for a tile: left out, or kept in a "
        "tile that ends at the edge and overlaps its neighbour.",
    )

    def reading(self) -> Reading:
        """Returns the reading of every file, without its page.

        Raises:
            UserError: A value that is impossible.
        """
        rule = parse_intensity(self.intensity, self.intensity_per)
        parts = {
            "axes": self.axes,
            "array": self.array_name,
            "shape": self.raw_shape,
            "dtype": self.raw_dtype,
            "offset": str(self.raw_offset or ""),
            "nan": "" if self.nan == "refuse" else self.nan,
            "links": "" if self.hdf5_links == "refuse" else self.hdf5_links,
            "exif": "" if self.exif == "apply" else self.exif,
            "extra": "" if self.extra_samples == "refuse" else self.extra_samples,
            "intensity": str(rule) if rule.active else "",
            "percentiles": "" if self.percentiles == "exact" else self.percentiles,
        }
        if ";" in "".join(parts.values()):
            raise UserError("a semicolon cannot be part of what is declared of files")
        return parse_reading(";".join(f"{name}={value}" for name, value in parts.items() if value))

    def changes(self) -> dict[str, Any]:
        """Returns the fields that differ from their defaults."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if getattr(self, f.name) != f.default
        }

    def among(self, names: Collection[str]) -> dict[str, Any]:
        """Returns the fields that have one of some names, such as those that were given."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in names}

    def record(self) -> dict[str, Any]:
        """Returns the form that a network carries: changes of the defaults, and always EXIF.

        Networks of version 0.1.0 do not record EXIF and have seen photographs as stored
        (`carried`); nor do they record where the percentiles of their intensity rule come from.
        """
        said = {**self.changes(), "exif": self.exif}
        return {**said, "percentiles": self.percentiles} if _has_percentiles(said) else said


_TILE_FIELDS = ("tile", "overlap", "tile_rest")
_PERMISSIONS = ("hdf5_links",)
DECLARATION_FIELDS = tuple(f.name for f in fields(Declaration))
READING_FIELDS = tuple(
    f.name for f in fields(Declaration) if f.name not in (*_TILE_FIELDS, *_PERMISSIONS)
)
"""Fields that must be the same for all images a network sees, however they were cut out."""


def _has_percentiles(reading: Mapping[str, Any]) -> bool:
    return parse_intensity(reading.get("intensity", "none")).seeks_percentiles


def rule_completed(reading: Mapping[str, Any]) -> dict[str, Any]:
    """Completes a network's record of reading files by where its percentiles come from.

    A network whose record does not say so was trained with percentiles of a sample of the values.
    """
    if "percentiles" in reading or not _has_percentiles(reading):
        return dict(reading)
    return {**reading, "percentiles": OF_BEFORE["percentiles"]}


def carried(reading: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a network's record of reading files, without what only their owner can permit.

    A network whose record does not mention EXIF was trained before the orientation was applied.
    """
    reading = {"exif": OF_BEFORE["exif"], **rule_completed(reading)}
    return {name: value for name, value in reading.items() if name not in _PERMISSIONS}


def where_declared(problem: str) -> str:
    """Returns advice for a problem that a declaration would mend, for commands without its flags.

    Returns:
        A sentence; empty if the problem names no flag of `Declaration`.
    """
    if not any(f"--{name}" in problem for name in DECLARATION_FIELDS):
        return ""
    return (
        "These are flags of simclr-manifest, which writes a CSV of the images and how they are"
        " read; give it here as --manifest"
    )


def declaration_of(manifest: Manifest) -> Declaration:
    """The declaration that reads other files as these were read, for a network to carry along.

    Raises:
        UserError: The records are read by different intensity rules.
    """
    readings = readings_of(manifest) or {Reading()}
    rules = sorted({str(_rule_alone(reading)) for reading in readings})
    if len(rules) > 1:
        shown = " and ".join(rule or "none" for rule in rules[:2])
        raise UserError(
            f"the images are read by {len(rules)} intensity rules ({shown}), so nobody could tell"
            " how to read new ones; let them have one"
        )

    def common(name: str) -> Any:
        """Returns the value that all readings share; the default if they differ, as formats may."""
        values = {getattr(reading, name) for reading in readings}
        return values.pop() if len(values) == 1 else getattr(Reading(), name)

    axes = common("axes")
    return Declaration(
        page=_common_page({reading.page for reading in readings}, axes),
        axes=axes,
        array_name=common("array"),
        raw_shape=",".join(map(str, common("shape"))),
        raw_dtype=common("dtype"),
        raw_offset=common("offset"),
        intensity=str(common("intensity") or "none"),
        nan=common("nan") or "refuse",
        percentiles=common("percentiles") or "exact",
        exif=common("exif") or "apply",
        extra_samples=common("extra") or "refuse",
        tile=_common_tile(manifest.records),
    )


def _rule_alone(reading: Reading) -> Reading:
    return Reading(nan=reading.nan, intensity=reading.intensity, percentiles=reading.percentiles)


def _common_page(pages: set[int | str | None], axes: str) -> str:
    if pages == {STACK}:
        return STACK
    if pages == {None}:
        return ""
    if "N" in axes:
        # The first image of all may be the only one of each file; another was chosen.
        chosen = len(pages) == 1 and pages != {0}
        return str(pages.pop()) if chosen else ""
    return str(pages.pop()) if len(pages) == 1 else ALL_PAGES


def _common_tile(records: Sequence[Record]) -> int:
    """The side of the tiles, if they have one; tiles cut at an edge may be narrower."""
    sides = [side for r in records if r.tile for side in map(int, r.tile.split(",")[2:])]
    return max(sides, default=0)


def readings_of(manifest: Manifest) -> set[Reading]:
    """The readings that occur in a manifest."""
    return {parse_reading(text) for text in {record.reading for record in manifest.records}}
