"""Steps from decoded images to the network's input, in training and in scoring."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import tensorflow as tf

from data_prep.augment.color import to_float
from data_prep.augment.image_data_generator import supervised_image
from data_prep.augment.views import (
    ViewConfig,
    device_views,
    evaluation_image,
    example_seed,
    skipped_for_channels,
)
from data_prep.sources.source import Source
from finetune.config import AugmentSettings
from simclr_tf.training.batches import MakeExample, MakeImage, view_maker
from simclr_tf.training.distribution import Devices
from simclr_tf.training.evaluator import Evaluator, Forward

_LEVELS = 255.0


@dataclass(frozen=True)
class ImageSteps:
    """The steps from a decoded image to the network's input.

    Attributes:
        shape: (H, W, C) of the network's input.
        views: Size, channels and central crop, which hold for scoring too.
        crops: Crops along each side that the score of an image is the mean of; 1 = the central one.
        trained: Makes the tensors of a training example of a decoded image and its seed: `views`
            and `draws` if there is photometry, else `image`; None = as `scored`: nothing augments.
        photometry: The part of the augmentation that runs on the device, if there is one.
    """

    shape: tuple[int, int, int]
    views: ViewConfig
    crops: int = 1
    trained: MakeExample | None = None
    photometry: ViewConfig | None = None

    @property
    def scored(self) -> MakeImage:
        """Makes the network's input of a decoded image, one crop; nothing of it is random."""
        return partial(evaluation_image, config=self.views)

    def evaluator(self, forward: Forward, devices: Devices, batch_size: int) -> Evaluator:
        """Returns an evaluator that runs a network over the crops that are scored.

        Args:
            forward: Gives `features` and `logits` of images.
            devices: The devices that it runs on.
            batch_size: Images of a global batch.
        """
        return Evaluator(forward, self.views, devices, batch_size, crops=self.crops)

    @property
    def augments(self) -> bool:
        """True if training images differ from epoch to epoch."""
        return self.trained is not None

    def training_example(self) -> MakeExample:
        """Returns the function that makes a training example."""
        return self.trained or (lambda image, _seed: {"image": self.scored(image)})


def image_steps(
    settings: AugmentSettings, augment: str, channels: int, crops: int = 1
) -> ImageSteps:
    """The steps that the settings ask for.

    Args:
        settings: Size, crops and augmentation.
        augment: `none`, `views` or `generator`.
        channels: Of the images.
        crops: Along each side, in scoring.
    """
    views = settings.view_config(channels, num_views=1)
    shape = (views.image_size, views.image_size, channels)
    steps = ImageSteps(shape, views, crops)
    if augment == "none":
        return steps
    if augment == "views":
        return replace(steps, trained=view_maker(views), photometry=views)
    config = settings.generator()

    def generated(image: tf.Tensor, seed: tf.Tensor) -> dict[str, tf.Tensor]:
        pixels = supervised_image(steps.scored(image), seed, config)
        return {"image": tf.clip_by_value(pixels / _LEVELS, 0.0, 1.0)}

    return replace(steps, trained=generated)


def skipped(steps: ImageSteps) -> list[str]:
    """Operations that were asked for and make sense for colour images alone."""
    return skipped_for_channels(steps.photometry) if steps.photometry else []


def sample_views(
    source: Source, steps: ImageSteps, seed: int, batch_size: int, images: int = 8, views: int = 4
) -> np.ndarray:
    """The first training images as the network sees them, one view per epoch.

    Args:
        source: The training images.
        steps: Steps from decoded image to network input.
        seed: The run's seed.
        batch_size: Of the run: it fixes which images come first.
        images: How many at most.
        views: Epochs shown of each; one if nothing augments.

    Returns:
        [n, V, H, W, C], float32 in [0, 1].
    """
    make = steps.training_example()
    elements = source.elements(seed=seed, shuffle=True, start=0, batch_size=batch_size)
    shown = []
    for element in elements.take(min(images, batch_size, source.num_examples)):
        image = source.decode(element)
        epochs = range(views if steps.augments else 1)
        own = [make(image, example_seed(seed, epoch, element["index"])) for epoch in epochs]
        shown.append(tf.concat([_as_seen(example, steps) for example in own], axis=0))
    return tf.stack(shown).numpy()


def _as_seen(example: dict[str, tf.Tensor], steps: ImageSteps) -> tf.Tensor:
    """One view, [1, H, W, C]."""
    if steps.photometry is None:
        return to_float(example["image"])[tf.newaxis]
    return device_views(example["views"][tf.newaxis], example["draws"][tf.newaxis],
                        steps.photometry)[0]  # fmt: skip
