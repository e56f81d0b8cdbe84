"""What a recipe makes of one's own images, as rows of a sheet."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from itertools import chain, zip_longest

import numpy as np
import tensorflow as tf

from data_prep.augment.contact_sheet import SheetRow
from data_prep.augment.copy_files import encode_like, kept_reading
from data_prep.augment.copying import CopyPlan, copy_pixels, part_name, part_of
from data_prep.augment.draws import small_crop_seed
from data_prep.augment.image_data_generator import SupervisedConfig, resized, supervised_image
from data_prep.augment.views import ViewConfig, device_views, example_seed, host_views
from data_prep.errors import UserError
from data_prep.manifest.groups import inner_paths
from data_prep.manifest.manifest import Manifest, Record
from data_prep.reading.images import read_image, read_stored

ORIGINAL = "image"


def chosen_images(manifest: Manifest, number: int) -> Manifest:
    """A few images: the first of every class, then the second, ...; training images if split."""
    if "train" in manifest.splits:
        manifest = manifest.split("train")
    classes: dict[str, list[Record]] = defaultdict(list)
    for record in manifest.records:
        classes[record.label].append(record)
    turns = chain.from_iterable(zip_longest(*(classes[name] for name in sorted(classes))))
    return manifest.subset([record for record in turns if record][:number])


def view_rows(
    manifest: Manifest, config: ViewConfig, seed: int = 0, small: ViewConfig | None = None
) -> tuple[list[str], list[SheetRow]]:
    """The views that pretraining sees: names of the columns, and a row an image.

    Args:
        manifest: The images.
        config: The recipe.
        seed: Of the run.
        small: That of small crops beside the views.
    """
    names, images = _named(manifest), list(_images(manifest, config.channels))
    seeds = [example_seed(seed, 0, index) for index in range(len(images))]
    shown = [list(views) for views in _finished_views(images, seeds, config)]
    columns = [ORIGINAL, *_view_names(config)]
    if small:
        crops = _finished_views(images, [small_crop_seed(own) for own in seeds], small)
        shown = [[*views, *others] for views, others in zip(shown, crops, strict=True)]
        columns += [f"small crop {n + 1}" for n in range(small.num_views)]
    rows = [
        SheetRow(name, [image, *views])
        for name, image, views in zip(names, images, shown, strict=True)
    ]
    return columns, rows


def _finished_views(
    images: list[np.ndarray], seeds: list[tf.Tensor], config: ViewConfig
) -> np.ndarray:
    """Views [n, V, S, S, C] of images, float32 in [0, 1]."""
    made = [
        host_views(tf.constant(image), seed, config)
        for image, seed in zip(images, seeds, strict=True)
    ]
    # One batch, whatever the images' type: its photometry is compiled once.
    views = tf.stack([_to_float(view) for view, _ in made])
    finished: np.ndarray = device_views(
        views, tf.stack([draws for _, draws in made]), config
    ).numpy()
    return finished


def _view_names(config: ViewConfig) -> list[str]:
    """`view 1`, `view 2`, ...; where views are of several kinds, which kind and which draw."""
    kinds = config.kinds_of_views
    if kinds == 1:
        return [f"view {n + 1}" for n in range(config.num_views)]
    return [f"view {n % kinds + 1}, draw {n // kinds + 1}" for n in range(config.num_views)]


def supervised_rows(
    manifest: Manifest,
    config: SupervisedConfig,
    *,
    channels: int,
    image_size: int,
    epochs: int,
    seed: int = 0,
) -> tuple[list[str], list[SheetRow]]:
    """The images that transfer learning sees in its first epochs, before any standardization."""
    rows = []
    for index, (name, image) in enumerate(
        zip(_named(manifest), _images(manifest, channels), strict=True)
    ):
        pixels = resized(tf.constant(image), image_size, image_size)
        made = [
            supervised_image(pixels, example_seed(seed, epoch, index), config).numpy() / 255
            for epoch in range(epochs)
        ]
        rows.append(SheetRow(name, [image, *made]))
    return [ORIGINAL, *(f"epoch {n + 1}" for n in range(epochs))], rows


def copy_rows(manifest: Manifest, number: int, plan: CopyPlan) -> tuple[list[str], list[SheetRow]]:
    """The very copies that `folder.write_copies` makes of a few images of a set."""
    rows = []
    identities = dict(zip(manifest.records, inner_paths(manifest), strict=True))
    chosen = chosen_images(manifest, number)
    for name, record, file in zip(_named(chosen), chosen.records, chosen.files(), strict=True):
        identity = identities[record] + part_name(record)
        pixels = part_of(read_stored(file, record.reading, spread=True), record)
        images = [read_image(file, None, record.reading, record.tile)]
        for operation, which in plan.copies_of_one():
            try:
                made = copy_pixels(pixels, operation, which, identity, plan.seed)
            except UserError as error:
                raise UserError(f"{file}: {error}") from None
            ending, content = encode_like(made, file, record.reading)
            images.append(read_image(content, None, kept_reading(record.reading, ending)))
        rows.append(SheetRow(name, images))
    many = [f"{operation} {number + 1}" for operation, number in plan.copies_of_one()]
    titles = [name.removesuffix(" 1") if plan.copies == 1 else name for name in many]
    return [ORIGINAL, *titles], rows


def _named(manifest: Manifest) -> list[tuple[str, ...]]:
    """Class and name of every image."""
    return [
        tuple(filter(None, (record.label, os.path.basename(record.picture_name), record.tile)))
        for record in manifest.records
    ]


def _images(manifest: Manifest, channels: int) -> Iterator[np.ndarray]:
    for file, record in zip(manifest.files(), manifest.records, strict=True):
        yield read_image(file, channels, record.reading, record.tile)


def _to_float(views: tf.Tensor) -> tf.Tensor:
    return tf.image.convert_image_dtype(views, tf.float32)
