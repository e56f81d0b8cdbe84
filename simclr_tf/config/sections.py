"""The settings of a training run, each declared once: name, default, meaning, limits.

Names, defaults and meanings are those of SimCLR's `tf2/run.py` wherever it has the setting.
"""

from dataclasses import dataclass
from typing import Literal

from data_prep.settings import setting


@dataclass(frozen=True)
class DataSettings:
    """Images and labels."""

    image_dir: str = setting(
        "",
        "Folder of images: train/validation/test sub-folders, class folders, or a flat unlabelled "
        "folder. Wins over --tfrecord_dir and --dataset. With --manifest: where its images lie "
        "now.",
    )
    manifest: str = setting("", "Manifest CSV with the columns path, label, split.")
    tfrecord_dir: str = setting("", "Folder of shards that simclr-tfrecord wrote.")
    dataset: str = setting("imagenet2012", "Name of a TensorFlow Datasets set.")
    data_dir: str = setting("", "Where TensorFlow Datasets keeps its data.")
    download: bool = setting(False, "Let TensorFlow Datasets download and prepare the set.")
    train_split: str = setting("train", "Split to train on.")
    eval_split: str = setting("validation", "Split the final evaluation scores.")
    split_ratios: str = setting(
        "train:0.7,validation:0.15,test:0.15",
        "Shares of the seeded, stratified split made when the images come without one.",
    )
    split_seed: int = setting(0, "Seed of that split: the same folder gives the same split.", low=0)
    labels: str = setting(
        "folder",
        "Where labels come from: 'random' draws them (an explicit control experiment); anything "
        "else means the folders' names or the manifest's column.",
    )
    num_of_classes: int = setting(
        0, "Number of classes expected; 0 takes it from the data, another number is checked.", low=0
    )
    labels_per_class: int = setting(
        0,
        "Keep only this many labelled training images a class when fine-tuning; 0 = all.",
        low=0,
        only="train_mode=finetune",
    )
    label_seed: int = setting(
        0, "Which images --labels_per_class draws.", low=0, only="train_mode=finetune"
    )
    image_channels: str = setting("auto", "Channels of the images: auto, 1, 3 or n.")
    cache_dataset: Literal["auto", "true", "false"] = setting(
        "auto", "Keep decoded images in memory; auto does so up to 1 GiB."
    )
    data_service: str = setting(
        "",
        "grpc://HOST:PORT of a tf.data service (simclr-data-service) whose workers decode and "
        "augment the training images; the batches stay the same.",
    )
    skip_unreadable: bool = setting(
        False, "Leave unreadable images out (they are listed) instead of stopping."
    )


_SHARED = ("image_dir", "manifest", "train_split", "split_ratios", "split_seed", "skip_unreadable")


class GivenImages:
    """Base of settings that say where images are and how they are split."""

    def data_settings(self) -> DataSettings:
        """The same for functions of `simclr-run`."""
        shared = {name: getattr(self, name) for name in _SHARED if hasattr(self, name)}
        return DataSettings(**shared)


@dataclass(frozen=True)
class ModelSettings:
    """Network."""

    backbone: str = setting(
        "resnet",
        "Backbone: resnet (SimCLRv2's, see --resnet_depth), vit_tiny, vit_small, hybrid "
        "(convolutions, then attention), or keras:NAME, a network of keras.applications such as "
        "keras:MobileNetV3Small.",
    )
    backbone_weights: str = setting(
        "",
        "keras:NAME: weights to start from, a file of the network without its classification head "
        "(*.weights.h5 or *.h5), or imagenet, which Keras downloads; empty = drawn at random.",
    )
    patch_size: int = setting(16, "vit_...: side of a patch in pixels.", low=1)
    transformer_depth: int = setting(
        0,
        "vit_..., hybrid: number of transformer blocks; 0 = 12 (a multiple of 4) and 8 (of 2).",
        low=0,
    )
    patch_projection: Literal["auto", "fixed", "trained"] = setting(
        "auto",
        "vit_...: keep the random projection of patches as it is drawn, which makes pretraining "
        "stable (Chen et al. 2021, section 4.2); auto: in pretraining only.",
    )
    resnet_depth: int = setting(50, "Depth of the ResNet: 18, 34, 50, 101, 152 or 200.")
    width_multiplier: float = setting(
        1.0, "Multiplier of the network's width; fractions such as 0.125 too.", low=0.01
    )
    sk_ratio: float = setting(
        0.0, "Above 0: selective kernels with this ratio. Recommended: 0.0625.", low=0, high=1
    )
    se_ratio: float = setting(0.0, "Above 0: squeeze and excitation.", low=0, high=1)
    stem: Literal["auto", "imagenet", "cifar"] = setting(
        "auto", "First layers; auto takes the CIFAR stem at 32 px or less."
    )
    batch_norm_decay: float = setting(0.9, "Decay of BatchNorm's moving statistics.", low=0, high=1)
    global_bn: bool = setting(True, "BatchNorm statistics over all replicas.")
    proj_head_mode: Literal["nonlinear", "linear", "none"] = setting(
        "nonlinear", "Kind of projection head."
    )
    proj_out_dim: int = setting(128, "Width of the projection head's output.", low=1)
    num_proj_layers: int = setting(3, "Layers of the nonlinear projection head.", low=1)
    ft_proj_selector: int = setting(
        0,
        "Layer of the projection head that the supervised head sits on: 0 = its input, "
        "-1 = its output.",
        low=-1,
    )
    lineareval_while_pretraining: bool = setting(
        True,
        "Train a supervised head beside, with stopped gradient, while pretraining.",
        only="train_mode=pretrain",
    )
    temperature: float = setting(0.1, "Temperature of the contrastive loss.", low=1e-4)
    hidden_norm: bool = setting(True, "Normalise projections to unit length in the loss.")


@dataclass(frozen=True)
class StartSettings:
    """Starting weights and freezing."""

    checkpoint: str = setting(
        "",
        "Weights to start from, used if --model_dir holds no checkpoint yet: any SimCLR "
        "checkpoint, of a run or public, by path or by the name that simclr-zoo lists. Flags of "
        "the network that are not given are taken from it.",
        also="encoder",
    )
    ema: bool = setting(False, "Take the moving averages of a TF1 checkpoint.", only="checkpoint")
    stem_adapt: Literal["sum", "mean", "repeat"] = setting(
        "sum", "How the first kernel of a checkpoint is made for images of other channels."
    )
    zero_init_logits_layer: bool = setting(
        False, "Set the supervised head to zero after loading --checkpoint.", only="checkpoint"
    )
    fine_tune_after_block: int = setting(
        -1,
        "Train only what comes after this block: -1 everything, 0 after the stem, 4 only heads.",
        low=-1,
        high=4,
    )
    train_blocks: str = setting(
        "",
        "Train only these parts (and the supervised head): any of stem,1,2,3,4,head, where head is "
        "the projection head.",
    )
    head_only: bool = setting(False, "Fine-tune the supervised head and nothing else.")
    frozen_bn: Literal["stored", "reference"] = setting(
        "stored",
        "Frozen blocks normalise by their stored statistics, which stay; reference: by the batch, "
        "and the stored ones go on moving.",
    )
    cache_frozen: bool = setting(
        False,
        "Compute the features of the frozen beginning of the network once, and train on them; for "
        "fine-tuning without augmentation (--norandom_crop --nohorizontal_flip).",
    )
    reference_quirks: str = setting(
        "",
        "Bring back what the reference does wrong, to meet its numbers: 'all', or any of "
        "frozen_bn, unused_projection_head, zero_init_logits, separated by commas.",
    )


@dataclass(frozen=True)
class DistillSettings:
    """Distillation."""

    teacher: str = setting(
        "",
        "Fine-tuned network to learn from in --train_mode=distill: any SimCLR checkpoint with a "
        "supervised head. The student is of the teacher's size unless flags say otherwise.",
    )
    distill_temperature: float = setting(
        1.0,
        "Temperature that both networks' logits are divided by.",
        low=1e-3,
        only="train_mode=distill",
    )
    labelled_weight: float = setting(
        0.0,
        "Weight of the true labels, where there are any; the teacher has the rest.",
        low=0,
        high=1,
        only="train_mode=distill",
    )


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimisation."""

    optimizer: Literal["lars", "momentum", "adam", "adamw"] = setting("lars", "Optimizer.")
    learning_rate: float = setting(
        0.3,
        "Learning rate: times batch / 256 (linear) or times the root of the batch (sqrt).",
        low=0,
    )
    learning_rate_scaling: Literal["linear", "sqrt"] = setting(
        "linear", "How the learning rate grows with the batch."
    )
    warmup_epochs: float = setting(10.0, "Epochs of linear warm-up.", low=0)
    momentum: float = setting(0.9, "Momentum.", low=0, high=1)
    weight_decay: float = setting(1e-6, "Weight decay.", low=0)


@dataclass(frozen=True)
class TrainSettings:
    """Training and evaluation."""

    mode: Literal["train", "eval", "train_then_eval"] = setting("train", "What to do.")
    train_mode: Literal["pretrain", "finetune", "distill"] = setting(
        "pretrain", "Pretrain without labels, fine-tune with labels, or learn from a --teacher."
    )
    train_batch_size: int = setting(
        512, "Images in a batch over all replicas.", low=1, also="contrastive_batch"
    )
    microbatch: int = setting(
        0,
        "Pretraining: images that the network sees at a time, a divisor of a replica's part of "
        "the batch. Memory then hardly depends on the batch, the losses still see all of it (Gao "
        "et al. 2021), BatchNorm in the network only these images. 0 = the whole batch at once.",
        low=0,
    )
    train_epochs: int = setting(100, "Epochs to train.", low=1)
    train_steps: int = setting(0, "Steps to train; wins over --train_epochs.", low=0)
    eval_steps: int = setting(0, "Batches to evaluate; 0 = the whole split.", low=0)
    eval_batch_size: int = setting(256, "Images in an evaluation batch.", low=1)
    eval_crops: int = setting(
        1,
        "Above 1: evaluate the mean over a grid of this many crops along each side, which covers "
        "the whole image; 1 = the central crop alone.",
        low=1,
        high=8,
    )
    checkpoint_epochs: int = setting(1, "Epochs between checkpoints.", low=1)
    checkpoint_steps: int = setting(
        0, "Steps between checkpoints; wins over --checkpoint_epochs.", low=0
    )
    keep_checkpoint_max: int = setting(5, "Checkpoints to keep.", low=1)
    keep_hub_module_max: int = setting(1, "Exported SavedModels to keep; 0 = all.", low=0)
    validate_every: int = setting(
        0, "Checkpoints between validations during training; 0 = none until the end.", low=0
    )
    early_stopping_patience: int = setting(
        0, "Stop after this many validations without improvement; 0 = never.", low=0
    )
    health_watch: bool = setting(True, "Warn of collapse, chance loss and too few updates.")
    eval_timeout: float = setting(
        600.0, "--mode=eval: seconds to wait for the next checkpoint.", low=0
    )
    knn_neighbors: int = setting(
        10, "k of the cosine k-NN evaluation.", low=1, only="train_mode=pretrain"
    )
    linear_probe: bool = setting(
        True, "Also score a linear probe on the features at the end of pretraining."
    )
    floors: bool = setting(
        True,
        "Put beside an evaluation what the most frequent class, raw pixels and untrained features "
        "reach on the same images.",
    )


@dataclass(frozen=True)
class MachineSettings:
    """Devices and speed."""

    distribute: Literal["auto", "one_device", "mirrored", "multi_worker", "slurm", "tpu"] = setting(
        "auto", "tf.distribute strategy; auto looks at TF_CONFIG, then at the devices."
    )
    num_cpu_devices: int = setting(
        0, "Split the CPU into this many logical devices and mirror over them.", low=0
    )
    use_tpu: bool = setting(False, "Run on a TPU.")
    tpu_name: str = setting("", "Cloud TPU name or grpc:// address.")
    tpu_zone: str = setting("", "Zone of the Cloud TPU.")
    gcp_project: str = setting("", "Project of the Cloud TPU.")
    master: str = setting("", "Address of the TPU's master when --tpu_name is not given.")
    precision: Literal["auto", "float32", "bfloat16"] = setting(
        "auto",
        "Precision of the network; auto takes bfloat16 only where the device computes in it.",
    )
    jit_compile: Literal["auto", "true", "false"] = setting(
        "auto", "Compile the step with XLA; auto: on one GPU or a TPU, never on a CPU."
    )
    steps_per_loop: int = setting(
        0, "Steps between two looks at the host; 0: 1 on CPU, 20 on GPU, 100 on TPU.", low=0
    )
    memory_check: bool = setting(
        True, "Refuse what by an estimate cannot fit in the memory that there is."
    )
    seed: int = setting(0, "Seed of weights, order and augmentation.", low=0)


@dataclass(frozen=True)
class RunSettings:
    """Run directory."""

    model_dir: str = setting(
        "", "Where the run is kept; the same command goes on from there.", also="output"
    )
    overwrite: bool = setting(
        False, "Start anew in a --model_dir that holds another run, whose files are deleted."
    )
    eval_name: str = setting("", "Name that is added to the evaluation's result files.")


ADDED_METHODS: list[str] = []  # by `methods.registry.register_method`


@dataclass(frozen=True)
class MethodSettings:
    """Self-supervised method."""

    method: Literal["simclr", "moco", "byol", "simsiam", "barlow_twins", "vicreg", "swav"] = (
        setting(
            "simclr",
            "How pretraining learns. Temperature and projection head are those of the network's "
            "flags; the papers have --temperature=0.2 for MoCo v2, 0.1 for SwAV.",
            added=ADDED_METHODS,
        )
    )
    decoupled: bool = setting(
        False,
        "simclr: leave the positive out of the loss's denominator, as in decoupled contrastive "
        "learning (Yeh et al. 2022, equation 6); meant for small batches.",
    )
    queue_size: int = setting(
        65536,
        "moco: negatives that the queue holds (He et al. 2020, section 4); take fewer than there "
        "are training images.",
        low=1,
        only="method=moco",
    )
    target_momentum: float = setting(
        0.0,
        "moco, byol: weight of the old values in the momentum network; 0 = as in the papers, 0.999 "
        "(He et al. 2020, section 4) and 0.996 (Grill et al. 2020, section 3.2).",
        low=0,
        high=1,
        only="method=moco,byol",
    )
    momentum_schedule: Literal["auto", "constant", "cosine"] = setting(
        "auto",
        "moco, byol: keep that momentum, or let it rise to 1 along a cosine; auto as in the "
        "papers: constant for moco, cosine for byol.",
        only="method=moco,byol",
    )
    predictor_dim: int = setting(
        0,
        "byol, simsiam: width of the predictor; 0 = in the papers' proportion to the projection, "
        "16 times (4096 on 256) and a quarter (512 on 2048).",
        low=0,
        only="method=byol,simsiam",
    )
    predictor_rate: float = setting(
        1.0,
        "byol, simsiam: factor on the learning rate of the predictor. 10 keeps it close to the "
        "best one, and features from shrinking to a few numbers (Grill et al. 2020, "
        "appendix on a near-optimal predictor).",
        low=0,
        only="method=byol,simsiam",
    )
    barlow_lambda: float = setting(
        0.005,
        "barlow_twins: weight of the off-diagonal terms (Zbontar et al. 2021, section 2.2).",
        low=0,
        only="method=barlow_twins",
    )
    vicreg_invariance: float = setting(
        25.0,
        "vicreg: weight of the invariance term (Bardes et al. 2022, section 4.2).",
        low=0,
        only="method=vicreg",
    )
    vicreg_variance: float = setting(
        25.0, "vicreg: weight of the variance term (the same section).", low=0, only="method=vicreg"
    )
    vicreg_covariance: float = setting(
        1.0,
        "vicreg: weight of the covariance term (the same section).",
        low=0,
        only="method=vicreg",
    )
    prototypes: int = setting(
        3000,
        "swav: number of prototypes (Caron et al. 2020, section 4).",
        low=2,
        only="method=swav",
    )
    assignment_epsilon: float = setting(
        0.05, "swav: softness of the assignments (appendix A).", low=1e-3, only="method=swav"
    )
    sinkhorn_iterations: int = setting(
        3, "swav: iterations of Sinkhorn-Knopp (appendix A).", low=1, only="method=swav"
    )
    small_crops: int = setting(
        6,
        "swav: small crops beside the two views; 0 = none (section 3.2, appendix A).",
        low=0,
        only="method=swav",
    )
    small_crop_size: int = setting(
        0,
        "swav: their side in pixels; 0 = 3/7 of --image_size (96 of 224).",
        low=0,
        only="method=swav",
    )
    small_crop_area: float = setting(
        0.14,
        "swav: largest share of the image's area that a small crop has, and the smallest that the "
        "two views have (appendix A). Small crops have a tenth of it at least.",
        low=0.1,
        high=1,
        only="method=swav",
    )
    frozen_prototype_steps: int = setting(
        313,
        "swav: steps at the beginning in which the prototypes stay (the authors' code).",
        low=0,
        only="method=swav",
    )
    assignment_queue: int = setting(
        0,
        "swav: projections of earlier batches that are balanced along when batches are small; 0 = "
        "none. The paper has 3840 for batches of 256 (section 4).",
        low=0,
        only="method=swav",
    )
    assignment_queue_epochs: float = setting(
        15.0, "swav: epochs before the queue counts (the authors' code).", low=0, only="method=swav"
    )
