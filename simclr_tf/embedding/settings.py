"""The settings of `simclr-embed`, each declared once."""

from dataclasses import dataclass, field
from typing import Literal

from data_prep.errors import UserError
from data_prep.manifest.read_options import Declaration
from data_prep.settings import Config, same_setting, setting
from simclr_tf.config.sections import (
    DataSettings,
    GivenImages,
    MachineSettings,
    StartSettings,
    TrainSettings,
)

FORMATS = ("npz", "parquet")
PROJECTIONS = ("pca", "tsne", "umap", "random")


def names_in(text: str) -> tuple[str, ...]:
    """The parts of a list that a flag gives, separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


@dataclass(frozen=True)
class ImageSettings(GivenImages):
    """Images."""

    image_dir: str = same_setting(
        DataSettings,
        "image_dir",
        "Folder of images: train/validation/test sub-folders, class folders, or a flat unlabelled "
        "folder. With --manifest or --embedding: where its images lie "
        "now.",
    )
    manifest: str = same_setting(DataSettings, "manifest")
    split_ratios: str = same_setting(
        DataSettings,
        "split_ratios",
        "Shares of the seeded, stratified split made when the images come without one: that of "
        "simclr-run.",
    )
    split_seed: int = same_setting(DataSettings, "split_seed")
    skip_unreadable: bool = same_setting(DataSettings, "skip_unreadable")


@dataclass(frozen=True)
class FeatureSettings:
    """Features."""

    encoder: str = setting(
        "",
        "Folder of a run, its encoder.keras, or any public SimCLR checkpoint by path or by the "
        "name that simclr-zoo lists.",
    )
    endpoint: str = setting(
        "final_avg_pool",
        "Layer to take: final_avg_pool, proj_head_output, block_group1 to block_group4, "
        "initial_max_pool, ...; maps are averaged over height and width.",
    )
    normalize: bool = setting(False, "Scale every feature vector to length 1 (L2).")
    float16: bool = setting(False, "Keep features in half precision, in half the space.")
    eval_crops: int = same_setting(
        TrainSettings,
        "eval_crops",
        "Above 1: the mean over a grid of this many crops along each side, which covers the whole "
        "image; 1 = the central crop alone.",
    )
    ema: bool = same_setting(StartSettings, "ema")
    precision: Literal["float32", "bfloat16"] = setting("float32", "Of the network's arithmetic.")
    eval_batch_size: int = setting(64, "Images of a pass.", low=1)
    memory_check: bool = same_setting(MachineSettings, "memory_check")


@dataclass(frozen=True)
class StorageSettings:
    """Storage and workers."""

    output: str = setting("", "Folder to make.")
    overwrite: bool = setting(False, "Replace an embedding that is there.")
    formats: str = setting(
        "npz,parquet", "What holds the features besides features.npy: npz, parquet, both or none."
    )
    shard_images: int = setting(2048, "Images between two places to go on from.", low=1)
    worker: int = setting(0, "Which of --num_workers processes this is, from 0.", low=0)
    num_workers: int = setting(
        1,
        "Processes that share the work, on one machine or on several with one file system, all "
        "with the same --output; the one that finishes last joins the parts.",
        low=1,
    )


@dataclass(frozen=True)
class StructureSettings:
    """Clusters, neighbours, outliers and near duplicates."""

    kmeans: bool = setting(True, "Clusters by k-means.")
    clusters: int = setting(
        0, "Clusters of k-means; 0 = as many as classes or, without, by the silhouette.", low=0
    )
    hdbscan: bool = setting(True, "Clusters by density (HDBSCAN), whose number it finds itself.")
    min_cluster_size: int = setting(
        0, "HDBSCAN: fewest images of a cluster; 0 = a hundredth of all, at least 5.", low=0
    )
    neighbors: int = setting(
        7, "Nearest neighbours of each image to list; 0 = none.", low=0, also="neighbours"
    )
    outliers: Literal["distance", "lof", "none"] = setting(
        "distance",
        "Outlier score: mean cosine distance to the nearest neighbours, or local outlier factor.",
    )
    near_duplicates: float = setting(
        0.995, "List pairs of images whose cosine is at least this; 0 = none.", low=0, high=1
    )
    most_pairs: int = setting(1000, "Most such pairs to list, the most alike first.", low=1)
    compare_limit: int = setting(
        100_000,
        "Of more images than this, neighbours, outliers and near duplicates are not looked for, "
        "and HDBSCAN not of more than a fifth of it.",
        low=1,
    )


@dataclass(frozen=True)
class MeasureSettings:
    """Measures where there are labels."""

    knn_neighbors: int = same_setting(TrainSettings, "knn_neighbors")
    linear_probe: bool = setting(True, "Also a linear probe, where there are splits.")
    bootstrap: int = setting(2000, "Samples behind the 95 % intervals.", low=0)
    floors: bool = same_setting(
        TrainSettings,
        "floors",
        "Put beside them what the most frequent class, raw pixels and untrained features reach on "
        "the same images.",
    )
    seed: int = setting(0, "Seed of clusters, intervals, suggestions and samples.", low=0)


@dataclass(frozen=True)
class LabelingSettings:
    """Labels from an expert."""

    embedding: str = setting(
        "",
        "Work on this finished embedding, without encoder and images; settings not given are its "
        "own.",
    )
    join: str = setting(
        "",
        "CSV of labels to join: a column path (or file name) and one or more of labels, empty = "
        "not known.",
    )
    suggest_labels: int = setting(
        0, "Suggest so many images to label next, those without a label first.", low=0
    )
    suggest_by: Literal["farthest", "medoids"] = setting(
        "farthest",
        "farthest: each as far as can be from all labelled and suggested ones; medoids: the "
        "middles of as many clusters.",
    )


@dataclass(frozen=True)
class PageSettings:
    """Page to explore."""

    explore: bool = setting(True, "Write explore.html.")
    explore_limit: int = setting(
        20_000, "Of more images than this the page shows a seeded sample.", low=1
    )
    projections: str = setting("pca,tsne,umap,random", "Projections to two dimensions to offer.")
    compare: str = setting(
        "",
        "Put these embeddings, or runs, side by side on one page in --output; runs are embedded "
        "first, with --image_dir, --manifest, or their own images.",
    )
    pinned: str = setting(
        "", "Images to follow through all of them, by name; empty = a few that differ."
    )


@dataclass(frozen=True)
class EmbedConfig(Config):
    """All settings of `simclr-embed`, by topic."""

    images: ImageSettings = field(default_factory=ImageSettings)
    reading: Declaration = field(default_factory=Declaration)
    features: FeatureSettings = field(default_factory=FeatureSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    structure: StructureSettings = field(default_factory=StructureSettings)
    measures: MeasureSettings = field(default_factory=MeasureSettings)
    labelling: LabelingSettings = field(default_factory=LabelingSettings)
    page: PageSettings = field(default_factory=PageSettings)

    def validate(self) -> None:
        """Checks every setting, and what only fits together.

        Raises:
            UserError: With the flag, its value and what would be right.
        """
        super().validate()
        self.reading.reading()
        for flag, text, known in (
            ("formats", self.storage.formats, FORMATS),
            ("projections", self.page.projections, PROJECTIONS),
        ):
            unknown = [name for name in names_in(text) if name not in known]
            if unknown:
                raise UserError(f"{unknown[0]!r} is none of {', '.join(known)}", setting=flag)
        s = self.storage
        if s.worker >= s.num_workers:
            raise UserError(
                f"workers of --num_workers={s.num_workers} are numbered from "
                f"0 to {s.num_workers - 1}",
                setting="worker",
                value=s.worker,
            )
        if s.num_workers > 1 and s.overwrite:
            raise UserError(
                "not with --num_workers; remove the old folder first", setting="overwrite"
            )
