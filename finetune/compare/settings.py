"""What a comparison of strategies is asked to do."""

from dataclasses import dataclass

from data_prep.errors import UserError
from finetune.compare.strategies import (
    DEFAULT,
    HEADS,
    Row,
    parse_strategies,
    preset_rows,
    with_floors,
)

METRICS = ("balanced_accuracy", "accuracy", "macro_f1", "roc_auc")


@dataclass(frozen=True)
class CompareSettings:
    """Everything that decides the numbers of a comparison.

    Attributes:
        image_dir: Folder of class folders; or
        manifest: a CSV that lists the images.
        skip_unreadable: Leave unreadable images out.
        group_by: What must not be torn apart, see `together.keep_together`.
        test_share: Share of the images that is sealed for the test, if they have no test split.
        strategies: Names, see `named`.
        heads: Heads of those that name none.
        preset: Rows of a published work instead.
        label_fractions: Shares of a fold's labelled training images that keep their labels.
        folds: Each leaves another part of the training images out; 1 = all are trained on.
        seeds: Repetitions of every fold with other labels and weights.
        seed: Of everything.
        minutes: Budget that sizes are planned for; 0 = none, the sizes are those below.
        image_size: Side of the network's input in pixels; 0 = planned, or 64.
        imagenet_image_size: The same for networks with ImageNet weights.
        resnet_depth: Depth of one's own network.
        width_multiplier: Its width; 0 = planned, or 0.375.
        pretrain_steps: Updates of a pretraining; 0 = planned, or 700.
        finetune_steps: Updates of a fine-tuning; 0 = planned, or 80.
        backbone: Of `imagenet_supervised`: a network of keras.applications.
        imagenet_weights: File of its weights without the classification head.
        download: Let Keras download them, or fetch a checkpoint of the zoo.
        imagenet_checkpoint: Of `imagenet_simclr`: a path, or a name that simclr-zoo lists.
        frozen_blocks: Of `imagenet_simclr+...`: what stays frozen, see `--fine_tune_after_block`.
        vertical_flip: Whether images may be mirrored up-down.
        right_angle_rotation: Whether they may be turned by right angles.
        color_jitter_strength: Of pretraining.
        min_crop_area: Smallest share of an image's area that a crop may have.
        central_crop: Central share of an image that is kept before anything else; 0 = all.
        metric: What strategies are compared by.
    """

    image_dir: str = ""
    manifest: str = ""
    skip_unreadable: bool = False
    group_by: str = ""
    test_share: float = 0.2
    strategies: tuple[str, ...] = DEFAULT
    heads: tuple[str, ...] = HEADS
    preset: str = ""
    label_fractions: tuple[float, ...] = (0.01, 0.05, 0.1, 1.0)
    folds: int = 3
    seeds: int = 1
    seed: int = 0
    minutes: float = 0.0
    image_size: int = 0
    imagenet_image_size: int = 0
    resnet_depth: int = 18
    width_multiplier: float = 0.0
    pretrain_steps: int = 0
    finetune_steps: int = 0
    backbone: str = "vgg16"
    imagenet_weights: str = ""
    download: bool = False
    imagenet_checkpoint: str = ""
    frozen_blocks: int = 2
    vertical_flip: bool = False
    right_angle_rotation: bool = False
    color_jitter_strength: float = 1.0
    min_crop_area: float = 0.2
    central_crop: float = 0.0
    metric: str = METRICS[0]

    @property
    def classes_count_the_same(self) -> bool:
        """Whether the metric weighs classes alike, however many images they have."""
        return self.metric != "accuracy"

    def rows(self) -> tuple[Row, ...]:
        """What is compared, and the floors that it is compared with."""
        return with_floors(
            preset_rows(self.preset)
            if self.preset
            else parse_strategies(self.strategies, self.heads)
        )

    def validate(self) -> None:
        """Checks what can be checked without looking at images.

        Raises:
            UserError: With the flag, its value and what would be right.
        """
        if all(row.encoder.is_floor for row in self.rows()):
            raise UserError(
                f"--strategies={','.join(self.strategies)}: these are floors, which are always"
                " there; give a strategy, such as simclr"
            )
        if not self.image_dir and not self.manifest:
            raise UserError("give either --image_dir=FOLDER or --manifest=FILE")
        shares = self.label_fractions
        if not shares or not all(0 < share <= 1 for share in shares):
            text = ",".join(f"{share:g}" for share in shares)
            raise UserError(f"--label_fractions={text}: give shares above 0 up to 1, as 0.1,1")
        if not 0 < self.test_share < 1:
            raise UserError(f"--test_share={self.test_share:g}: must be between 0 and 1")
        if self.metric not in METRICS:
            raise UserError(f"--metric={self.metric}: choose one of {', '.join(METRICS)}")
        if self.minutes and self.pretrain_steps and self.finetune_steps:
            raise UserError(
                "--minutes plans the number of steps; leave it out, or one of --pretrain_steps"
                " and --finetune_steps"
            )
