"""The settings of the commands that use trained classifiers: sections, and configurations of them.

Those of training are in `config.py` and `transfer_config.py`.
"""

from dataclasses import dataclass, field
from typing import Literal

from data_prep.errors import UserError
from data_prep.manifest.read_options import Declaration
from data_prep.sections import ImageSettings, ListedImages
from data_prep.settings import Config, setting

Format = Literal["onnx", "saved_model", "keras"]
Input = Literal["image", "float_image", "prepared"]


@dataclass(frozen=True)
class TrainedModel:
    """Model."""

    model: str = setting("", "Folder of a run, or a checkpoint.", also="checkpoint")

    def given_model(self) -> str:
        """The path of the model.

        Raises:
            UserError: None is given.
        """
        if not self.model:
            raise UserError(
                "is missing: give the folder of a run, or a checkpoint", setting="model"
            )
        return self.model


@dataclass(frozen=True)
class PredictedFile(TrainedModel):
    """Prediction."""

    output: str = setting("", "CSV file to write.", required=True)


@dataclass(frozen=True)
class PredictSettings:
    """Settings for turning scores into rows of the output."""

    top_k: int = setting(5, "Best classes to give for each image.", low=1)
    threshold: float | None = setting(
        None,
        "Of two classes: least score of the positive one (default: as the run decided, or else the "
        "higher score).",
        low=0,
        high=1,
    )
    abstain: float = setting(
        0.0, "Predict no class whose score is below this; 0 = always one.", low=0, high=1
    )
    batch_size: int = setting(64, "Images of a pass.", low=1)


@dataclass(frozen=True)
class PredictionSettings(PredictSettings, PredictedFile):
    """Prediction."""

    precision: Literal["run", "float32", "bfloat16"] = setting(
        "run", "Of the arithmetic: as the run was scored, or another."
    )
    skip_unreadable: bool = setting(False, "Exit with 0 although files were left out.")
    overwrite: bool = setting(False, "Replace an output that is there.")


@dataclass(frozen=True)
class PredictConfig(Config):
    """All settings of `simclr-predict`."""

    prediction: PredictionSettings = field(default_factory=PredictionSettings)
    images: ListedImages = field(default_factory=ListedImages)
    reading: Declaration = field(default_factory=Declaration)


@dataclass(frozen=True)
class ExportSettings(TrainedModel):
    """Export."""

    format: Format = setting("onnx", "Kind of file.")
    output: str = setting("", "New file; of a SavedModel a new folder.", required=True)
    input: Input | None = setting(
        None,
        "What goes in: image = the stored values of one image HxWxC of any size, in the type of "
        "the training files (most often uint8), an intensity rule being part of the model; "
        "float_image = the same after reading, float32 in [0, 1]; prepared = a batch of images "
        "already cropped and resized, float32 in [0, 1]. Default: image; of a Keras file prepared.",
    )


@dataclass(frozen=True)
class ExportConfig(Config):
    """All settings of `simclr-export`."""

    export: ExportSettings = field(default_factory=ExportSettings)


@dataclass(frozen=True)
class ServiceAddress(TrainedModel):
    """Service."""

    image_dir: str = setting(
        "", "Folder in which the training images lie now, if they were moved without the run."
    )
    host: str = setting("127.0.0.1", "Address to listen on.")
    port: int = setting(8000, "Its port; 0 = any free one.", low=0, high=65535)


@dataclass(frozen=True)
class UploadLimits:
    """Limits on size, memory and time of one upload."""

    max_megabytes: float = setting(32.0, "Largest upload.", low=0.001)
    max_megapixels: float = setting(
        50.0, "Largest picture in it, in millions of pixels.", low=0.001
    )
    max_memory: float = setting(2000.0, "Megabytes that decoding a picture may take.", low=1)
    timeout: float = setting(30.0, "Seconds after which a request must have arrived.", low=1)


@dataclass(frozen=True)
class ServiceSettings(UploadLimits, ServiceAddress):
    """Service."""


@dataclass(frozen=True)
class ServeConfig(Config):
    """All settings of `simclr-serve`."""

    service: ServiceSettings = field(default_factory=ServiceSettings)


@dataclass(frozen=True)
class RepeatedTraining:
    """Training."""

    command: Literal["finetune", "transfer"] = setting("finetune", "simclr-finetune or -transfer.")
    output: str = setting("", "Folder for the runs and the page; of a comparison a new folder.")


@dataclass(frozen=True)
class RepetitionSettings:
    """Folds."""

    folds_dir: str = setting("", "Folder of fold_1.csv, fold_2.csv, ...")
    folds: int | None = setting(None, "Or make so many of the images below: each is tested once.")
    validation: float = setting(
        0.15, "--folds: share of a fold's rest that validates.", low=0, high=0.9
    )
    group_by: str = setting("", "--folds: what must not be torn apart, see simclr-split.")
    fold_seed: int = setting(0, "--folds: another seed, other folds.")
    seeds: tuple[str, ...] = setting((), "Or train on --manifest from each of these seeds.")


@dataclass(frozen=True)
class RunComparison:
    """Comparison."""

    compare: tuple[str, ...] = setting((), "Two runs, or two folders of this command: A,B.")


@dataclass(frozen=True)
class FoldsConfig(Config):
    """All settings of `simclr-folds`."""

    training: RepeatedTraining = field(default_factory=RepeatedTraining)
    folds: RepetitionSettings = field(default_factory=RepetitionSettings)
    images: ImageSettings = field(default_factory=ImageSettings)
    comparison: RunComparison = field(default_factory=RunComparison)


@dataclass(frozen=True)
class DemoImages:
    """Images."""

    image_dir: str = setting("", "Folder of class folders; empty makes images.")
    images_per_class: int = setting(130, "Of the images it makes.", low=20)
    image_size: int = setting(64, "Side of the network's input in pixels.", low=16)


@dataclass(frozen=True)
class DemoComparison:
    """Comparison."""

    labels_per_class: int = setting(5, "Labels given, beside all.", low=1)
    draws: int = setting(5, "How often labels are drawn.", low=1)
    pretrain_steps: int = setting(700, "Updates without labels.", low=1)
    finetune_steps: int = setting(300, "Updates of each fit.", low=1)
    seed: int = setting(0, "Seed of everything.", low=0)


@dataclass(frozen=True)
class DemoSettings(DemoComparison, DemoImages):
    """Settings that decide what the demonstration shows."""


@dataclass(frozen=True)
class FormerDemoSettings:
    """Without effect."""

    scratch_steps: int | None = setting(
        None, "Has no effect: from scratch takes --finetune_steps, too."
    )


@dataclass(frozen=True)
class DemoOutput:
    """Output."""

    output: str = setting("demo", "Folder for the page and what it rests on.")
    overwrite: bool = setting(False, "Delete an earlier demonstration there.")


@dataclass(frozen=True)
class DemoConfig(Config):
    """All settings of `simclr-demo`."""

    images: DemoImages = field(default_factory=DemoImages)
    comparison: DemoComparison = field(default_factory=DemoComparison)
    former: FormerDemoSettings = field(default_factory=FormerDemoSettings)
    output: DemoOutput = field(default_factory=DemoOutput)
