"""The data of an explorer page: images with their features and what is known of them."""

from dataclasses import dataclass, field

import numpy as np

from data_prep.errors import UserError


@dataclass(frozen=True)
class ExploreData:
    """The embedding of n images.

    Attributes:
        title: Of the page; in comparisons the name of the run.
        names: File names, or other names by which the images are searched for.
        thumbnails: JPEG bytes, the longer side about 64 to 96 pixels.
        features: float32 [n, d], finite.
        columns: name -> value of every image, such as label, split, clusters and an expert's
            columns; "" = not known.
        facts: name -> value, how this was made.
        places: Columns that say where an image lies, as in a manifest: `path` where it is not the
            name, `tile`, `page`, `reading`.
        root: The folder that paths are relative to; empty = not known.
        first: Sentences that the page begins with.

    Raises:
        ValueError: Lengths differ.
        UserError: There are no images, or features that are not finite.
    """

    title: str
    names: list[str]
    thumbnails: list[bytes]
    features: np.ndarray
    columns: dict[str, list[str]]
    facts: dict[str, str]
    places: dict[str, list[str]] = field(default_factory=dict)
    root: str = ""
    first: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.names:
            raise UserError(f"{self.title}: no images to show")
        if self.features.ndim != 2 or self.features.dtype != np.float32:
            raise ValueError("features must be float32 [n, d]")
        lengths = {"thumbnails": len(self.thumbnails), "features": len(self.features)}
        lengths |= {f"place {name}": len(column) for name, column in self.places.items()}
        lengths |= {f"column {name}": len(column) for name, column in self.columns.items()}
        for what, length in lengths.items():
            if length != len(self.names):
                raise ValueError(f"{len(self.names)} names, but {what}: {length}")
        bad = np.flatnonzero(~np.isfinite(self.features).all(axis=1))
        if len(bad):
            raise UserError(
                f"{self.title}: the features of {self.names[bad[0]]} are not finite: the encoder"
                " has diverged; take an earlier checkpoint"
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)
