"""The files that a network was trained on, as far as new files must be like them.

Nothing in a 16-bit file says that its camera used 12 bits of it. A network trained on such files
sees dark images; the same scene as an 8-bit file is sixteen times brighter to it. So depth,
channels and the range of values travel with the network, and new files are held against them.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.manifest import Headers, Manifest, Record
from data_prep.manifest.read_options import Declaration, carried
from data_prep.reading.formats import arrays
from data_prep.reading.headers import read_header
from data_prep.reading.images import read_image
from data_prep.reading.intensity import Intensity
from data_prep.reading.spec import Reading, parse_reading

log = logging.getLogger(__name__)

_HEADERS = 256  # files whose headers are looked at
_IMAGES = 16  # of them whose values are
_MOST_PIXELS = 2**24  # of such an image
_VALUES = 2**16  # of an image, at even distances
_FACTOR = 4.0  # between brightest values that are taken for the same kind of image
_LEAST = 1e-3  # values below this are black


@dataclass(frozen=True)
class TrainingFiles:
    """Common properties of the images that a network was trained on.

    Attributes:
        bits: Numbers of bits a value that occur among the files, rising.
        channels: Numbers of channels that occur among the files, rising.
        values: 1st and 99th percentile of the values that the network was shown, in [0, 1]; None =
            not known.
    """

    bits: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()
    values: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the form in the network's record, read by `from_record`."""
        values = None if self.values is None else [round(v, 6) for v in self.values]
        return {"bits": list(self.bits), "channels": list(self.channels), "values": values}

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "TrainingFiles":
        """Reads the properties from a network's record; unknown ones stay empty."""
        facts = record.get("training_files") or {}
        values = facts.get("values")
        return TrainingFiles(
            tuple(facts.get("bits", ())),
            tuple(facts.get("channels", ())),
            (float(values[0]), float(values[1])) if values else None,
        )


def look_at(images: Manifest) -> TrainingFiles:
    """Looks at some files of a set, at even distances.

    Files that cannot be read are passed over; they are reported elsewhere.
    """
    rows = np.linspace(0, len(images) - 1, min(_HEADERS, len(images))).astype(np.int64)
    files = images.files()
    chosen = [(images.records[row], files[row]) for row in rows]
    known = images.headers
    kinds = [found for record, file in chosen if (found := _kind(record, file, known))]
    step = max(1, len(chosen) // _IMAGES)
    shown = [_shown(record, file, known) for record, file in chosen[::step][:_IMAGES]]
    seen = [values for values in shown if values is not None]
    return TrainingFiles(
        tuple(sorted({bits for bits, _ in kinds})),
        tuple(sorted({channels for _, channels in kinds})),
        _range(np.concatenate(seen)) if seen else None,
    )


def of_one(header_bits: int, pixels: np.ndarray) -> TrainingFiles:
    """The properties of one image that was read.

    Args:
        header_bits: Bits a value of its file, see `stored_bits`.
        pixels: [H, W, C] as `read_image` gives them.
    """
    return TrainingFiles((header_bits,), (pixels.shape[-1],), _range(_sample(pixels)))


def _kind(record: Record, file: str, known: Headers) -> tuple[int, int] | None:
    """Bits and channels of a file; None if it cannot be read."""
    header = known.get(record)
    if header is not None and header.bits < 32:  # as stored, for no rule reads it
        return header.bits, header.channels
    reading = parse_reading(record.reading)
    try:
        with open(file, "rb") as stream:
            bits = stored_bits(file, stream.read(64), reading)
        return bits, (header or read_header(file, record.reading, record.tile)).channels
    except (UserError, OSError):
        return None


def stored_bits(source: Any, start: bytes, reading: Reading) -> int:
    """Bits a value of a file as it is stored, whatever rule reads it; 32 of signed and floating.

    Args:
        source: Name of the file, or a stream of its bytes.
        start: Its first 64 bytes.
        reading: What is declared of it.
    """
    from data_prep.reading.headers import parse_header

    if arrays.holds_array(start, source, reading):
        with arrays.open_array(source, replace(reading, page=None)) as array:
            unsigned = array.dtype.kind in "ub"
            return int(array.dtype.itemsize * 8) if unsigned else 32
    bare = replace(reading, intensity=None)
    try:
        if isinstance(source, str):
            return read_header(source, str(bare)).bits
        return parse_header(source, bare).bits
    except UserError:
        # Such as integers with a sign, which need a rule.
        return 32


def _shown(record: Record, file: str, known: Headers) -> np.ndarray | None:
    """Some values of an image; None if it is too large or cannot be read."""
    try:
        header = known.get(record) or read_header(file, record.reading, record.tile)
        if header.height * header.width > _MOST_PIXELS:
            return None
        return _sample(read_image(file, None, record.reading, record.tile))
    except (UserError, OSError):
        return None


def _sample(pixels: np.ndarray) -> np.ndarray:
    """Values of an image in [0, 1], at even distances."""
    flat = pixels.reshape(-1)
    flat = flat[:: max(1, flat.size // _VALUES)]
    return flat / np.float32(255) if flat.dtype == np.uint8 else flat.astype(np.float32)


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, (1, 99))
    return float(low), float(high)


def differences(
    trained: TrainingFiles, new: TrainingFiles, rule: Intensity | None, *, forced: bool = False
) -> list[str]:
    """Compares new files with those of the training.

    Args:
        trained: Properties of the training files; of what it does not know, nothing is said.
        new: Properties of the images that are to be used.
        rule: The intensity rule they are read by; None = none.
        forced: The user said how they are to be read, so nothing is refused.

    Returns:
        Differences that a user must know of, a sentence each.

    Raises:
        UserError: The network would be shown something else than in training.
    """
    remarks = []
    other_depth = bool(trained.bits) and not set(new.bits) <= set(trained.bits)
    depths = f"the network was trained on files of {_named(trained.bits)}, these are of " + _named(
        new.bits
    )
    if other_depth and rule and isinstance(rule.limits, tuple):
        text = (
            f"{depths}: the limits of its intensity rule {rule} are in the units of its training"
            " files"
        )
        if not forced:
            raise UserError(
                f"{text}; convert the files to that depth, or give --intensity=RULE with limits of"
                " their own"
            )
        remarks.append(text)
    elif not rule:
        text = _other_range(trained, new)
        if other_depth and text:
            if not forced:
                raise UserError(
                    f"{depths}, and {text}: convert them as the training files were made, or say"
                    " how to read them with --intensity=RULE (--intensity=none takes them as they"
                    " are)"
                )
            remarks.append(f"{depths}, and {text}")
        elif other_depth:
            remarks.append(f"{depths}: right if both use the whole range of their depth")
        elif text:
            remarks.append(f"{text}: were they taken and stored as the training images were?")
    if new.channels and trained.channels == (1,) and set(new.channels) - {1}:
        remarks.append("the network was trained on grey files; colour is reduced to its luma")
    if new.channels and 1 in new.channels and trained.channels == (3,):
        remarks.append("the network was trained on colour files; grey is taken as colour")
    return remarks


Found = TypeVar("Found")


@dataclass(frozen=True)
class TrainingReading:
    """The reading of the files that a network was trained on, by which new files are opened.

    Attributes:
        recorded: Fields of `Declaration`, as the network's record has them.
        files: Properties of the files; None = not known.
    """

    recorded: Mapping[str, Any] = field(default_factory=dict)
    files: TrainingFiles | None = None

    @staticmethod
    def from_record(record: Mapping[str, Any]) -> "TrainingReading":
        """Reads what a network's record says under `reading` and `training_files`."""
        known = record.get("training_files")
        files = TrainingFiles.from_record(record) if known else None
        return TrainingReading(dict(record.get("reading", {})), files)

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of `Declaration` for new files; see `carried`."""
        return carried(self.recorded)

    @property
    def declaration(self) -> Declaration:
        """The declaration of new files."""
        return Declaration(**self.fields)

    def open(
        self,
        stated: Mapping[str, Any],
        find: Callable[[Declaration], Found],
        sample: Callable[[Found], Manifest],
    ) -> Found:
        """Opens new images as those of the training were read.

        Differences between their files are logged.

        Args:
            stated: Fields of `Declaration` that the user gave, which win. Where the intensity rule
                is among them nothing is refused.
            find: Finds the images that are so declared.
            sample: The images to compare with the training's; none is looked at if nothing is
                known of these.

        Raises:
            UserError: The network would be shown something else than in training.
        """
        declaration = Declaration(**{**self.fields, **stated})
        if declaration.changes():
            said = ", ".join(f"--{name}={value}" for name, value in declaration.changes().items())
            log.info("images are read with %s", said)
        found = find(declaration)
        if self.files and self.files.bits and len(images := sample(found)):
            rule = declaration.reading().active_intensity
            forced = "intensity" in stated
            for text in differences(self.files, look_at(images), rule, forced=forced):
                log.warning("%s", text)
        return found


def _other_range(trained: TrainingFiles, new: TrainingFiles) -> str:
    """Says in words that the brightest values are far apart; empty if they are not."""
    if trained.values is None or new.values is None:
        return ""
    before, now = (max(values[1], _LEAST) for values in (trained.values, new.values))
    if 1 / _FACTOR < now / before < _FACTOR:
        return ""
    return (
        f"{'bright' if now > before else 'dark'}: 99 % of their values lie below {now:.3g} of the"
        f" range, in training below {before:.3g}"
    )


def _named(bits: tuple[int, ...]) -> str:
    return f"{' and '.join(map(str, bits))} bits"
