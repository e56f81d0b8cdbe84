"""Settings of a pretraining that suit the images and the machine, each with its reason.

Crops and learning rate were chosen by runs of 700 updates on two CPU cores (docs/pretrain.md has
the table); the sizes for a GPU are SimCLRv2's smaller ones and were not tried on one.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_prep.manifest.scan import ImageFacts

CHOSEN = (
    "image_size", "resnet_depth", "width_multiplier", "train_batch_size", "train_epochs",
    "learning_rate", "weight_decay", "temperature", "color_jitter_strength", "use_blur",
    "min_crop_area", "min_crop_aspect", "vertical_flip", "checkpoint_epochs", "validate_every",
    "mode",
)  # fmt: skip
"""Names of the settings that `suggest_settings` chooses."""

_SIDES = (32, 48, 64, 96)
_GPU_SIDES = (*_SIDES, 128, 160, 224)
_UPDATES = 1500
_MOST_EPOCHS = 1000
_GIB = 2**30


@dataclass(frozen=True)
class Suggestion:
    """A value for a setting.

    Attributes:
        setting: Name of the setting.
        value: The value.
        reason: Why, half a sentence.
    """

    setting: str
    value: Any
    reason: str


def suggest_settings(
    images: int,
    facts: "ImageFacts",
    memory: float,
    *,
    gpu: bool,
    batch: int = 0,
    epochs: int = 0,
) -> tuple[Suggestion, ...]:
    """Suggests the settings of a pretraining that nothing else decides.

    Args:
        images: Training images.
        facts: Sizes and channels of all images.
        memory: Bytes that training may take.
        gpu: True if there is a GPU.
        batch: Images in a batch, if that is decided.
        epochs: Epochs, if they are decided.
    """
    import numpy as np  # late, as what follows: --help of the command names these settings

    from data_prep.statistics import suggest_pretraining

    side = int(np.median(np.minimum(facts.survey.height, facts.survey.width)))
    sides = _GPU_SIDES if gpu else _SIDES
    size = max((s for s in sides if s <= side), default=sides[0])
    low_memory = memory < 4 * _GIB
    width = 1.0 if gpu else 0.25 if low_memory else 0.5
    most = 256 if gpu else 32 if low_memory else 64
    batch = batch or max(min(suggest_pretraining(images).batch_size, most), 2)
    updates = 5000 if gpu else _UPDATES
    epochs = epochs or min(max(-(-updates * batch // images), 10), _MOST_EPOCHS)
    machine = "a GPU" if gpu else "a CPU"
    memory_said = f"{memory / _GIB:.1f} GiB of memory" if memory < 1e15 else "the memory there is"
    colors = {1: "grey", 3: "colour"}.get(facts.channels, f"{facts.channels}-band")
    return (
        Suggestion("image_size", size, f"the images' shorter side is {side} pixels (median)"),
        Suggestion("resnet_depth", 50 if gpu else 18, f"for {machine}"),
        Suggestion("width_multiplier", width, f"for {machine} with {memory_said}"),
        Suggestion("train_batch_size", batch, f"for {images} training images"),
        Suggestion("train_epochs", epochs, f"about {updates} updates"),
        Suggestion("learning_rate", min(4.0, 256 / batch), "LARS with small batches"),
        Suggestion("weight_decay", 1e-4, "small sets"),
        Suggestion("temperature", 0.2, "small batches"),
        Suggestion(
            "color_jitter_strength", 0.5, f"{colors} images whose intensity means something"
        ),
        Suggestion("use_blur", False, "fine detail is what tells scientific images apart"),
        Suggestion("min_crop_area", 0.4, "a small part of a texture or lattice tells too little"),
        Suggestion("min_crop_aspect", 1.0, "a stretched image may be one of another class"),
        Suggestion(
            "vertical_flip", True, "micrographs and the sky have no up; else --novertical_flip"
        ),
        Suggestion("checkpoint_epochs", max(1, epochs // 15), "some fifteen checkpoints"),
        Suggestion("validate_every", 1, "the nearest neighbours tell whether features are of use"),
        Suggestion("mode", "train_then_eval", "scores at the end"),
    )
