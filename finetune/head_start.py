"""The beginning of a new head: scaling and weights taken from the features of the training images.

A head drawn at random sends gradients of its own making through a pretrained network and spoils it
before it has learnt anything (Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features and
Underperform Out-of-Distribution). A head that begins as a linear probe has little to correct.
"""

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from data_prep.durations import format_seconds
from finetune.classifier import Classifier
from finetune.config import ClassifierConfig
from finetune.recipe import Recipe
from simclr_tf.evaluation.linear_probe import LinearProbe, fit_linear_probe
from simclr_tf.training.frozen_features import FrozenFeatures

if TYPE_CHECKING:
    from finetune.session import ClassifierSession

log = logging.getLogger(__name__)

_RATE = 1e-3
_PROBE_RATE = 3e-5  # from a fitted head on, 0.001 goes far beyond it and fits noise
_LEAST_DEVIATION = 0.05  # of the root mean square
_MOST_IMAGES = 5000  # of a probe: more change little and take minutes
_MOST_WEIGHTS = 500_000


def begins_as_probe(config: ClassifierConfig, recipe: Recipe, model: Classifier) -> bool:
    """Whether the head of a new run is to begin as a linear probe, as far as settings tell.

    Args:
        config: All settings.
        recipe: What the command brings.
        model: The classifier, built.
    """
    asked = config.head.head_start
    wanted = asked == "probe" or (asked == "auto" and recipe.pretrained)
    return recipe.new_head and wanted and not model.head.hidden


def learning_rate(
    config: ClassifierConfig, recipe: Recipe, model: Classifier, fixed_features: bool
) -> float:
    """The learning rate that is given, or that suits the head where it is left open.

    Args:
        config: All settings.
        recipe: What the command brings.
        model: The classifier, built.
        fixed_features: Whether an image has the same features in every epoch.
    """
    if config.optimizer.learning_rate:
        return config.optimizer.learning_rate
    fitted = begins_as_probe(config, recipe, model) and not _too_large(model)
    return _PROBE_RATE if fitted and fixed_features else _RATE


def _too_large(model: Classifier) -> bool:
    """Whether a probe of the head's weights would take too long."""
    return int(np.prod(model.head.output_layer.kernel.shape)) > _MOST_WEIGHTS


def start_head(session: "ClassifierSession") -> None:
    """Sets scaling and weights of the head of a new run, as the settings ask for.

    All workers must call it.

    Args:
        session: The run; its backbone has its starting weights.
    """
    head = session.model.head
    wanted = begins_as_probe(session.config, session.recipe, session.model)
    if head.scaling is None and not wanted:
        return
    began = time.perf_counter()
    known = session.scorer.features(session.data.train_split)
    if not np.isfinite(known.features).all():
        log.warning("the network's features are not finite: the head starts at random")
        return
    if head.scaling is not None:
        head.scaling.set_statistics(known.features)
    if wanted:
        _start_from_probe(session, known)
    took = format_seconds(time.perf_counter() - began)
    log.info("the head starts from the features of the training images (%s)", took)


def _start_from_probe(session: "ClassifierSession", known: FrozenFeatures) -> None:
    head, config = session.model.head, session.config
    rows = np.flatnonzero(known.label >= 0)
    if len(rows) > _MOST_IMAGES:
        rng = np.random.default_rng(config.machine.seed)
        rows = np.sort(rng.choice(rows, _MOST_IMAGES, replace=False))
    if _too_large(session.model) or len(np.unique(known.label[rows])) < 2:
        weights = known.features.shape[1] * head.num_classes
        log.info("the head starts at random: a linear probe of %s weights is left out",
                 f"{weights:,}")  # fmt: skip
        return
    probe = fit_linear_probe(
        known.features[rows],
        known.label[rows],
        num_classes=head.num_classes,
        seed=config.machine.seed,
        balanced="balanced" in (config.loss.class_weights, config.loss.sampling),
    )
    frozen = not session.model.backbone.trainable_variables
    if not frozen or session.steps.augments:
        probe = bounded(probe, known.features[rows])
    head.start_from(probe)


def bounded(probe: LinearProbe, features: np.ndarray) -> LinearProbe:
    """The probe without weights that grow beyond bounds where features hardly vary.

    A collapsed network's features differ by a thousandth of their size, which a probe blows up;
    augmentation, or the statistics of a batch, move them by a hundredth, and the loss is in the
    hundreds. A feature's deviation is taken for a twentieth of its size at least.

    Args:
        probe: Fitted on the features.
        features: Of the training images, float [n, D].
    """
    size = np.sqrt(np.mean(features.astype(np.float64) ** 2, axis=0))
    return replace(probe, scale=np.maximum(probe.scale, _LEAST_DEVIATION * size))
