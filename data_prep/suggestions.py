"""What the size of a set says about how to train on it: class weights, batch size, epochs."""

from collections.abc import Mapping
from dataclasses import dataclass


def class_weights(counts: Mapping[str, int]) -> dict[str, float]:
    """Weights that let every class count the same: images / (classes * images of the class).

    As scikit-learn's `compute_class_weight("balanced", ...)`. Classes without images have none.

    Args:
        counts: Images of every class.
    """
    present = {name: number for name, number in counts.items() if number}
    total = sum(present.values())
    return {name: total / (len(present) * number) for name, number in present.items()}


@dataclass(frozen=True)
class Schedule:
    """A batch size and a number of epochs.

    Attributes:
        batch_size: Images of a batch.
        epochs: Times that every image is seen.
        updates: Steps that makes.
    """

    batch_size: int
    epochs: int
    updates: int


@dataclass(frozen=True)
class _Rule:
    least_batch: int
    most_batch: int
    least_epochs: int
    most_epochs: int
    updates: int


# Pretraining: 12,827 drill-core photographs, batch 256, 100 epochs, are 5,011 updates, after which
# self-supervision beat supervised transfer; SimCLR trains CIFAR-10 for 1,000 epochs. A contrastive
# batch of fewer than 32 images has too few negatives.
_PRETRAIN = _Rule(32, 512, 100, 1000, updates=5000)
# A head or a network that is fine-tuned: there batch 64 and 25 epochs.
_FINETUNE = _Rule(8, 64, 25, 200, updates=1000)
_UPDATES_PER_EPOCH = 16

FEW_UPDATES = 200
"""With fewer steps than this a network learns next to nothing."""


def suggest_pretraining(images: int) -> Schedule:
    """Batch and epochs to pretrain on so many images, as a place to start from.

    A network learns by updates, not by epochs: the batch is the largest power of two that leaves 16
    updates an epoch, from 32 to 512; the epochs are as many as make 5,000 updates, from 100 to
    1,000.

    Args:
        images: Training images, at least 1.
    """
    return _suggest(images, _PRETRAIN)


def suggest_finetuning(images: int) -> Schedule:
    """Batch and epochs to fine-tune on so many labelled images: see `suggest_pretraining`.

    Here the batch is from 8 to 64, and 25 to 200 epochs are to make 1,000 updates.
    """
    return _suggest(images, _FINETUNE)


def _suggest(images: int, rule: _Rule) -> Schedule:
    wanted = min(max(images // _UPDATES_PER_EPOCH, rule.least_batch), rule.most_batch, images)
    batch = 1 << (wanted.bit_length() - 1)
    epochs = -(-rule.updates * batch // images)
    epochs = min(max(epochs, rule.least_epochs), rule.most_epochs)
    # SimCLR's count of steps.
    return Schedule(batch, epochs, images * epochs // batch + 1)
