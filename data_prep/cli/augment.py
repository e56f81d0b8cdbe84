"""`simclr-augment`: augmented copies of the training images on disk, and sheets of any recipe."""

import logging
import sys
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from data_prep.augment.config import PAPER_VIEWS, ViewConfig, ViewSettings
from data_prep.augment.copy_operations import EXACT, RANDOM, STRONGER, STRONGER_LIST
from data_prep.augment.image_data_generator_config import (
    GENERATOR_RECIPE,
    TURN_RECIPE,
    FillMode,
    SupervisedConfig,
)
from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow, progress_lines
from data_prep.errors import UserError
from data_prep.outputs import requested_outputs
from data_prep.sections import ImageSettings
from data_prep.settings import Config, setting

if TYPE_CHECKING:
    from data_prep.augment.contact_sheet import SheetRow
    from data_prep.augment.copies import CopyPlan
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
_COPY_FLAGS = ("operations", "copies")
_FLIPS = ("horizontal_flip", "vertical_flip")
_VIEW_FLAGS = tuple(f.name for f in fields(ViewSettings) if f.name not in ("image_size", *_FLIPS))
_SHIFT = (
    "Shift {} by up to this share (below 1) or so many pixels (from 1); several numbers: by one of "
    "them."
)


@dataclass(frozen=True)
class CopySettings:
    """Copies."""

    output: str = setting("", "New folder to write to.")
    operations: tuple[str, ...] = setting(("hflip", "vflip", "rot180"), "What copies are made by.")
    copies: int = setting(1, "Copies by each operation with random numbers.")
    seed: int = setting(0, "Another seed, other random numbers.")
    tree_mode: Literal["hardlink", "symlink", "copy", "list"] = setting(
        "hardlink",
        "How the images themselves get to --output; list: they stay, the manifest names them.",
    )
    workers: int = setting(0, "Images at the same time; 0: one a processor.", low=0)


@dataclass(frozen=True)
class PreviewSettings:
    """Preview."""

    preview: str = setting("", "New PNG to draw on; nothing else is written.")
    recipe: Literal[
        "copies", "stronger", "simclr", "finetune", "moco", "byol", "swav", "supervised",
        "generator", "turn",
    ] = setting("copies", "What is drawn.")  # fmt: skip
    preview_images: int = setting(6, "Images, of every class in turn.", low=1)
    preview_views: int = setting(6, "Views, or epochs, of each image.", low=1)


@dataclass(frozen=True)
class PreviewedViews(ViewSettings):
    """Views: --recipe=simclr, finetune, moco, byol, swav; flips of supervised, too."""

    TITLE: ClassVar[str] = "Views: --recipe=simclr, finetune, moco, byol, swav (flips: supervised)"

    horizontal_flip: bool | None = setting(None, "Mirror left to right (simclr does).")  # type: ignore[assignment]
    vertical_flip: bool | None = setting(None, "Mirror top to bottom.")  # type: ignore[assignment]
    gray_probability: float | None = setting(  # type: ignore[assignment]
        None, "Share of grey views (0.2).", low=0, high=1
    )

    def share_of_gray(self) -> float | None:
        """The share that is given, or else SimCLR's."""
        return self.gray_probability


@dataclass(frozen=True)
class SmallCropSettings:
    """--recipe=swav."""

    TITLE: ClassVar[str] = "--recipe=swav"

    small_crops: int = setting(6, "Small crops beside the two views.")
    small_crop_size: int = setting(0, "Their side in pixels; 0: 3/7 of --image_size.")
    small_crop_area: float = setting(0.14, "Their largest share of the area, the views' smallest.")


@dataclass(frozen=True)
class GeneratorSettings:
    """--recipe=supervised."""

    TITLE: ClassVar[str] = "--recipe=supervised"

    rotation_range: float = setting(0.0, "Turn by up to so many degrees.")
    width_shift_range: tuple[str, ...] = setting(("0",), _SHIFT.format("sideways"))
    height_shift_range: tuple[str, ...] = setting(("0",), _SHIFT.format("up and down"))
    brightness_range: tuple[str, ...] = setting((), "LOW,HIGH: factor of the brightness.")
    shear_range: float = setting(0.0, "Shear by up to so many degrees.")
    zoom_range: tuple[str, ...] = setting(("0",), "LOW,HIGH, or Z for 1-Z,1+Z.")
    channel_shift_range: float = setting(0.0, "Add up to so many of 255 levels.")
    fill_mode: FillMode = setting("nearest", "What lies beyond the edge.")
    cval: float = setting(0.0, "The value there for constant, 0 to 255.")


_SMALL_CROP_FLAGS = tuple(f.name for f in fields(SmallCropSettings))
_SUPERVISED_FLAGS = tuple(f.name for f in fields(GeneratorSettings))


@dataclass(frozen=True)
class AugmentConfig(Config):
    """All settings of `simclr-augment`."""

    images: ImageSettings = field(default_factory=ImageSettings)
    copies: CopySettings = field(default_factory=CopySettings)
    preview: PreviewSettings = field(default_factory=PreviewSettings)
    views: PreviewedViews = field(default_factory=PreviewedViews)
    small_crops: SmallCropSettings = field(default_factory=SmallCropSettings)
    generator: GeneratorSettings = field(default_factory=GeneratorSettings)

    def validate(self) -> None:
        """Checks every setting, and what only fits together."""
        super().validate()
        if bool(self.copies.output) == bool(self.preview.preview):
            raise UserError(
                "give either --output=FOLDER for copies, or --preview=FILE.png for a sheet"
            )


def run(config: AugmentConfig, given: Collection[str]) -> None:
    """Writes the copies, or draws the sheet, that the settings ask for."""
    if config.preview.preview:
        _draw(config, given)
    else:
        _write(config)


def _write(config: AugmentConfig) -> None:
    from data_prep.augment.copies import write_copies
    from data_prep.manifest.open_images import open_images

    copies, plan = config.copies, _plan(config.copies)
    images = open_images(config.images)
    if any(name not in EXACT for name in plan.operations):
        import_tensorflow()
        _compute_on_one_thread()
    result = write_copies(
        images,
        copies.output,
        plan,
        copies.tree_mode,
        workers=copies.workers,
        progress=progress_lines("copies"),
    )
    print(f"before\n{images.table()}\n\nafter\n{result.table()}")
    logger.info("wrote %d copies to %s", len(result) - len(images), copies.output)


def _compute_on_one_thread() -> None:
    """The order of sums must not depend on the machine; images are worked on in parallel."""
    import tensorflow as tf

    # In a process that has computed before, such as a notebook, it is too late.
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def _plan(copies: CopySettings) -> "CopyPlan":
    from data_prep.augment.copies import CopyPlan

    return CopyPlan(copies.operations, copies.copies, copies.seed)


def _draw(config: AugmentConfig, given: Collection[str]) -> None:
    from data_prep.augment.contact_sheet import write_sheet
    from data_prep.manifest.open_images import open_images
    from data_prep.storage import check_new_png

    place, recipe = config.preview.preview, config.preview.recipe
    outputs = requested_outputs(config, given, NAME, ["preview"])
    if outputs.code_if_complete() is not None:
        return
    check_new_png(place, "preview")
    _check_recipe(recipe, given)
    config = config.completed(PAPER_VIEWS.get(recipe, {}), given)
    images = open_images(config.images)
    columns, rows = _rows(config, images)
    with outputs.drafts() as drafts:
        write_sheet(drafts.paths[0], _title(config, given), columns, rows)
    logger.info("drew %s", place)


def _check_recipe(recipe: str, given: Collection[str]) -> None:
    """Raises UserError for a flag that the recipe makes nothing of."""
    taken = {
        "copies": _COPY_FLAGS,
        **dict.fromkeys(_VIEW_RECIPES, (*_FLIPS, *_VIEW_FLAGS)),
        "swav": (*_FLIPS, *_VIEW_FLAGS, *_SMALL_CROP_FLAGS),
        "supervised": (*_FLIPS, *_SUPERVISED_FLAGS),
    }
    for name in (*_COPY_FLAGS, *_FLIPS, *_VIEW_FLAGS, *_SMALL_CROP_FLAGS, *_SUPERVISED_FLAGS):
        if name in given and name not in taken.get(recipe, ()):
            others = [other for other, names in taken.items() if name in names]
            raise UserError(
                f"--{name} does not belong to --recipe={recipe}, but to {', '.join(others)}"
            )
    if recipe == "swav" and "preview_views" in given:
        raise UserError("swav has two views and --small_crops small crops", setting="preview_views")


def _rows(config: AugmentConfig, images: "Manifest") -> "tuple[list[str], list[SheetRow]]":
    import_tensorflow()
    from data_prep.augment import contact_sheet
    from data_prep.augment.copies import CopyPlan
    from data_prep.manifest.scan import image_facts

    p, seed = config.preview, config.copies.seed
    if p.recipe == STRONGER:
        plan = CopyPlan((STRONGER,), p.preview_views, seed)
        return contact_sheet.copy_rows(images, p.preview_images, plan)
    if p.recipe == "copies":
        return contact_sheet.copy_rows(images, p.preview_images, _plan(config.copies))
    chosen = contact_sheet.chosen_images(images, p.preview_images)
    channels = image_facts(chosen).channels
    if p.recipe in _VIEW_RECIPES:
        views = previewed_views(config, channels)
        return contact_sheet.view_rows(chosen, views, seed, previewed_crops(config, views))
    return contact_sheet.supervised_rows(
        chosen,
        _PRESETS.get(p.recipe) or generator_of(config),
        channels=channels,
        image_size=config.views.image_size,
        epochs=p.preview_views,
        seed=seed,
    )


def previewed_views(config: AugmentConfig, channels: int) -> ViewConfig:
    """The views that a recipe of views draws."""
    recipe, number = config.preview.recipe, config.preview.preview_views
    flips = {"horizontal_flip": config.views.horizontal_flip is not False,
             "vertical_flip": bool(config.views.vertical_flip)}  # fmt: skip
    least_area = config.small_crops.small_crop_area if _has_small_crops(config) else 0.0
    settings = replace(config.views, **flips)  # type: ignore[arg-type]
    views = settings.view_config(channels, 2 if recipe == "swav" else number, least_area)
    return replace(views.for_finetuning(), num_views=number) if recipe == "finetune" else views


def _has_small_crops(config: AugmentConfig) -> bool:
    return config.preview.recipe == "swav" and config.small_crops.small_crops > 0


def previewed_crops(config: AugmentConfig, views: ViewConfig) -> ViewConfig | None:
    """Small crops as a run of SwAV has them; None if there are none."""
    from data_prep.augment.views import small_views

    if not _has_small_crops(config):
        return None
    small = config.small_crops
    size = small.small_crop_size or round(config.views.image_size * 3 / 7)
    return small_views(views, size, small.small_crops, small.small_crop_area)


def generator_of(config: AugmentConfig) -> SupervisedConfig:
    """The arguments of ImageDataGenerator that `--recipe=supervised` draws."""
    values: dict[str, Any] = {
        name: _numbers(name, value) if isinstance(value, tuple) else value
        for name, value in vars(config.generator).items()
    }
    values["brightness_range"] = values["brightness_range"] or None
    for name in _FLIPS:
        values[name] = bool(getattr(config.views, name))
    return SupervisedConfig(**values)


def _numbers(name: str, texts: tuple[str, ...]) -> float | tuple[float, ...]:
    """One number, or several; whole ones stay whole (they mean another thing for shifts)."""
    try:
        numbers = tuple(int(t) if t.strip().isdecimal() else float(t) for t in texts)
    except ValueError:
        raise UserError("must be numbers", setting=name, value=texts) from None
    return numbers[0] if len(numbers) == 1 else numbers


def _title(config: AugmentConfig, given: Collection[str]) -> str:
    values = config.values()
    shown = [
        f"--{name}={_shown(values[name])}"
        for name in values
        if name in given and name not in {"image_dir", "manifest", "preview", "recipe"}
    ]
    if config.preview.recipe == "copies":
        shown = [f"--copies={config.copies.copies}", f"--seed={config.copies.seed}"]
    return " ".join([f"--recipe={config.preview.recipe}", *shown])


def _shown(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


COMMAND = Command(
    NAME,
    DESCRIPTION,
    AugmentConfig,
    run,
    basics=(
        "image_dir", "manifest", "output", "operations", "copies", "seed", "tree_mode", "preview",
        "recipe", "preview_images", "preview_views", "image_size",
    ),
    positional=("image_dir", "output"),
)  # fmt: skip
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
