"""`simclr-stats`: mean and spread of an image set, class weights, batch size to start from."""

import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from data_prep.cli.app import run_app, topic
from data_prep.cli.image_flags import define_declared_images, open_declared_images
from data_prep.cli.request import asked
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.errors import UserError
from data_prep.phrases import counted

if TYPE_CHECKING:
    from data_prep.sources.source import Source
    from data_prep.statistics import SetStatistics

NAME = "simclr-stats"
DESCRIPTION = """Measures an image set in one pass: mean, standard deviation, range and percentiles
of every channel (values in [0, 1]), images and weight of every class, and from their number a batch
size and epochs to start from.

Of a set with splits only the training images count: numbers taken from test images and used in
training are a leak."""

logger = logging.getLogger("data_prep.stats")


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    define_declared_images(flag_values)
    with topic(flag_values, "Images"):
        flags.DEFINE_string("tfrecord_dir", None, "Or a folder of TFRecord shards.", **own)
        flags.DEFINE_string("image_channels", "auto", "Channels: auto, 1, 3 or n.", **own)
    with topic(flag_values, "Statistics"):
        flags.DEFINE_string("split", "train", "Split to measure, if the set has splits.", **own)
        flags.DEFINE_string("output", None, "Also write the numbers to this new JSON file.", **own)


def run(flag_values: flags.FlagValues) -> int:
    """Prints the numbers, and writes them if asked to."""
    output = flag_values.output
    outputs = asked(flag_values, NAME, ["output"]) if output else None
    if outputs and (code := outputs.code_if_complete()) is not None:
        return code
    if output and not Path(output).absolute().parent.is_dir():
        raise UserError(f"--output={output}: there is no folder {Path(output).absolute().parent}")
    source, split = _open(flag_values)
    from data_prep.statistics import FEW_UPDATES, measure
    from data_prep.storage import write_text

    measured = measure(source, progress_lines("images"))
    content = _content(measured, split)
    print(_table(measured, content))
    if measured.pixels.channels_alike:
        logger.info(
            "all %d channels have the same values: grey saved as colour? --image_channels=1 then"
            " says the same in less",
            source.channels,
        )
    for name, plan in content["suggestions"].items():
        if plan["updates"] < FEW_UPDATES:
            logger.warning("%s makes only %d updates: too few images", name, plan["updates"])
    if outputs:
        with outputs.drafts() as drafts:
            text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
            write_text(drafts.paths[0], text)
        logger.info("wrote %s", output)
    return 0


def _open(flag_values: flags.FlagValues) -> tuple["Source", str]:
    """The images to measure and the name of their split; empty = the set has none."""
    shards, wanted = flag_values.tfrecord_dir, flag_values.split
    if shards:
        if flag_values.image_dir or flag_values.manifest:
            raise UserError("give one of --image_dir, --manifest and --tfrecord_dir")
        from data_prep.sources.tfrecord import ALL, read_facts

        _, facts = read_facts(shards)
        splits = tuple(name for name in facts if name != ALL)
    else:
        manifest = open_declared_images(flag_values)
        splits = manifest.splits
    if splits and wanted not in splits:
        raise UserError(f"--split={wanted}: the set has only {', '.join(splits)}")
    split = wanted if splits else ""
    if not splits:
        logger.warning(
            "the set has no splits, so all images count, those you will test on too; split it"
            " first (simclr-split)"
        )
    elif split != "train":
        logger.warning("these are numbers of the %s images: use none of them in training", split)
    import_tensorflow()
    from data_prep.sources.manifest_source import ManifestSource
    from data_prep.sources.streams import TFRecordSource

    channels = flag_values.image_channels
    if shards:
        return TFRecordSource(shards, split, channels=channels), split
    part = manifest.split(split) if split else manifest
    return ManifestSource(part, manifest.class_names, channels, cache="false"), split


def _content(measured: "SetStatistics", split: str) -> dict[str, Any]:
    """Returns the content of the JSON file."""
    from data_prep.statistics import (
        PERCENTILES,
        class_weights,
        suggest_finetuning,
        suggest_pretraining,
    )

    pixels, counts = measured.pixels, measured.class_counts
    weights = class_weights(counts)
    labelled = sum(counts.values())
    suggestions = {"pretraining": asdict(suggest_pretraining(measured.images))}
    if len(weights) > 1:
        suggestions["fine-tuning"] = asdict(suggest_finetuning(labelled))
    low_height, high_height, low_width, high_width = measured.sizes
    return {
        "split": split,
        "images": measured.images,
        "unlabelled": measured.unlabelled,
        "height": [low_height, high_height],
        "width": [low_width, high_width],
        "pixels": pixels.count,
        "value_range": [0, 1],
        "mean": pixels.mean.tolist(),
        "std": pixels.std.tolist(),
        "min": pixels.min.tolist(),
        "max": pixels.max.tolist(),
        "percentiles": {f"{p:g}": pixels.percentile(p).tolist() for p in PERCENTILES},
        "classes": {
            name: {"images": number, "weight": weights.get(name)} for name, number in counts.items()
        },
        "suggestions": suggestions,
    }


def _table(measured: "SetStatistics", content: dict[str, Any]) -> str:
    heights, widths = content["height"], content["width"]
    which = f"of split {content['split']}" if content["split"] else "(no splits)"
    lines = [
        f"{counted(content['images'], 'image')} {which}, {_span(heights)} x {_span(widths)} pixels,"
        " values in [0, 1]",
        "",
        f"{'channel':<10}" + "".join(f"{name:>10}" for name in ("mean", "std", "min", "max"))
        + "".join(f"{p + ' %':>10}" for p in ("1", "50", "99")),
    ]  # fmt: skip
    rows = [content[name] for name in ("mean", "std", "min", "max")]
    rows += [content["percentiles"][p] for p in ("1", "50", "99")]
    for channel, values in enumerate(zip(*rows, strict=True)):
        lines.append(f"{channel:<10}" + "".join(f"{value:>10.5f}" for value in values))
    if content["classes"]:
        width = max(10, 2 + max(map(len, content["classes"])))
        lines += ["", f"{'class':<{width}}{'images':>10}{'weight':>10}"]
        for name, row in content["classes"].items():
            weight = "-" if row["weight"] is None else f"{row['weight']:.4f}"
            lines.append(f"{name:<{width}}{row['images']:>10}{weight:>10}")
        if measured.unlabelled:
            lines.append(f"{'no label':<{width}}{measured.unlabelled:>10}{'-':>10}")
    lines += ["", f"{'to start from':<16}{'batch':>8}{'epochs':>8}{'updates':>9}"]
    for name, plan in content["suggestions"].items():
        batch, epochs, updates = plan["batch_size"], plan["epochs"], plan["updates"]
        lines.append(f"{name:<16}{batch:>8}{epochs:>8}{updates:>9}")
    return "\n".join(lines)


def _span(bounds: list[int]) -> str:
    low, high = bounds
    return str(low) if low == high else f"{low} to {high}"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-stats`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
