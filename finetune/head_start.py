"""The beginning of a new head: scaling and weights taken from the features of the training images.

A head drawn at random sends gradients of its own making through a pretrained network and spoils it
before it has learnt anything (Kumar et al. 2022, Fine-Tuning can Distort Pretrained Features and
Underperform Out-of-Distribution). A head that begins as a linear probe has little to correct.
"""

import logging
import time

import numpy as np

from data_prep.durations import format_seconds
from finetune.session import ClassifierSession
from simclr_tf.evaluation.linear_probe import fit_linear_probe
from simclr_tf.training.frozen import FrozenFeatures

log = logging.getLogger(__name__)

_MOST_IMAGES = 5000  # of a probe: more change little and take minutes
_MOST_WEIGHTS = 500_000


def start_head(session: ClassifierSession) -> None:
    """Sets scaling and weights of the head of a new run, as the settings ask for.

    All workers must call it.

    Args:
        session: The run; its backbone has its starting weights.
    """
    head, asked = session.model.head, session.config.head.head_start
    wanted = asked == "probe" or (asked == "auto" and session.recipe.pretrained)
    wanted = wanted and not head.hidden
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


def _start_from_probe(session: ClassifierSession, known: FrozenFeatures) -> None:
    head, config = session.model.head, session.config
    rows = np.flatnonzero(known.label >= 0)
    if len(rows) > _MOST_IMAGES:
        rng = np.random.default_rng(config.machine.seed)
        rows = np.sort(rng.choice(rows, _MOST_IMAGES, replace=False))
    weights = known.features.shape[1] * head.num_classes
    if weights > _MOST_WEIGHTS or len(np.unique(known.label[rows])) < 2:
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
    head.start_from(probe)
