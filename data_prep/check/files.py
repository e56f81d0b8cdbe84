"""Findings about single files: unreadable, misnamed, empty, dark, framed, too large."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from data_prep.check.examine import Examination, FileFacts
from data_prep.check.findings import Finding
from data_prep.manifest.read_options import where_declared
from data_prep.phrases import counted
from data_prep.reading.spec import parse_reading

_SHOWN = 10
_FRAMED = 0.9  # share of the picture inside its margins, below which they are worth cutting
_LARGE = 2048  # pixels
_DARK_MEDIAN, _DARK_HIGH = 0.1, 4.0


def file_findings(examination: Examination) -> Iterator[Finding]:
    """What is wrong with files one by one.

    Args:
        examination: The set.
    """
    records, facts = examination.manifest.records, examination.facts
    names = [record.name for record in records]
    bad = [i for i, fact in enumerate(facts) if fact.problem]
    if bad:
        what = "files" if len({record.path for record in records}) == len(records) else "images"
        declared = where_declared(" ".join(facts[i].problem for i in bad))
        yield Finding(
            "unreadable", "serious", f"{len(bad)} of {len(facts)} {what} cannot be read",
            "Mend or remove them; training would stop at them, or leave them out with "
            f"--skip_unreadable. {declared}".rstrip(),
            len(bad), tuple(f"{names[i]} ({facts[i].problem})" for i in bad[:_SHOWN]),
        )  # fmt: skip
    misnamed = list({r.path: i for i, r in enumerate(records) if facts[i].misnamed}.values())
    if misnamed:
        yield Finding(
            "misnamed", "warning", f"{counted(len(misnamed), 'file')} not what the ending says",
            "They are read by their content all the same; other programs may not. Rename them.",
            len(misnamed),
            tuple(f"{records[i].path} is {facts[i].format}" for i in misnamed[:_SHOWN]),
        )  # fmt: skip
    usable = examination.usable().tolist()
    yield from _turned(examination, usable)
    constant = [i for i in usable if facts[i].constant]
    if constant:
        yield Finding(
            "constant", "serious", f"{counted(len(constant), 'image')} of one colour",
            "There is nothing to be learnt from; remove what is empty.",
            len(constant), tuple(names[i] for i in constant[:_SHOWN]),
        )  # fmt: skip
    rest = [i for i in usable if not facts[i].constant]
    if rest:
        yield from _margins([facts[i] for i in rest])
        yield from _darkness([facts[i] for i in rest])
        yield from _sizes([facts[i] for i in rest])


def _turned(examination: Examination, usable: list[int]) -> Iterator[Finding]:
    """Pictures that note an orientation: how they are read."""
    records, facts = examination.manifest.records, examination.facts
    turned = [i for i in usable if facts[i].orientation != 1]
    if not turned:
        return
    ignored = sum(parse_reading(records[i].reading).exif == "ignore" for i in turned)
    how = "They are turned upright, as viewers show them; --exif=ignore reads them as stored."
    if ignored:
        how = (
            f"{ignored} of them {'is' if ignored == 1 else 'are'} read as stored, because"
            " --exif=ignore is declared."
        )
    yield Finding(
        "turned", "note", f"{counted(len(turned), 'image')} with an orientation noted in the file",
        f"{how} What was measured on the pictures (boxes, masks, depth) must lie the same way.",
        len(turned),
        tuple(f"{records[i].path}: {facts[i].orientation}" for i in turned[:_SHOWN]),
    )  # fmt: skip


def _margins(facts: list[FileFacts]) -> Iterator[Finding]:
    framed = [fact for fact in facts if fact.inside < _FRAMED]
    if len(framed) < len(facts) / 4:
        return
    white, black = (
        sum(fact.margin >= 0.9 for fact in framed),
        sum(fact.margin <= 0.1 for fact in framed),
    )
    colour = max((white, "white"), (black, "black"), (len(framed) - white - black, "plain"))[1]
    inside = float(np.median([fact.inside for fact in framed]))
    text = f"Half of them fill at most {inside:.0%} of their picture."
    crop = _common_box(facts)
    if len({(f.width, f.height) for f in facts}) == 1:
        width, height = facts[0].width, facts[0].height
        left, top, right, bottom = crop
        if (right - left) * (bottom - top) < _FRAMED * width * height:
            text += (
                f" All of them lie within columns {left} to {right} and rows {top} to {bottom} of "
                f"{width} x {height}: cut that box out first, or random crops will show margin."
            )
        else:
            share = _typical_share(facts)
            if share < _FRAMED:
                text += (
                    f" Half of them keep within the central {share:.0%}: look for the"
                    " --central_crop that loses little, and keep --min_crop_area well above 0.08,"
                    " or most random crops will be empty."
                )
    title = f"{counted(len(framed), 'image')} with {colour} margins"
    yield Finding("margins", "warning", title, text, len(framed))


def _common_box(facts: list[FileFacts]) -> tuple[int, int, int, int]:
    """The smallest box that no picture reaches beyond: left, top, right, bottom."""
    return (
        min(f.left for f in facts),
        min(f.top for f in facts),
        max(f.width - f.right for f in facts),
        max(f.height - f.bottom for f in facts),
    )


def _typical_share(facts: list[FileFacts]) -> float:
    """The central share of the shorter side that half of the pictures keep within."""
    reach = [
        max(
            abs(2 * f.left - f.width),
            abs(2 * f.right - f.width),
            abs(2 * f.top - f.height),
            abs(2 * f.bottom - f.height),
        )
        / min(f.width, f.height)
        for f in facts
    ]
    return min(1.0, float(np.median(reach)))


def _darkness(facts: list[FileFacts]) -> Iterator[Finding]:
    dark = [
        f for f in facts
        if f.median < _DARK_MEDIAN and f.high > _DARK_HIGH * max(f.median, 1 / 255)
    ]  # fmt: skip
    if len(dark) > len(facts) / 2:
        yield Finding(
            "dark", "note", f"{counted(len(dark), 'image')} dark, with a few bright pixels",
            f"Their median brightness is {np.median([f.median for f in dark]):.3f} of the range, "
            f"their brightest pixel {np.median([f.high for f in dark]):.2f}. Faint structure shows "
            "after --intensity=sqrt, arcsinh or percentile (simclr-manifest, simclr-run).",
            len(dark),
        )  # fmt: skip


def _sizes(facts: list[FileFacts]) -> Iterator[Finding]:
    sizes = Counter((f.width, f.height) for f in facts)
    if len(sizes) > 1:
        shown = [f"{w} x {h} ({n})" for (w, h), n in sizes.most_common(4)]
        yield Finding("sizes", "note", f"the images have {len(sizes)} sizes",
                      "That is allowed: views are cut and scaled from each.", len(facts),
                      tuple(shown))  # fmt: skip
    aspect = np.array([max(f.width, f.height) / min(f.width, f.height) for f in facts])
    large = [f for f in facts if max(f.width, f.height) >= _LARGE]
    if large:
        side = max(max(f.width, f.height) for f in large)
        yield Finding(
            "large", "note", f"{counted(len(large), 'large image')}, up to {side} pixels",
            "Scaled down whole they lose their detail: cut them into tiles with "
            "simclr-manifest --tile=512, which keeps the tiles of a picture together.",
            len(large),
        )  # fmt: skip
    elif np.median(aspect) > 1.15:
        yield Finding(
            "not_square", "note", f"the images are not square (aspect {np.median(aspect):.2f})",
            "Evaluation sees the central square of each.", len(facts),
        )  # fmt: skip
