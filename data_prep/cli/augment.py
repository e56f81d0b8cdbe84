"""`simclr-augment`: augmented copies of the training images on disk, and sheets of any recipe."""

import logging
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from absl import flags

from data_prep.augment.config import JITTER_IMPLS, PAPER_VIEWS, parse_shares
from data_prep.augment.copy_operations import EXACT, RANDOM, STRONGER, STRONGER_LIST
from data_prep.augment.image_data_generator_config import (
    FILL_MODES,
    GENERATOR_RECIPE,
    TURN_RECIPE,
    SupervisedConfig,
)
from data_prep.cli.app import run_app, topic
from data_prep.cli.image_flags import define_images, open_images
from data_prep.cli.request import asked
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.errors import UserError

if TYPE_CHECKING:
    from data_prep.augment.contact_sheet import SheetRow
    from data_prep.augment.copies import CopyPlan
    from data_prep.augment.views import ViewConfig
    from data_prep.manifest.manifest import Manifest

NAME = "simclr-augment"
_STRONGER = ", ".join(f"{name} {probability:g}" for name, probability in STRONGER_LIST)
DESCRIPTION = f"""Writes augmented copies of training images, or draws what a recipe makes of them.

--output=FOLDER gets all images of a set that has been split, and beside the training images their
copies, with a manifest. Copies are made after the split and of training images only: images without
splits are refused (simclr-split makes them). Exact operations, one copy each: {", ".join(EXACT)}.
Operations with random numbers, --copies each:
{"; ".join(f"{n} ({o.meaning})" for n, o in RANDOM.items())}. stronger does several, each with its
probability: {_STRONGER}.

--preview=FILE.png draws a few images and what becomes of them. --recipe=copies: the copies that
--operations asks for; stronger: several of that. simclr, finetune: the views of SimCLR's
pretraining and fine-tuning. moco, byol, swav: those of these methods' papers, as simclr-run has
them with --preset=moco_views and so on. supervised: Keras' ImageDataGenerator with the flags below.
generator: it with 30 degrees, turn: a tenth of a turn, the two recipes of the STEM lattices."""

logger = logging.getLogger("data_prep.augment")

_VIEW_RECIPES = ("simclr", "finetune", *PAPER_VIEWS)
_PRESETS = {"generator": GENERATOR_RECIPE, "turn": TURN_RECIPE}
RECIPES = ("copies", STRONGER, *_VIEW_RECIPES, "supervised", *_PRESETS)
_COPY_FLAGS = ("operations", "copies")
_FLIPS = ("horizontal_flip", "vertical_flip")
_VIEW_FLAGS = (
    "color_jitter_strength",
    "use_blur",
    "random_crop",
    "min_crop_area",
    "min_crop_aspect",
    "right_angle_rotation",
    "rotation_degrees",
    "central_crop",
    "whole_image",
    "jitter_impl",
    "gray_probability",
    "saturation_share",
    "blur_probability",
    "solarize_probability",
)
_SMALL_CROP_FLAGS = ("small_crops", "small_crop_size", "small_crop_area")
_SUPERVISED_FLAGS = (
    "rotation_range",
    "width_shift_range",
    "height_shift_range",
    "brightness_range",
    "shear_range",
    "zoom_range",
    "channel_shift_range",
    "fill_mode",
    "cval",
)
_SHIFT = (
    "Shift {} by up to this share (below 1) or so many pixels (from 1); several numbers: by one of"
    " them."
)


def define(flag_values: flags.FlagValues) -> None:
    """Defines the flags."""
    own: dict[str, Any] = {"flag_values": flag_values}
    define_images(flag_values)
    with topic(flag_values, "Copies"):
        flags.DEFINE_string("output", None, "New folder to write to.", **own)
        flags.DEFINE_list(
            "operations", ["hflip", "vflip", "rot180"], "What copies are made by.", **own
        )
        flags.DEFINE_integer("copies", 1, "Copies by each operation with random numbers.", **own)
        flags.DEFINE_integer("seed", 0, "Another seed, other random numbers.", **own)
        flags.DEFINE_enum(
            "tree_mode",
            "hardlink",
            ["hardlink", "symlink", "copy", "list"],
            "How the images themselves get to --output; list: they stay, the manifest names them.",
            **own,
        )
        flags.DEFINE_integer("workers", 0, "Images at the same time; 0: one a processor.", **own)
    with topic(flag_values, "Preview"):
        flags.DEFINE_string("preview", None, "New PNG to draw on; nothing else is written.", **own)
        flags.DEFINE_enum("recipe", "copies", RECIPES, "What is drawn.", **own)
        flags.DEFINE_integer("preview_images", 6, "Images, of every class in turn.", **own)
        flags.DEFINE_integer("preview_views", 6, "Views, or epochs, of each image.", **own)
        flags.DEFINE_integer("image_size", 224, "Side of the network's input in pixels.", **own)
        flags.DEFINE_bool("horizontal_flip", None, "Mirror left to right (simclr does).", **own)
        flags.DEFINE_bool("vertical_flip", None, "Mirror top to bottom.", **own)
    _define_views(flag_values, own)
    _define_supervised(flag_values, own)


def _define_views(flag_values: flags.FlagValues, own: dict[str, Any]) -> None:
    with topic(flag_values, f"--recipe={', '.join(_VIEW_RECIPES)}"):
        flags.DEFINE_float("color_jitter_strength", 1.0, "Strength of colour jitter.", **own)
        flags.DEFINE_bool("use_blur", True, "Gaussian blur.", **own)
        flags.DEFINE_bool("random_crop", True, "Random crop and resize.", **own)
        flags.DEFINE_float("min_crop_area", 0.08, "Smallest share of the area of a crop.", **own)
        flags.DEFINE_float("min_crop_aspect", 0.75, "Narrowest aspect of a crop.", **own)
        flags.DEFINE_bool(
            "right_angle_rotation", False, "Turn by 0, 90, 180 or 270 degrees.", **own
        )
        flags.DEFINE_float("rotation_degrees", 0.0, "Turn by up to so many degrees.", **own)
        flags.DEFINE_float("central_crop", 0.0, "Keep this central share first; 0: all.", **own)
        flags.DEFINE_bool(
            "whole_image", False, "Squeeze all of an image into the square, without crop.", **own
        )
        flags.DEFINE_enum(
            "jitter_impl", "simclrv2", JITTER_IMPLS, "Brightness multiplied or added.", **own
        )
        flags.DEFINE_float("gray_probability", None, "Share of grey views (0.2).", **own)
        flags.DEFINE_float(
            "saturation_share", 1.0, "Jitter of the saturation relative to brightness.", **own
        )
        flags.DEFINE_string(
            "blur_probability", "0.5", "Share of views blurred; A,B: of either view.", **own
        )
        flags.DEFINE_string(
            "solarize_probability", "0", "Share of views solarized; A,B: of either view.", **own
        )
    with topic(flag_values, "--recipe=swav"):
        flags.DEFINE_integer("small_crops", 6, "Small crops beside the two views.", **own)
        flags.DEFINE_integer(
            "small_crop_size", 0, "Their side in pixels; 0: 3/7 of --image_size.", **own
        )
        flags.DEFINE_float(
            "small_crop_area", 0.14, "Their largest share of the area, the views' smallest.", **own
        )


def _define_supervised(flag_values: flags.FlagValues, own: dict[str, Any]) -> None:
    with topic(flag_values, "--recipe=supervised"):
        flags.DEFINE_float("rotation_range", 0.0, "Turn by up to so many degrees.", **own)
        flags.DEFINE_list("width_shift_range", ["0"], _SHIFT.format("sideways"), **own)
        flags.DEFINE_list("height_shift_range", ["0"], _SHIFT.format("up and down"), **own)
        flags.DEFINE_list("brightness_range", [], "LOW,HIGH: factor of the brightness.", **own)
        flags.DEFINE_float("shear_range", 0.0, "Shear by up to so many degrees.", **own)
        flags.DEFINE_list("zoom_range", ["0"], "LOW,HIGH, or Z for 1-Z,1+Z.", **own)
        flags.DEFINE_float("channel_shift_range", 0.0, "Add up to so many of 255 levels.", **own)
        flags.DEFINE_enum("fill_mode", "nearest", FILL_MODES, "What lies beyond the edge.", **own)
        flags.DEFINE_float("cval", 0.0, "The value there for constant, 0 to 255.", **own)


def run(flag_values: flags.FlagValues) -> None:
    """Writes the copies, or draws the sheet, that the flags ask for."""
    if bool(flag_values.output) == bool(flag_values.preview):
        raise UserError("give either --output=FOLDER for copies, or --preview=FILE.png for a sheet")
    if flag_values.preview:
        _draw(flag_values)
    else:
        _write(flag_values)


def _write(flag_values: flags.FlagValues) -> None:
    from data_prep.augment.copies import write_copies

    if flag_values.workers < 0:
        raise UserError(f"--workers={flag_values.workers}: must be 0 or more")
    plan = _plan(flag_values)
    images = open_images(flag_values)
    if any(name not in EXACT for name in plan.operations):
        import_tensorflow()
        _compute_on_one_thread()
    result = write_copies(
        images,
        flag_values.output,
        plan,
        flag_values.tree_mode,
        workers=flag_values.workers,
        progress=progress_lines("copies"),
    )
    print(f"before\n{images.table()}\n\nafter\n{result.table()}")
    logger.info("wrote %d copies to %s", len(result) - len(images), flag_values.output)


def _compute_on_one_thread() -> None:
    """The order of sums must not depend on the machine; images are worked on in parallel."""
    import tensorflow as tf

    # In a process that has computed before, such as a notebook, it is too late.
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def _plan(flag_values: flags.FlagValues) -> "CopyPlan":
    from data_prep.augment.copies import CopyPlan

    return CopyPlan(tuple(flag_values.operations), flag_values.copies, flag_values.seed)


def _draw(flag_values: flags.FlagValues) -> None:
    from data_prep.augment.contact_sheet import write_sheet
    from data_prep.storage import check_new_png

    outputs = asked(flag_values, NAME, ["preview"])
    if outputs.code_if_complete() is not None:
        return
    check_new_png(flag_values.preview, "preview")
    _check_recipe(flag_values)
    for name, value in PAPER_VIEWS.get(flag_values.recipe, {}).items():
        flag_values.set_default(name, value)
    for name in ("preview_images", "preview_views", "image_size"):
        if flag_values[name].value < 1:
            raise UserError(f"--{name}={flag_values[name].value}: must be 1 or more")
    images = open_images(flag_values)
    columns, rows = _rows(flag_values, images)
    with outputs.drafts() as drafts:
        write_sheet(drafts.paths[0], _title(flag_values), columns, rows)
    logger.info("drew %s", flag_values.preview)


def _check_recipe(flag_values: flags.FlagValues) -> None:
    """Raises UserError for a flag that the recipe makes nothing of."""
    recipe = flag_values.recipe
    taken = {
        "copies": _COPY_FLAGS,
        **dict.fromkeys(_VIEW_RECIPES, (*_FLIPS, *_VIEW_FLAGS)),
        "swav": (*_FLIPS, *_VIEW_FLAGS, *_SMALL_CROP_FLAGS),
        "supervised": (*_FLIPS, *_SUPERVISED_FLAGS),
    }
    for name in (*_COPY_FLAGS, *_FLIPS, *_VIEW_FLAGS, *_SMALL_CROP_FLAGS, *_SUPERVISED_FLAGS):
        if flag_values[name].present and name not in taken.get(recipe, ()):
            others = [other for other, names in taken.items() if name in names]
            raise UserError(
                f"--{name} does not belong to --recipe={recipe}, but to {', '.join(others)}"
            )
    if recipe == "swav" and flag_values["preview_views"].present:
        raise UserError("--preview_views: swav has two views and --small_crops small crops")


def _rows(flag_values: flags.FlagValues, images: "Manifest") -> "tuple[list[str], list[SheetRow]]":
    import_tensorflow()
    from data_prep.augment import contact_sheet
    from data_prep.augment.copies import CopyPlan
    from data_prep.manifest.scan import image_facts

    number, seed = flag_values.preview_images, flag_values.seed
    if flag_values.recipe == STRONGER:
        plan = CopyPlan((STRONGER,), flag_values.preview_views, seed)
        return contact_sheet.copy_rows(images, number, plan)
    if flag_values.recipe == "copies":
        return contact_sheet.copy_rows(images, number, _plan(flag_values))
    chosen = contact_sheet.chosen_images(images, number)
    channels = image_facts(chosen).channels
    if flag_values.recipe in _VIEW_RECIPES:
        config = _view_config(flag_values, channels)
        return contact_sheet.view_rows(chosen, config, seed, _small_config(flag_values, config))
    return contact_sheet.supervised_rows(
        chosen,
        _PRESETS.get(flag_values.recipe) or _supervised_config(flag_values),
        channels=channels,
        image_size=flag_values.image_size,
        epochs=flag_values.preview_views,
        seed=seed,
    )


def _view_config(flag_values: flags.FlagValues, channels: int) -> "ViewConfig":
    from data_prep.augment.views import ViewConfig

    f = flag_values
    if not 0 < f.min_crop_aspect <= 1:
        raise UserError(f"--min_crop_aspect={f.min_crop_aspect:g}: must lie above 0, up to 1")
    swav = f.recipe == "swav"
    least_area = max(f.min_crop_area, f.small_crop_area) if _has_small_crops(f) else f.min_crop_area
    config = ViewConfig(
        image_size=f.image_size,
        channels=channels,
        num_views=2 if swav else f.preview_views,
        random_crop=f.random_crop,
        crop_area=(least_area, 1.0),
        crop_aspect=(f.min_crop_aspect, 1 / f.min_crop_aspect),
        horizontal_flip=f.horizontal_flip is not False,
        vertical_flip=bool(f.vertical_flip),
        right_angle_rotation=f.right_angle_rotation,
        rotation_degrees=f.rotation_degrees,
        central_crop=f.central_crop,
        whole_image=f.whole_image,
        color_jitter_strength=f.color_jitter_strength,
        jitter_impl=f.jitter_impl,
        gray_probability=f.gray_probability,
        blur=f.use_blur,
        saturation_share=f.saturation_share,
        blur_probability=parse_shares("blur_probability", f.blur_probability),
        solarize_probability=parse_shares("solarize_probability", f.solarize_probability),
    )
    if f.recipe == "finetune":
        return replace(config.for_finetuning(), num_views=f.preview_views)
    return config


def _has_small_crops(f: flags.FlagValues) -> bool:
    return f.recipe == "swav" and f.small_crops > 0


def _small_config(f: flags.FlagValues, views: "ViewConfig") -> "ViewConfig | None":
    """Small crops as a run of SwAV has them; None if there are none."""
    from data_prep.augment.views import small_views

    if not _has_small_crops(f):
        return None
    size = f.small_crop_size or round(f.image_size * 3 / 7)
    return small_views(views, size, f.small_crops, f.small_crop_area)


def _supervised_config(flag_values: flags.FlagValues) -> SupervisedConfig:
    values: dict[str, Any] = {}
    for field in fields(SupervisedConfig):
        if field.name in flag_values:
            value = flag_values[field.name].value
            values[field.name] = _numbers(field.name, value) if isinstance(value, list) else value
    values["brightness_range"] = values["brightness_range"] or None
    for name in ("horizontal_flip", "vertical_flip"):
        values[name] = bool(values[name])
    return SupervisedConfig(**values)


def _numbers(name: str, texts: list[str]) -> float | tuple[float, ...]:
    """One number, or several; whole ones stay whole (they mean another thing for shifts)."""
    try:
        numbers = tuple(int(t) if t.strip().isdecimal() else float(t) for t in texts)
    except ValueError:
        raise UserError(f"--{name}={','.join(texts)}: must be numbers") from None
    return numbers[0] if len(numbers) == 1 else numbers


def _title(flag_values: flags.FlagValues) -> str:
    given = [
        f"--{name}={_shown(flag_values[name].value)}"
        for name in flag_values
        if flag_values[name].present and name not in {"image_dir", "manifest", "preview", "recipe"}
    ]
    if flag_values.recipe == "copies":
        given = [f"--copies={flag_values.copies}", f"--seed={flag_values.seed}"]
    return " ".join([f"--recipe={flag_values.recipe}", *given])


def _shown(value: Any) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `simclr-augment`."""
    return run_app(run, define, argv, name=NAME, description=DESCRIPTION)


if __name__ == "__main__":
    sys.exit(main())
