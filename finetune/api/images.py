"""Image sets in Python: a folder, a CSV or shards, to be checked, divided, shown and trained on."""

import html
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.open_images import open_declared
from data_prep.manifest.read_options import Declaration
from data_prep.phrases import counted
from data_prep.reading import images as reader
from data_prep.sections import SplitConfig
from finetune.api.call import speaking_python

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from data_prep.check.check import CheckResult

PathLike = str | os.PathLike[str]
Progress = Callable[[int, int], None]
_SHOWN = 8


class ImageSet:
    """Images, with labels, splits and groups where there are any.

    Args:
        manifest: The records.
        source: The folder or CSV that they are read from as they stand; empty if they were
            changed since.
    """

    def __init__(self, manifest: Manifest, source: Mapping[str, Any] | None = None) -> None:
        self._manifest, self._source = manifest, dict(source or {})

    def __len__(self) -> int:
        return len(self._manifest)

    def __repr__(self) -> str:
        splits = f", splits {', '.join(self.splits)}" if self.splits else ""
        return (
            f"ImageSet({counted(len(self), 'image')} of"
            f" {counted(len(self.class_names), 'class')}{splits})"
        )

    def _repr_html_(self) -> str:
        from finetune.api.html import gallery, table

        counts = Counter((record.label, record.split) for record in self._manifest.records)
        splits = self.splits or ("",)
        labels = dict.fromkeys((*self.class_names, *(label for label, _ in counts)))
        rows = [(label or "no label", *(counts[label, split] for split in splits))
                for label in labels]  # fmt: skip
        body = table(("class", *(split or "images" for split in splits)), rows)
        return f"<p>{html.escape(repr(self))}</p>{body}{gallery(self._sample(_SHOWN))}"

    @property
    def manifest(self) -> Manifest:
        """The records."""
        return self._manifest

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return self._manifest.class_names

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits; empty if the images are not divided."""
        return self._manifest.splits

    @property
    def paths(self) -> list[str]:
        """The file of every image."""
        return self._manifest.files()

    @property
    def labels(self) -> list[str]:
        """The label of every image; "" = unknown."""
        return [record.label for record in self._manifest.records]

    def counts(self) -> dict[str, int]:
        """Images of every class."""
        return dict(Counter(self.labels))

    def subset(self, split: str) -> "ImageSet":
        """The images of one split.

        Raises:
            UserError: There is no such split.
        """
        if split not in self.splits:
            raise UserError(f"split={split!r}: there are {', '.join(self.splits) or 'no splits'}")
        return ImageSet(self._manifest.split(split))

    @speaking_python
    def split(self, ratios: Mapping[str, float] | str = "", **settings: Any) -> "ImageSet":
        """Divides the images; groups, copies and look-alikes stay on one side.

        Args:
            ratios: Share by name, such as `{"train": 0.7, "test": 0.3}`.
            **settings: Those of `simclr split`: `seed`, `group_by`, `near_duplicates`, ...

        Raises:
            UserError: A division that is impossible, or `folds`, for which there is `folds`.
        """
        from data_prep.manifest.split_request import make_splits

        text = ratios
        if isinstance(ratios, Mapping):
            text = ",".join(f"{name}:{share:g}" for name, share in ratios.items())
        if settings.get("folds"):
            raise UserError("folds make several sets: call simclr_tf.folds, or simclr split")
        listed = self._source.get("manifest", "")
        values = {"ratios": text, "manifest": listed, **settings, "output": "-"}
        division = make_splits(self._manifest, SplitConfig.from_values(values))
        return ImageSet(next(iter(division.parts.values())))

    @speaking_python
    def check(self, output: PathLike = "", **settings: Any) -> "CheckResult":
        """Looks for what would spoil the numbers of a model.

        Args:
            output: Folder for the page `report.html` and the findings as `check.json`, which
                replace those of an earlier check; "" = none.
            **settings: `near_distance` and `seed` of `simclr check`.

        Returns:
            The findings: `findings`, `worst()`, `to_json()`.
        """
        from data_prep.check.check import check
        from data_prep.check.page import write_check
        from data_prep.manifest.scan import list_with_left_out

        # Of a folder as it stands it is known what is left out.
        folder = self._source["image_dir"] if set(self._source) == {"image_dir"} else ""
        left_out = list_with_left_out(folder)[1] if folder else None
        checked = check(
            self._manifest, left_out=left_out, **{"near_distance": 8, "seed": 0, **settings}
        )
        if output:
            what = folder or self._source.get("manifest") or counted(len(self), "image")
            write_check(Path(output), checked, what)
        return checked

    def show(self, count: int = 16) -> "Figure":
        """Draws some of the images, of every class in turn.

        Args:
            count: How many.
        """
        from finetune.api.html import contact_figure

        return contact_figure(self._sample(count))

    def to_csv(self, path: PathLike) -> Path:
        """Writes the images as a manifest, which every command and function takes.

        Args:
            path: A new file, or one to replace.
        """
        self._manifest.save(Path(path))
        return Path(path)

    def to_pandas(self) -> Any:
        """The records as a pandas data frame."""
        from finetune.api.html import data_frame

        names = ("path", "label", "split", "group", "tile", "reading")
        return data_frame(
            {name: [getattr(r, name) for r in self._manifest.records] for name in names}
        )

    def settings(self, beside: Path) -> dict[str, Any]:
        """The settings by which a command reads these images.

        Args:
            beside: Where a manifest may be written, if they were changed since they were read.
        """
        if self._source:
            return dict(self._source)
        beside.parent.mkdir(parents=True, exist_ok=True)
        return {"manifest": str(self.to_csv(beside))}

    def _sample(self, count: int) -> Manifest:
        """Images of every class in turn."""
        by_class: dict[str, list[Any]] = {}
        for record in self._manifest.records:
            by_class.setdefault(record.label, []).append(record)
        turns = max(map(len, by_class.values()), default=0)
        ordered = [own[i] for i in range(turns) for own in by_class.values() if i < len(own)]
        return Manifest(tuple(ordered[:count]), self._manifest.root)


@speaking_python
def images(path: "PathLike | ImageSet", **settings: Any) -> ImageSet:
    """Opens the images of a folder or of a CSV.

    Args:
        path: Folder of images (class folders, split folders, or neither), or a manifest.
        **settings: How files are read, as of `simclr manifest`: `axes`, `page`, `intensity`, ...;
            `image_dir` where the images of a manifest lie now; `skip_unreadable`.

    Raises:
        UserError: No such folder, or images that cannot be read.
    """
    if isinstance(path, ImageSet):
        return path
    values = dict(settings)
    skip = bool(values.pop("skip_unreadable", False))
    folder = os.fspath(values.pop("image_dir", ""))
    declaration = replace(Declaration(), **values)
    source = {**images_setting(path), **({"image_dir": folder} if folder else {}), **values}
    if skip:
        source["skip_unreadable"] = True
    manifest = open_declared(
        source.get("image_dir", ""), source.get("manifest", ""), declaration, skip_unreadable=skip
    )
    return ImageSet(manifest, source)


def images_setting(path: PathLike) -> dict[str, str]:
    """The setting by which a command reads images: `manifest` of a CSV, `image_dir` of a folder."""
    text = os.fspath(path)
    return {"manifest" if text.lower().endswith(".csv") else "image_dir": text}


Images = PathLike | ImageSet


def places(
    images: Images | None, output: PathLike, output_setting: str = "output"
) -> dict[str, Any]:
    """The settings of images and output.

    Args:
        images: The images; None = the command finds them itself.
        output: The folder or file to write.
        output_setting: Name of the setting of the output.
    """
    own: dict[str, Any] = {output_setting: os.fspath(output)} if output else {}
    if isinstance(images, ImageSet):
        beside = Path(output or "images").with_name(f"{Path(output or 'images').name}.images.csv")
        return {**own, **images.settings(beside)}
    return {**own, **(images_setting(images) if images is not None else {})}


@speaking_python
def read_image(path: PathLike, **settings: Any) -> np.ndarray:
    """Reads one image as training sees it before views.

    Args:
        path: The file.
        **settings: How it is read, as of `simclr manifest`: `axes`, `page`, `intensity`, ...

    Returns:
        float32 [H, W, C] in [0, 1].

    Raises:
        UserError: It cannot be read so, or the settings make several images of it.
    """
    declaration = replace(Declaration(), **settings)
    if declaration.tile:
        raise UserError("tile makes several images of a file; open them with simclr_tf.images")
    reading = declaration.reading()
    if declaration.page:
        reading = replace(reading, page=_page(declaration.page))
    values = reader.read_image(path, reading=str(reading))
    return values.astype(np.float32) / 255 if values.dtype == np.uint8 else values


def _page(text: str) -> int | str:
    if text == "all":
        raise UserError("page='all' makes several images of a file; give a number or 'stack'")
    return int(text) if text.isdigit() else text
