"""Repeated fits of one classifier, with other labels and weights but one traced graph.

A `ClassifierSession` makes one run that is kept; `Refit` makes many that are only scored. There is
no folder, no validation and no choice of an epoch, so a fit has seen no labels but those that it is
given.
"""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from data_prep.sources.manifest_source import ManifestSource
from finetune.classifier import Classification, Classifier
from finetune.config import ClassifierConfig
from finetune.session import ClassifierJob, optimization
from simclr_tf.evaluation.metrics import softmax
from simclr_tf.training import distribution
from simclr_tf.training.batches import training_batches
from simclr_tf.training.step import TrainStep


class Refit:
    """A classifier that begins anew for every fit.

    Args:
        config: How it is trained; `train.train_steps` counts for every fit.
        recipe: How it is built.
        channels: Of the images.
        class_names: The classes.
        factor: Updates of a fit for each of `train_steps`.
    """

    def __init__(
        self,
        config: ClassifierConfig,
        recipe: ClassifierJob,
        channels: int,
        class_names: Sequence[str],
        factor: int = 1,
    ) -> None:
        self.steps = config.train.train_steps * factor
        values = {**config.values(), "train_steps": self.steps}
        self._config, self._recipe = type(config).from_values(values), recipe
        self._channels, self._class_names = channels, tuple(class_names)
        self._devices = distribution.connect(config.machine)
        self._precision = distribution.choose_precision(config.machine.precision, self._devices)
        self._images = recipe.images(channels)
        keras.config.set_dtype_policy(self._precision)
        try:
            with self._devices.strategy.scope():
                self.model = recipe.build(channels, len(self._class_names))
                self._optimizer, decay = optimization(
                    self._config, recipe, self.model, config.train.train_batch_size
                )
        finally:
            keras.config.set_dtype_policy("float32")
        self._blank = [v.value.numpy() for v in self._optimizer.variables]
        self._drawn: dict[int, list[np.ndarray]] = {}
        method = Classification(
            self.model, self._config.loss, None, self._optimizer.iterations,
            self._config.machine.seed,
        )  # fmt: skip
        self._step = TrainStep(
            self.model,
            method,
            self._optimizer,
            decay,
            self._images.photometry,
            self._devices,
            distribution.choose_jit(config.machine.jit_compile, self._devices),
        )
        batch = config.train.eval_batch_size
        self._evaluator = self._images.evaluator(self._outputs, self._devices, batch)

    def _outputs(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = self.model.features_and_logits(images)
        return {**outputs, "features": tf.cast(outputs["features"], tf.float32)}

    def start(self, seed: int) -> None:
        """Sets the weights of the beginning, and a blank optimizer.

        Args:
            seed: Of what is drawn: the head, or the whole network if nothing is loaded.
        """
        if seed not in self._drawn:
            self._drawn = {seed: self._first_weights(seed)}  # one at a time: they may be large
        for variable, value in zip(self.model.variables, self._drawn[seed], strict=True):
            variable.assign(value)
        for variable, value in zip(self._optimizer.variables, self._blank, strict=True):
            variable.assign(value)

    def _first_weights(self, seed: int) -> list[np.ndarray]:
        keras.utils.set_random_seed(seed)
        fresh: Classifier = self._recipe.build(self._channels, len(self._class_names))
        self._recipe.start(fresh)
        return [v.value.numpy() for v in fresh.variables]

    def fit(self, labeled: ManifestSource, seed: int, steps: int = 0) -> None:
        """Trains from the weights that `start` has set.

        Args:
            labeled: The images to learn from; if fewer than a batch, they are repeated in it.
            seed: Of their order and augmentation.
            steps: Updates; 0 = all that are planned.
        """
        batches = training_batches(
            labeled,
            self._images.training_example(),
            self._devices,
            self._config.train.train_batch_size,
            seed,
            start_step=0,
        )
        self._step.run(iter(batches), steps or self.steps)

    def features(self, images: ManifestSource) -> np.ndarray:
        """Features float32 [n, D] of images, with the weights as they are."""
        return self._evaluator.outputs(images).features

    def probabilities(self, images: ManifestSource) -> np.ndarray:
        """Probabilities float64 [n, K] of images, with the weights as they are."""
        logits = self._evaluator.outputs(images).logits
        assert logits is not None
        return softmax(logits)
