"""Intensity rules: stored pixel values of any range to float32 in [0, 1].

Every rule first finds a black and a white point (the limits), maps them to 0 and 1, clips what
lies outside, and then bends the curve between them:

    none                      no rule: integers over their full range, floats as they are
    minmax                    limits: least and greatest value; a straight line
    percentile(low,high)      limits: two percentiles (1, 99); a straight line
    sqrt(low,high)            limits: two percentiles (0, 100); the square root
    arcsinh(a,low,high)       limits: two percentiles (1, 99.7); arcsinh(x / a) / arcsinh(1 / a),
                              a = 0.1 (Lupton et al. 1999; `astropy.visualization.AsinhStretch`)
    zscore(k)                 limits: mean -+ k standard deviations (3); a straight line, so that
                              z = 0 becomes 0.5

All channels of an image share their limits. Values that are not finite never count. The percentiles
of an image are those of all its values; of a set, see `LimitFinder`.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from data_prep.errors import UserError

_DEFAULTS: dict[str, tuple[float, ...]] = {
    "none": (),
    "minmax": (),
    "percentile": (1.0, 99.0),
    "arcsinh": (0.1, 1.0, 99.7),
    "sqrt": (0.0, 100.0),
    "zscore": (3.0,),
}
RULES = tuple(_DEFAULTS)
MOST_VALUES = 2**24
"""Values of a set that percentiles are taken of, where they are not counted one by one."""
SAMPLED_VALUES = 2**22
"""Values of all images together in the sample of version 0.1.0."""
SAMPLED_LEAST = 256
"""Values of an image in it at least."""
NAN_RULES = ("min", "zero", "median")

_TEXT = re.compile(r"(?P<rule>[a-z]+)(?:\((?P<in>[^()]*)\)|:(?P<after>[^@]*))?(?:@(?P<at>.+))?")

Limits = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Intensity:
    """An intensity rule and where its limits come from.

    Attributes:
        rule: One of `RULES`.
        parameters: Its numbers, all of them.
        limits: "image": found in each image; "set": to be found once, over the training images;
            two numbers: as found, in the units of the files.
        sampled: Percentiles come from a sample of the values, as version 0.1.0 took them. Not part
            of the text form, see `Reading.percentiles`.
    """

    rule: str = "none"
    parameters: tuple[float, ...] = ()
    limits: Literal["image", "set"] | Limits = "image"
    sampled: bool = False

    def __str__(self) -> str:
        """The form that `parse_intensity` reads: `sqrt(0,100)`, `...@set`, `...@12.5,3071`."""
        text = self.rule
        if self.parameters:
            text += f"({','.join(map(_short, self.parameters))})"
        if isinstance(self.limits, tuple):
            return f"{text}@{','.join(map(_short, self.limits))}"
        return f"{text}@set" if self.limits == "set" else text

    @property
    def active(self) -> bool:
        """True if the rule changes values at all."""
        return self.rule != "none"

    @property
    def percentiles(self) -> Limits:
        """The percentiles that are its limits; 0 and 100 for rules without any."""
        if self.rule in ("percentile", "sqrt", "arcsinh"):
            low, high = self.parameters[-2:]
            return low, high
        return 0.0, 100.0

    @property
    def seeks_percentiles(self) -> bool:
        """True if percentiles other than the least and greatest value are still to be found."""
        return not isinstance(self.limits, tuple) and self.percentiles != (0.0, 100.0)

    def same_rule(self, other: "Intensity") -> bool:
        """Returns True if both rules are alike, wherever their limits come from."""
        return (self.rule, self.parameters) == (other.rule, other.parameters)


def parse_intensity(text: str, per: Literal["image", "set"] = "image") -> Intensity:
    """Reads `sqrt`, `percentile:1,99.7`, `percentile(1,99.7)`, each with `@set` or `@LOW,HIGH`.

    Args:
        text: The rule; numbers left out take their defaults.
        per: Where the limits come from if the text does not say.

    Raises:
        UserError: No such rule, or impossible numbers.
    """
    match = _TEXT.fullmatch("".join(text.split()).lower())
    if not match or match["rule"] not in _DEFAULTS:
        raise UserError(
            f"intensity rule {text!r}: must be one of {', '.join(RULES)}, such as percentile:1,99.7"
        )
    rule, defaults = match["rule"], _DEFAULTS[match["rule"]]
    given = _numbers(match["in"] or match["after"] or "", text)
    if len(given) > len(defaults):
        raise UserError(f"intensity rule {text!r}: {rule} takes {len(defaults)} numbers at most")
    parameters = given + defaults[len(given) :]
    _check_parameters(rule, parameters, text)
    limits: Literal["image", "set"] | Limits = per
    if match["at"] in ("set", "image"):
        limits = match["at"]  # type: ignore[assignment]
    elif match["at"]:
        numbers = _numbers(match["at"], text)
        if len(numbers) != 2 or not np.isfinite(numbers).all() or numbers[0] > numbers[1]:
            raise UserError(f"intensity rule {text!r}: after @ must come LOW,HIGH or set")
        limits = (numbers[0], numbers[1])
    return Intensity(rule, parameters, limits if rule != "none" else "image")


def needs_rule(kind: str) -> UserError:
    """The refusal of signed integers, which do not tell black and white.

    Args:
        kind: NumPy's name of the type.
    """
    return UserError(
        f"holds {kind} values, which have no natural range: give --intensity=minmax,"
        " percentile, ..."
    )


def find_limits(pixels: np.ndarray, intensity: Intensity) -> Limits:
    """Black and white point of one image by a rule, in its own units.

    Args:
        pixels: Any shape and number type; values that are not finite do not count.
        intensity: The rule; its own `limits` do not matter here.
    """
    # Version 0.1.0 took the number of values for that of images.
    finder = LimitFinder(intensity, pixels.size if intensity.sampled else 1)
    finder.add(pixels)
    return finder.limits()


def apply_intensity(pixels: np.ndarray, intensity: Intensity) -> np.ndarray:
    """Maps stored values to [0, 1] by a rule that is not `none`.

    Args:
        pixels: Finite values of any shape and number type.
        intensity: The rule, its limits found or to be found in these pixels.

    Returns:
        float32 of the same shape. An image without contrast is 0 everywhere (0.5 for zscore).

    Raises:
        UserError: The limits of the set have not been found yet.
    """
    if intensity.limits == "set":
        raise UserError(
            f"the limits of --intensity={intensity} are still to be found over the training images"
        )
    if intensity.limits == "image":
        pixels = _within_float64(pixels)
        low, high = find_limits(pixels, intensity)
    else:
        low, high = intensity.limits
    if high <= low:
        return np.full(pixels.shape, 0.5 if intensity.rule == "zscore" else 0.0, np.float32)
    if not np.isfinite(high - low):
        raise UserError(f"holds values too far apart for --intensity={intensity}")
    share = np.clip((pixels.astype(np.float64) - low) / (high - low), 0.0, 1.0)
    if intensity.rule == "sqrt":
        share = np.sqrt(share)
    elif intensity.rule == "arcsinh":
        softening = intensity.parameters[0]
        share = np.arcsinh(share / softening) / np.arcsinh(1.0 / softening)
    return share.astype(np.float32)


def _within_float64(pixels: np.ndarray) -> np.ndarray:
    """Integers beyond 2^53, of which float64 would drop the last digits, from their least on."""
    if pixels.dtype.kind not in "ui" or pixels.dtype.itemsize < 8 or not pixels.size:
        return pixels
    least, greatest = pixels.min(), pixels.max()
    if least >= -(2**53) and greatest <= 2**53:
        return pixels
    return pixels.view(np.uint64) - least.view(np.uint64)  # exact: unsigned integers wrap around


class LimitFinder:
    """Finds the limits of a rule over many images in one pass, in little memory.

    Least and greatest value, mean and deviation are exact, and so are percentiles of one image, of
    any number of images of 8 and 16 bits, and of all others up to 16 million values together. Of
    more than that an even half of the values counts, then a quarter, and so on: at least eight
    millions, which place a percentile p within about sqrt(p (100 - p) / 8e6) of itself (0.004 for
    the 1st; one standard deviation).
    """

    def __init__(self, intensity: Intensity, images: int = 1):
        """Starts with nothing seen.

        Args:
            intensity: The rule.
            images: How many images will come.
        """
        self._intensity = intensity
        self._least, self._greatest = np.inf, -np.inf
        self._count, self._mean, self._squares = 0, 0.0, 0.0
        self._values: _Values | _SampledValues
        if intensity.sampled:
            self._values = _SampledValues(images)
        else:
            self._values = _Values(MOST_VALUES if images > 1 else None)

    def add(self, pixels: np.ndarray) -> None:
        """Takes one image in."""
        values = pixels.ravel()
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
        if not values.size:
            return
        self._least = min(self._least, float(values.min()))
        self._greatest = max(self._greatest, float(values.max()))
        if self._intensity.rule == "zscore":
            self._add_moments(values)
        elif self._intensity.percentiles != (0.0, 100.0):
            self._values.add(values)

    def _add_moments(self, values: np.ndarray) -> None:
        """Joins mean and sum of squares with those so far (Chan, Golub and LeVeque 1979)."""
        mean = float(values.mean(dtype=np.float64))
        squares = float(((values.astype(np.float64) - mean) ** 2).sum())
        total, gap = self._count + values.size, mean - self._mean
        self._squares += squares + gap**2 * self._count * values.size / total
        self._mean += gap * values.size / total
        self._count = total

    def limits(self) -> Limits:
        """The limits over all that was added; (0, 0) if there was no finite value."""
        if self._least > self._greatest:
            return 0.0, 0.0
        if self._intensity.rule == "zscore" and self._least < self._greatest:
            spread = self._intensity.parameters[0] * np.sqrt(self._squares / self._count)
            return float(self._mean - spread), float(self._mean + spread)
        if self._intensity.percentiles != (0.0, 100.0):
            return self._values.percentiles(self._intensity.percentiles)
        return self._least, self._greatest


class _Values:
    """Values of images, of which percentiles are wanted: counted (8 and 16 bits), or kept."""

    _OFFSET = 2**15  # of the least value that is counted

    def __init__(self, most: int | None):
        """Starts with none.

        Args:
            most: How many are kept, of those that are not counted; None = all.
        """
        self._most = most
        self._counts = np.zeros(0, np.int64)
        self._kept: list[np.ndarray] = []
        self._number, self._step = 0, 1
        self._rng = np.random.default_rng(0)

    def add(self, values: np.ndarray) -> None:
        """Takes finite values in, [n] of any number type."""
        if values.dtype.kind in "uib" and values.dtype.itemsize <= 2:
            self._add_counts(values)
            return
        kept = self._one_of_each(values, self._step)
        self._kept.append(kept.copy())
        self._number += kept.size
        while self._most is not None and self._number > self._most:
            self._kept = [self._one_of_each(np.concatenate(self._kept), 2)]
            self._number, self._step = self._kept[0].size, 2 * self._step

    def _add_counts(self, values: np.ndarray) -> None:
        if not self._counts.size:
            self._counts = np.zeros(self._OFFSET + 2**16, np.int64)
        least = int(values.min())
        counts = np.bincount(values.astype(np.int64) - least)
        self._counts[self._OFFSET + least :][: counts.size] += counts

    def _one_of_each(self, values: np.ndarray, step: int) -> np.ndarray:
        """One value drawn from every `step`, so that no pattern of the image is followed."""
        if step == 1:
            return values
        starts = np.arange(0, values.size, step)
        places = starts + self._rng.integers(0, step, starts.size)
        return values[places[places < values.size]]

    def percentiles(self, percents: Limits) -> Limits:
        """`np.percentile` of all that came, each of the kept values standing for its share."""
        counted = np.flatnonzero(self._counts)
        if not counted.size:
            return _percentiles(np.concatenate(self._kept), percents)
        values, weights = counted - float(self._OFFSET), self._counts[counted]
        if self._kept:
            kept = np.concatenate(self._kept)
            values = np.concatenate([values, kept])
            weights = np.concatenate([weights, np.full(kept.size, self._step)])
            order = np.argsort(values, kind="stable")
            values, weights = values[order], weights[order]
        reached = np.cumsum(weights)
        ranks, shares = _ranks(int(reached[-1]), percents)
        return _between(values[np.searchsorted(reached, ranks, side="right")], shares)


class _SampledValues:
    """The values that version 0.1.0 took percentiles of: of each image some at even distances.

    Networks of that version see images by these limits, which are a few hundredths of the range
    away from the exact ones.
    """

    def __init__(self, images: int):
        """Starts with none; `images` is how many will come."""
        self._per_image = max(SAMPLED_LEAST, SAMPLED_VALUES // max(1, images))
        self._kept: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        """Takes finite values in, [n] of any number type."""
        if values.size > self._per_image:
            places = np.linspace(0, values.size - 1, self._per_image).astype(np.int64)
            values = values[places]
        self._kept.append(values.astype(np.float64))

    def percentiles(self, percents: Limits) -> Limits:
        """`np.percentile` of the sample."""
        low, high = np.percentile(np.concatenate(self._kept), percents)
        return float(low), float(high)


def _percentiles(values: np.ndarray, percents: Limits) -> Limits:
    """`np.percentile`, counted in float64 whatever the type of the values."""
    ranks, shares = _ranks(values.size, percents)
    ranked = np.partition(values, np.unique(ranks))
    return _between(ranked[ranks].astype(np.float64), shares)


def _ranks(number: int, percents: Limits) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the values below and above two percentiles, and how far they lie between them.

    Returns:
        int64 [low, above low, high, above high] and float64 [2] in [0, 1).
    """
    places = (number - 1) * (np.asarray(percents) / 100)
    below = np.floor(places).astype(np.int64)
    ranks = np.stack([below, np.minimum(below + 1, number - 1)], axis=1)
    return ranks.ravel(), places - below


def _between(ranked: np.ndarray, shares: np.ndarray) -> Limits:
    """Two limits from the values of `_ranks`."""
    low, high = (a + (b - a) * s for a, b, s in zip(ranked[::2], ranked[1::2], shares, strict=True))
    return float(low), float(high)


def with_limits(intensity: Intensity, limits: Limits) -> Intensity:
    """The rule with its limits as numbers."""
    return replace(intensity, limits=limits, sampled=False)


def fill_not_finite(pixels: np.ndarray, rule: str) -> np.ndarray:
    """Replaces NaN, infinities and masked values.

    Args:
        pixels: Any shape and number type; integers that the file calls undefined are masked.
        rule: "min" or "median" of the image's finite values, or "zero"; empty = refuse.

    Raises:
        UserError: There are such values and no rule, or nothing else.
    """
    masked = np.ma.getmaskarray(pixels) if isinstance(pixels, np.ma.MaskedArray) else None
    pixels = np.ma.getdata(pixels)
    if pixels.dtype.kind == "f":
        finite = np.isfinite(pixels)
    elif masked is None:
        return pixels
    else:
        finite = ~masked
    if finite.all():
        return pixels
    if not rule:
        what = "not finite (NaN or infinity)" if masked is None else "undefined (BLANK)"
        raise UserError(
            f"holds {(~finite).sum()} values of {finite.size} that are {what}; say what they become"
            " with --nan=min, --nan=zero or --nan=median"
        )
    if rule == "zero":
        filling = 0.0
    elif not finite.any():
        raise UserError("holds no finite value at all")
    else:
        filling = pixels[finite].min() if rule == "min" else np.median(pixels[finite])
    return np.where(finite, pixels, np.asarray(filling).astype(pixels.dtype))


def _short(number: float) -> str:
    return repr(float(number)).removesuffix(".0")


def _numbers(text: str, whole: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part)
    except ValueError:
        raise UserError(f"intensity rule {whole!r}: {text!r} are not numbers") from None


def _check_parameters(rule: str, parameters: tuple[float, ...], text: str) -> None:
    if rule in ("percentile", "sqrt", "arcsinh"):
        low, high = parameters[-2:]
        if not 0 <= low < high <= 100:
            raise UserError(
                f"intensity rule {text!r}: percentiles must rise and lie between 0 and 100"
            )
    if rule in ("arcsinh", "zscore") and not 0 < parameters[0] < np.inf:
        raise UserError(f"intensity rule {text!r}: its first number must be above 0")
