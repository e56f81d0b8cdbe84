"""`simclr-stats`: mean and spread of an image set, class weights, batch size to start from."""

import json
import logging
import sys
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.errors import UserError
from data_prep.outputs import requested_outputs
from data_prep.phrases import counted
from data_prep.sections import StatsConfig

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


def run(config: StatsConfig, given: Collection[str]) -> int:
    """Prints the numbers, and writes them if asked to."""
    output = config.measure.output
    outputs = requested_outputs(config, given, NAME) if output else None
    if outputs and (code := outputs.code_if_complete()) is not None:
        return code
    if output and not Path(output).absolute().parent.is_dir():
        parent = Path(output).absolute().parent
        raise UserError(f"there is no folder {parent}", setting="output", value=output)
    source, split = _open(config)
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


def _open(config: StatsConfig) -> tuple["Source", str]:
    """The images to measure and the name of their split; empty = the set has none."""
    images, shards, wanted = config.images, config.images.tfrecord_dir, config.measure.split
    if shards:
        if images.image_dir or images.manifest:
            raise UserError("give one of --image_dir, --manifest and --tfrecord_dir")
        from data_prep.sources.tfrecord import ALL, read_facts

        _, facts = read_facts(shards)
        splits = tuple(name for name in facts if name != ALL)
    else:
        from data_prep.manifest.open_images import open_training_images

        manifest = open_training_images(images, config.reading, progress_lines("pictures"))
        splits = manifest.splits
    if splits and wanted not in splits:
        raise UserError(f"the set has only {', '.join(splits)}", setting="split", value=wanted)
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

    channels = images.image_channels
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
    labeled = sum(counts.values())
    suggestions = {"pretraining": asdict(suggest_pretraining(measured.images))}
    if len(weights) > 1:
        suggestions["fine-tuning"] = asdict(suggest_finetuning(labeled))
    low_height, high_height, low_width, high_width = measured.sizes
    return {
        "split": split,
        "images": measured.images,
        "unlabelled": measured.unlabeled,
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
        if measured.unlabeled:
            lines.append(f"{'no label':<{width}}{measured.unlabeled:>10}{'-':>10}")
    lines += ["", f"{'to start from':<16}{'batch':>8}{'epochs':>8}{'updates':>9}"]
    for name, plan in content["suggestions"].items():
        batch, epochs, updates = plan["batch_size"], plan["epochs"], plan["updates"]
        lines.append(f"{name:<16}{batch:>8}{epochs:>8}{updates:>9}")
    return "\n".join(lines)


def _span(bounds: list[int]) -> str:
    low, high = bounds
    return str(low) if low == high else f"{low} to {high}"


COMMAND = Command(NAME, DESCRIPTION, StatsConfig, run, positional=("image_dir", "output"))
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
