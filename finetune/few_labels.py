"""Repeated fine-tuning of one network, with other labels and other starting weights.

The graph is traced once; what differs between fits are weights, labels and the seed. Nothing is
written: for one run that is kept use `simclr-run --train_mode=finetune`.
"""

from dataclasses import dataclass, replace

import numpy as np

from data_prep.manifest.manifest import Manifest
from data_prep.sources.manifest_source import ManifestSource
from simclr_tf.checkpoints.load import load_weights
from simclr_tf.config.run_config import RunConfig
from simclr_tf.evaluation.linear_probe import fit_linear_probe
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.training import distribution
from simclr_tf.training.batches import training_batches
from simclr_tf.training.build import TrainingParts, build_seeded, build_step, view_config
from simclr_tf.training.evaluator import Evaluator, Outputs


@dataclass(frozen=True)
class Scored:
    """Predictions of a classifier for n test images.

    Attributes:
        label: True class numbers [n].
        predicted: Predicted class numbers [n].
    """

    label: np.ndarray
    predicted: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """Mask of the correct predictions, bool [n]."""
        return self.label == self.predicted


class FewLabels:
    """Trains classifiers on labelled images and scores them on a fixed test set.

    Args:
        config: Network, augmentation and optimizer; `train.train_steps` must be given, for it
            counts for every fit, however many labels there are.
        test: The test images, labelled.
        class_names: The classes.
    """

    def __init__(self, config: RunConfig, test: Manifest, class_names: tuple[str, ...]) -> None:
        self._config, self._class_names = config, class_names
        self._devices = distribution.connect(config.machine)
        self._test = ManifestSource(test, class_names)
        self._model, parts = self._build(config.machine.seed)
        self._optimizer = parts.optimizer
        self._blank = [v.value.numpy() for v in self._optimizer.variables]
        channels = self._test.channels
        self._step = build_step(config, self._devices, self._model, parts, channels)
        self._views = view_config(config, channels)
        self._evaluator = Evaluator(
            self._model, self._views, self._devices, config.train.eval_batch_size
        )

    def _build(self, seed: int) -> tuple[SimCLRModel, TrainingParts]:
        machine = replace(self._config.machine, seed=seed)
        config = replace(self._config, machine=machine)
        classes = len(self._class_names)
        return build_seeded(config, self._devices, self._test.channels, classes, num_examples=1)

    def start(self, seed: int, checkpoint: str = "") -> None:
        """Sets fresh weights and a blank optimizer.

        Args:
            seed: Of the fresh weights.
            checkpoint: Weights to load on top of them, see `load_weights`; empty for none. If it
                holds a supervised head of the same size, that is loaded too.
        """
        fresh, _ = self._build(seed)
        for variable, other in zip(self._model.variables, fresh.variables, strict=True):
            variable.assign(other.value.numpy())
        if checkpoint:
            load_weights(self._model, checkpoint)
        for variable, value in zip(self._optimizer.variables, self._blank, strict=True):
            variable.assign(value)

    def finetune(self, labelled: Manifest, seed: int) -> Scored:
        """Trains from the weights set by `start`, and scores the test images.

        Args:
            labelled: The training images.
            seed: Of their order and augmentation.
        """
        source = ManifestSource(labelled, self._class_names)
        train = self._config.train
        batches = training_batches(
            source, self._views, self._devices, train.train_batch_size, seed, start_step=0
        )
        self._step.run(iter(batches), train.train_steps)
        outputs = self._evaluator.outputs(self._test)
        if outputs.logits is None:
            raise ValueError("the network has no supervised head")
        return Scored(outputs.label, outputs.logits.argmax(axis=1))

    def outputs(self, images: Manifest) -> Outputs:
        """The network's outputs for some images, with the weights as they are."""
        return self._evaluator.outputs(ManifestSource(images, self._class_names))

    def test_outputs(self) -> Outputs:
        """The network's outputs for the test images, with the weights as they are."""
        return self._evaluator.outputs(self._test)


def probe(train: Outputs, test: Outputs) -> Scored:
    """A linear probe fitted on the features of the training images, scored on the test images."""
    fitted = fit_linear_probe(train.features, train.label)
    return Scored(test.label, fitted.predict(test.features))
