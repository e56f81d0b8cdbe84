"""The settings of `simclr-depth-train` and `simclr-depth-predict`, each declared once."""

from dataclasses import dataclass, field
from typing import Any, Literal

from data_prep.errors import UserError
from data_prep.manifest.read_options import Declaration
from data_prep.sections import ImageSettings, TargetSettings
from data_prep.settings import Config, same_setting, setting
from finetune.config import FitSettings, OutputSettings
from simclr_tf.config.sections import DataSettings, GivenImages, MachineSettings, TrainSettings

DEPTH, REAL = "depth", "real"
AUTOENCODER, UNET, CYCLEGAN = "autoencoder", "unet", "cyclegan"
WGAN_GP = "wgan_gp"

_FILTERS = {AUTOENCODER: "32,64,128", UNET: "16,32,64,128", CYCLEGAN: "16,32,64"}


@dataclass(frozen=True)
class PairedImages(TargetSettings, GivenImages):
    """Images and depth maps."""

    image_dir: str = same_setting(
        DataSettings,
        "image_dir",
        "Folder of images, case folders inside; with --target_dir. With --manifest: where its "
        "images lie now.",
    )
    manifest: str = same_setting(
        DataSettings,
        "manifest",
        "Manifest CSV with the columns path, target, case, group, split, target_scale.",
    )
    real_manifest: str = setting(
        "", "--direction=real: manifest of the images of the real microscope (column path)."
    )
    case: str = setting("", "Train on this case alone; empty = on all.")
    per_case: bool = setting(False, "Train a network for each case, in OUTPUT/case_<case>.")
    folds: int = setting(
        0,
        "Above 1: train so many times, validating on another part each, in OUTPUT/fold_<n>. A test "
        "split stays out of all.",
        low=0,
    )
    train_split: str = same_setting(DataSettings, "train_split")
    split_ratios: str = same_setting(
        DataSettings,
        "split_ratios",
        "Shares of the seeded split made when the images come without one; images of one depth map "
        "stay together.",
        default="train:0.8,validation:0.1,test:0.1",
    )
    split_seed: int = same_setting(
        DataSettings, "split_seed", "Seed of that split, and of the folds."
    )
    unit: str = setting("", "Unit of depth, such as nm, for what is written and drawn.")
    cache_dataset: Literal["auto", "true", "false"] = same_setting(DataSettings, "cache_dataset")
    skip_unreadable: bool = same_setting(DataSettings, "skip_unreadable")


@dataclass(frozen=True)
class NetworkSettings:
    """Network."""

    model: Literal["autoencoder", "unet", "cyclegan"] = setting(UNET, "What learns.")
    filters: str = setting(
        "",
        "Filters from level to level; empty = "
        + ", ".join(f"{name} {numbers}" for name, numbers in _FILTERS.items())
        + ".",
    )
    bottleneck: int = setting(
        256, "autoencoder: units of the dense layer in the middle.", low=1, only="model=autoencoder"
    )
    residual_blocks: int = setting(
        3, "cyclegan: residual blocks of a generator.", low=0, only="model=cyclegan"
    )
    discriminator_filters: str = setting(
        "16,16,32,64,128",
        "cyclegan: filters of the PatchGAN discriminators.",
        only="model=cyclegan",
    )
    encoder: str = setting(
        "",
        "unet: a SimCLR encoder as the contracting path: a run of simclr-run, a checkpoint, a name "
        "of simclr-zoo.",
    )
    freeze_encoder: bool = setting(False, "unet: keep that encoder as it is.")

    def widths(self) -> tuple[int, ...]:
        """The filters of the network.

        Raises:
            UserError: Not numbers from 1.
        """
        return _numbers("filters", self.filters or _FILTERS[self.model])

    def discriminator_widths(self) -> tuple[int, ...]:
        """The filters of a discriminator.

        Raises:
            UserError: Not numbers from 1.
        """
        return _numbers("discriminator_filters", self.discriminator_filters)


@dataclass(frozen=True)
class CycleSettings:
    """CycleGAN."""

    direction: Literal["depth", "real"] = setting(
        DEPTH,
        "From simulated images to depth maps, or to the real images of --real_manifest; always "
        "both ways.",
    )
    gan_loss: Literal["lsgan", "wgan_gp"] = setting(
        "lsgan",
        "Least squares (Mao et al. 2017), or Wasserstein with gradient penalty (Gulrajani et al. "
        "2017).",
        only="model=cyclegan",
    )
    critic_steps: int = setting(
        0,
        "Updates of the discriminators, each on a batch of its own, for one of the generators; 0 = "
        "1 of lsgan, 5 of wgan_gp.",
        low=0,
        only="gan_loss=wgan_gp",
    )
    gradient_penalty: float = setting(
        10.0, "wgan_gp: weight of the gradient penalty.", low=0, only="gan_loss=wgan_gp"
    )
    cycle_weight: float = setting(
        10.0, "Weight of the cycle loss, L1.", low=0, only="model=cyclegan"
    )
    identity_weight: float = setting(
        5.0, "Weight of the identity loss: L1 between an image of the goal and its translation.",
        low=0, only="model=cyclegan")  # fmt: skip
    guided_weight: float = setting(
        0.0,
        "Above 0: weight of the L1 loss between the translation of an image and its own target; "
        "otherwise images and targets come unpaired.",
        low=0,
        only="model=cyclegan",
    )
    pool_size: int = setting(
        50,
        "Translations that are kept to show discriminators older ones too; 0 = none.",
        low=0,
        only="model=cyclegan",
    )
    discriminator_learning_rate: float = setting(
        0.0,
        "Learning rate of the discriminators; 0 = that of the generators.",
        low=0,
        only="model=cyclegan",
    )

    @property
    def critic_updates(self) -> int:
        """Updates of the discriminators for one of the generators."""
        return self.critic_steps or (5 if self.gan_loss == WGAN_GP else 1)


@dataclass(frozen=True)
class RegressionSettings:
    """Loss and learning rate."""

    regression_loss: Literal["l1", "l2"] = setting(
        "l1", "autoencoder, unet: absolute or squared error."
    )
    learning_rate: float = setting(
        0.0, "Learning rate of Adam; 0 = 0.001, of a cyclegan 0.0002 (beta1 0.5).", low=0
    )
    decay_start: float = setting(
        0.5,
        "Share of the training after which the rate falls, in a straight line, to 0; 1 = never.",
        low=0,
        high=1,
    )
    horizontal_flip: bool = setting(False, "Flip image and target left-right at random.")
    vertical_flip: bool = setting(False, "Flip image and target up-down at random.")


@dataclass(frozen=True)
class DepthFitSettings:
    """Training and choice of the best epoch."""

    train_batch_size: int = same_setting(TrainSettings, "train_batch_size", default=32)
    train_epochs: int = same_setting(TrainSettings, "train_epochs", default=20)
    train_steps: int = same_setting(TrainSettings, "train_steps")
    eval_batch_size: int = same_setting(TrainSettings, "eval_batch_size")
    early_stopping_patience: int = setting(
        0, "Stop after this many epochs without a better validation RMSE; 0 = never.", low=0
    )
    keep_checkpoint_max: int = same_setting(FitSettings, "keep_checkpoint_max", default=1)
    sample_every: int = setting(5, "Epochs between sheets of samples; 0 = the last only.", low=0)


@dataclass(frozen=True)
class DepthConfig(Config):
    """All settings of `simclr-depth-train`."""

    data: PairedImages = field(default_factory=PairedImages)
    reading: Declaration = field(default_factory=Declaration)
    network: NetworkSettings = field(default_factory=NetworkSettings)
    gan: CycleSettings = field(default_factory=CycleSettings)
    optimizer: RegressionSettings = field(default_factory=RegressionSettings)
    train: DepthFitSettings = field(default_factory=DepthFitSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)
    run: OutputSettings = field(default_factory=OutputSettings)

    @property
    def to_real(self) -> bool:
        """True if the goal is images of the real microscope, not depth maps."""
        return self.network.model == CYCLEGAN and self.gan.direction == REAL

    @property
    def learning_rate(self) -> float:
        """Learning rate of the network, or of the generators."""
        own = 2e-4 if self.network.model == CYCLEGAN else 1e-3
        return self.optimizer.learning_rate or own

    def altered(self, **values: Any) -> "DepthConfig":
        """The configuration with some settings changed."""
        return type(self).from_values({**self.values(), **values})

    def validate(self) -> None:
        """Checks every setting, and what only fits together."""
        from data_prep.manifest.pairing import scale_of  # with all formats: not for --help

        super().validate()
        self.reading.reading()
        scale_of(self.data.target_scale)
        self.network.widths()
        self.network.discriminator_widths()
        data, network = self.data, self.network
        if data.case and data.per_case:
            raise UserError("--case and --per_case: give one of them")
        if data.folds == 1:
            raise UserError("must be 2 or more, or 0 for none", setting="folds", value=1)
        if network.encoder and network.model != UNET:
            raise UserError(f"is for --model=unet, not {network.model}", setting="encoder")
        if network.freeze_encoder and not network.encoder:
            raise UserError("there is none; give --encoder=RUN", setting="freeze_encoder")
        if self.gan.direction == REAL and network.model != CYCLEGAN:
            raise UserError("is for --model=cyclegan", setting="direction", value="real")
        if self.to_real != bool(data.real_manifest):
            raise UserError("--direction=real and --real_manifest=FILE go together; give both")
        if self.to_real and self.gan.guided_weight:
            raise UserError("real images have no partners; leave it out", setting="guided_weight")
        if self.to_real and data.folds:
            raise UserError("there is nothing to validate --direction=real by", setting="folds")


@dataclass(frozen=True)
class DepthModels:
    """Prediction."""

    model: str = setting("", "Folder of simclr-depth-train.", required=True)
    output: str = setting("", "New folder to write to.", required=True)
    router: str = setting("", "Folder of a classifier whose classes are the cases.")
    translator: str = setting(
        "",
        "Folder of simclr-depth-train --direction=real: makes simulated images of real ones.",
    )
    route_before_translation: bool = setting(
        False, "The router sees the images as they are, for it was trained on such."
    )
    blend_cases: bool = setting(
        False,
        "Average the maps of all cases' generators, weighted by the router's probabilities.",
    )
    batch_size: int = setting(256, "Images of a pass.", low=1)
    archive: Literal["png16", "png8", "npy"] = setting(
        "png16",
        "Images in submission.zip: 16 bit; 8 bit, a grey level a unit of depth; float32 NPY.",
    )


@dataclass(frozen=True)
class SurfaceSettings:
    """Known surface."""

    surface_depth: tuple[str, ...] = setting(
        (),
        "Level the surface: DEPTH, or CASE:DEPTH,CASE:DEPTH. Depths within --surface_tolerance of "
        "it become it; nothing else changes.",
    )
    surface_tolerance: float = setting(5.0, "In units of depth.", low=0)


@dataclass(frozen=True)
class DepthMeasurement:
    """Measuring."""

    site_means: str = setting(
        "", "CSV of site and mean_depth; sites are the groups of the manifest."
    )
    bootstrap: int = setting(2000, "Samples behind the intervals.", low=0)
    seed: int = setting(0, "Of these samples.", low=0)


@dataclass(frozen=True)
class PredictedImages(ImageSettings):
    """Images."""

    split: str = setting("", "Only this split of the manifest; empty = all.")


@dataclass(frozen=True)
class DepthPredictConfig(Config):
    """All settings of `simclr-depth-predict`."""

    prediction: DepthModels = field(default_factory=DepthModels)
    surface: SurfaceSettings = field(default_factory=SurfaceSettings)
    measure: DepthMeasurement = field(default_factory=DepthMeasurement)
    images: PredictedImages = field(default_factory=PredictedImages)
    reading: Declaration = field(default_factory=Declaration)


def _numbers(flag: str, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UserError("give numbers such as 16,32,64", setting=flag, value=text)
    return tuple(map(int, parts))
