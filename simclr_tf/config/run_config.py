"""The configuration of a training run: all its settings by topic, checked together; presets.

The command line derives its flags from the declarations, `config.json` in a run directory holds
their values, and nothing below the command line reads a flag.

The presets:

* `rheed_...`: self-supervised learning on reflection high-energy electron diffraction, with the
  settings of Hippoangel/Self_Supervised_Learning_with_RHEED (PyTorch, lightly). Settings not given
  there have lightly's defaults; the learning rates are those of the stated batch.
* `..._views`: a method with the views of its paper, see `data_prep.augment.config`.
"""

from dataclasses import dataclass, field, fields
from typing import Any

from data_prep.augment.config import PAPER_VIEWS, ViewSettings, parse_shares
from data_prep.errors import UserError
from data_prep.manifest.read_options import Declaration
from data_prep.settings import Config
from simclr_tf.config.sections import (
    DataSettings,
    DistillSettings,
    MachineSettings,
    MethodSettings,
    ModelSettings,
    OptimizerSettings,
    RunSettings,
    StartSettings,
    TrainSettings,
)
from simclr_tf.models.architectures import (
    HYBRID,
    KERAS,
    PARTS,
    RESNET,
    ViTArchitecture,
    architecture_of,
    normalize_backbone_name,
    registered_architecture,
)


@dataclass(frozen=True)
class RunConfig(Config):
    """All settings of one run, by topic."""

    data: DataSettings = field(default_factory=DataSettings)
    reading: Declaration = field(default_factory=Declaration)
    views: ViewSettings = field(default_factory=ViewSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    method: MethodSettings = field(default_factory=MethodSettings)
    start: StartSettings = field(default_factory=StartSettings)
    distill: DistillSettings = field(default_factory=DistillSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    machine: MachineSettings = field(default_factory=MachineSettings)
    run: RunSettings = field(default_factory=RunSettings)

    def validate(self) -> None:
        """Checks kinds, choices and limits of every setting, and what only fits together.

        Raises:
            UserError: With the flag, its value and what would be right.
        """
        super().validate()
        self.reading.reading()
        if self.model.resnet_depth not in (18, 34, 50, 101, 152, 200):
            raise UserError(
                "choose 18, 34, 50, 101, 152 or 200",
                setting="resnet_depth",
                value=self.model.resnet_depth,
            )
        if self.train.train_mode == "pretrain" and self.train.train_batch_size < 2:
            raise UserError(
                "contrastive pretraining needs at least 2 images",
                setting="train_batch_size",
                value=1,
            )
        if self.train.microbatch and self.train.train_mode != "pretrain":
            raise UserError(
                f"--microbatch={self.train.microbatch} is for --train_mode=pretrain, not "
                f"{self.train.train_mode}"
            )
        selector, layers = self.model.ft_proj_selector, self.projection_layers
        if selector > layers:
            raise UserError(
                f"the projection head has only {layers} layers",
                setting="ft_proj_selector",
                value=selector,
            )
        channels = self.data.image_channels
        if channels != "auto" and not (channels.isdigit() and int(channels) > 0):
            raise UserError(
                "give auto or a positive number", setting="image_channels", value=channels
            )
        unknown = set(self.quirks) - set(QUIRKS)
        if unknown:
            raise UserError(
                f"{', '.join(sorted(unknown))} is none of {', '.join(QUIRKS)}",
                setting="reference_quirks",
            )
        for name in ("blur_probability", "solarize_probability"):
            parse_shares(name, getattr(self.views, name))
        self._validate_backbone()
        self._validate_method()
        self._validate_start()

    def _validate_backbone(self) -> None:
        m, size = self.model, self.views.image_size
        options = self.backbone_options()
        if options is not None:
            architecture = architecture_of(options, image_channels=3)
            if isinstance(architecture, ViTArchitecture):
                architecture.check_image_size(size, "image_size")
        if not m.backbone_weights:
            return
        if not normalize_backbone_name(m.backbone).startswith(KERAS):
            raise UserError(
                f"--backbone_weights is for networks of keras.applications ({KERAS}NAME), not for "
                f"{m.backbone}; start from weights of this package with --checkpoint"
            )
        if self.start.checkpoint:
            raise UserError("--backbone_weights and --checkpoint say different things; give one")

    def backbone_options(self, cifar_stem: bool = False) -> dict[str, Any] | None:
        """The backbone as `SimCLREncoder` takes it; None for the ResNet.

        Args:
            cifar_stem: Whether a network of convolutions starts with the stem for small images.
        """
        m = self.model
        if m.backbone == RESNET:
            return None
        options: dict[str, Any] = {"backbone": normalize_backbone_name(m.backbone)}
        if options["backbone"].startswith(KERAS):
            return options
        registered: Any = registered_architecture(m.backbone)
        if registered:
            flags = {f.name for f in fields(ModelSettings)} - set(options)
            named = [f.name for f in fields(registered) if f.name in flags]
            return {**options, **{name: getattr(m, name) for name in named}}
        options["width_multiplier"] = m.width_multiplier
        options["transformer_depth"] = m.transformer_depth
        if m.backbone == HYBRID:
            return {**options, "cifar_stem": cifar_stem}
        fixed = m.patch_projection == "fixed" or (
            m.patch_projection == "auto" and self.train.train_mode == "pretrain"
        )
        return {**options, "patch_size": m.patch_size, "fixed_patches": fixed}

    def _validate_method(self) -> None:
        m, batch = self.method, self.train.train_batch_size
        if m.method != "simclr" and self.train.train_mode != "pretrain":
            raise UserError(
                f"--method={m.method} is for --train_mode=pretrain, not {self.train.train_mode}"
            )
        if m.decoupled and (m.method, self.train.train_mode) != ("simclr", "pretrain"):
            raise UserError("--decoupled is for --method=simclr and --train_mode=pretrain")
        if m.method == "moco" and m.queue_size < batch:
            raise UserError(
                f"must hold at least a batch ({batch} images)",
                setting="queue_size",
                value=m.queue_size,
            )
        if m.method == "moco" and not self.model.global_bn:
            raise UserError(
                "--method=moco needs --global_bn: statistics of single replicas give the positive "
                "away"
            )
        if m.method == "swav" and 0 < m.assignment_queue < batch:
            raise UserError(
                f"must hold at least a batch ({batch} images), or 0",
                setting="assignment_queue",
                value=m.assignment_queue,
            )
        if m.method == "swav" and m.small_crops and self.small_crop_size < 8:
            raise UserError(
                f"{self.small_crop_size} px is too small; give 8 at least, or --small_crops=0",
                setting="small_crop_size",
            )

    @property
    def small_crop_size(self) -> int:
        """Side of SwAV's small crops in pixels."""
        return self.method.small_crop_size or round(self.views.image_size * 3 / 7)

    def _validate_start(self) -> None:
        start, mode = self.start, self.train.train_mode
        parts = self.train_blocks or ()
        if wrong := [part for part in parts if part not in PARTS]:
            raise UserError(
                f"{wrong[0]} is none of {', '.join(map(str, PARTS))}",
                setting="train_blocks",
                value=start.train_blocks,
            )
        ways = [f"--fine_tune_after_block={start.fine_tune_after_block}"] * (
            start.fine_tune_after_block >= 0
        )
        ways += [f"--train_blocks={start.train_blocks}"] * bool(start.train_blocks)
        ways += ["--head_only"] * start.head_only
        if len(ways) > 1:
            raise UserError(f"{' and '.join(ways)} say different things; give one of them")
        if start.head_only and mode == "pretrain":
            raise UserError(
                "pretraining needs more than the supervised head; give --train_mode=finetune",
                setting="head_only",
            )
        if mode == "distill" and not self.distill.teacher:
            raise UserError(
                "give the --teacher to learn from", setting="train_mode", value="distill"
            )
        if self.distill.teacher and mode != "distill":
            raise UserError(f"--teacher is for --train_mode=distill, not {mode}")
        if start.cache_frozen:
            self._validate_cache()

    def _validate_cache(self) -> None:
        v = self.views
        changing = {
            "norandom_crop": v.random_crop,
            "nohorizontal_flip": v.horizontal_flip,
            "novertical_flip": v.vertical_flip,
            "noright_angle_rotation": v.right_angle_rotation,
            "rotation_degrees=0": v.rotation_degrees > 0,
        }
        missing = [f"--{flag}" for flag, on in changing.items() if on]
        if missing:
            raise UserError(
                f"augmented images differ every epoch; add {' '.join(missing)}",
                setting="cache_frozen",
            )
        if self.train.train_mode != "finetune" or self.frozen_statistics_move:
            raise UserError("--cache_frozen is for --train_mode=finetune with --frozen_bn=stored")

    @property
    def train_blocks(self) -> tuple[str | int, ...] | None:
        """The parts that train as named; None if `fine_tune_after_block` says which."""
        if self.start.head_only:
            return ()
        named = [part.strip() for part in self.start.train_blocks.split(",") if part.strip()]
        parts = tuple(int(part) if part.isdigit() else part for part in named)
        return parts or None

    @property
    def frozen_statistics_move(self) -> bool:
        """True if frozen blocks go on moving their statistics, as in the reference."""
        return self.start.frozen_bn == "reference" or "frozen_bn" in self.quirks

    @property
    def projection_layers(self) -> int:
        """Layers that the projection head has in its mode."""
        by_mode = {"none": 0, "linear": 1, "nonlinear": self.model.num_proj_layers}
        return by_mode[self.model.proj_head_mode]

    @property
    def quirks(self) -> tuple[str, ...]:
        """The reference's mistakes that were asked for."""
        asked = tuple(q.strip() for q in self.start.reference_quirks.split(",") if q.strip())
        return QUIRKS if asked == ("all",) else asked


QUIRKS = ("frozen_bn", "unused_projection_head", "zero_init_logits")


_RHEED: dict[str, Any] = {
    "resnet_depth": 18,
    "image_size": 128,
    "train_epochs": 50,
    "optimizer": "momentum",
    "learning_rate": 0.06,
    "train_batch_size": 256,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "warmup_epochs": 0.0,
    "horizontal_flip": False,
    "vertical_flip": True,
    "right_angle_rotation": True,
    "color_jitter_strength": 0.5,
    "gray_probability": 0.5,
    "use_blur": False,
}

PRESETS: dict[str, dict[str, Any]] = {
    "rheed_simclr": {**_RHEED, "method": "simclr", "temperature": 0.5},
    "rheed_moco": {
        **_RHEED,
        "method": "moco",
        "queue_size": 4096,
        "target_momentum": 0.99,
        "temperature": 0.1,
    },
    "rheed_swav": {
        **_RHEED,
        "method": "swav",
        "prototypes": 512,
        "optimizer": "adam",
        "train_batch_size": 128,
        "learning_rate": 0.002,  # 1e-3 at a batch of 128
        "weight_decay": 0.0,
        "temperature": 0.1,
    },
    "rheed_byol": {
        **_RHEED,
        "method": "byol",
        "target_momentum": 0.99,
        "momentum_schedule": "constant",
    },
    **{f"{method}_views": {"method": method, **views} for method, views in PAPER_VIEWS.items()},
}
