"""Training of an opened run: where it starts, what watches it, what stops it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from data_prep.source import Source
from simclr_tf.checkpoints.export import export_keras
from simclr_tf.checkpoints.load import Checkpoint, fill
from simclr_tf.methods.base import extension_of
from simclr_tf.models.copies import float32_copy
from simclr_tf.models.fingerprint import moved, part_hashes
from simclr_tf.training import callbacks as cb
from simclr_tf.training import health, scoring
from simclr_tf.training.backbone import take_weights
from simclr_tf.training.build import build_step, first_trained_stage, small_view_config
from simclr_tf.training.data_service import out_of_turn
from simclr_tf.training.evaluator import Outputs
from simclr_tf.training.frozen import feature_batches, frozen_features
from simclr_tf.training.inputs import PREFETCH, PREFETCH_LARGE, training_batches
from simclr_tf.training.lineage import warn_of_leaks
from simclr_tf.training.loop import Loop, StopRequest
from simclr_tf.training.preview import view_sheet
from simclr_tf.training.session import Session
from simclr_tf.training.small_crops import with_small_crops
from simclr_tf.training.step import TrainStep

log = logging.getLogger(__name__)

_FEW_IMAGES = 256
_KNN_IMAGES = 5000


def train(session: Session, stop: StopRequest) -> int:
    """Trains from the newest checkpoint, or from the start, to the end or until asked to stop.

    At the end `--mode=train` leaves `encoder.keras`.

    Args:
        session: The opened run.
        stop: The request to stop.

    Returns:
        The step reached; its checkpoint is on disk.

    Raises:
        DivergedError: A number became NaN or infinite; the last checkpoint is kept.
    """
    step, planned = _restore(session), session.plan.total_steps
    if step >= session.last_step():
        log.info(
            "training was complete at step %d%s", step, " (stopped early)" if step < planned else ""
        )
    else:
        step = _train_from(session, step, stop)
        stopped_early = session.model.stop_training and step < planned
        if step < planned and not stopped_early:
            return step
        if stopped_early and session.devices.is_chief:
            session.run_dir.write_early_stop(step)
    _say_what_moved(session)
    if session.config.train.mode == "train":  # otherwise the evaluation exports
        copy = float32_copy(session.model)
        if session.devices.is_chief:
            export_keras(copy.encoder, session.run_dir.encoder_file)
    return step


def _train_from(session: Session, start_step: int, stop: StopRequest) -> int:
    config, source = session.config, session.data.train
    batch_size = config.train.train_batch_size
    _say_plan(session, start_step)
    step = build_step(config, session.devices, session.model, session.parts, session.data.channels)
    seed = config.machine.seed
    if config.start.cache_frozen:
        first_stage = first_trained_stage(session.model)
        known = frozen_features(
            session.model, source, session.views, session.devices, config.train.eval_batch_size,
            first_stage, seed,
        )  # fmt: skip
        batches = feature_batches(known, session.devices, batch_size, seed, start_step)
    else:
        views = with_small_crops(session.views, small_view_config(config, session.data.channels))
        batches = training_batches(
            source, views, session.devices, batch_size, seed, start_step,
            session.config.data.data_service,
            PREFETCH_LARGE if config.train.microbatch else PREFETCH,
        )  # fmt: skip
    if session.devices.is_chief:
        session.run_dir.early_stop_file.unlink(missing_ok=True)
    start_scores = _start_scores(session, start_step)
    loop, step_callbacks = _loop(session, step, start_step, start_scores)
    step_callbacks.on_train_begin()
    with naming_unreadable(source):
        reached = loop.run(iter(batches), start_step, stop)
    step_callbacks.on_train_end()
    return reached


def _say_plan(session: Session, start_step: int) -> None:
    images, plan = session.data.train.num_examples, session.plan
    mode, batch_size = session.config.train.train_mode, session.config.train.train_batch_size
    if session.config.train.health_watch:
        found = health.warnings_before_start(images, batch_size, plan.total_steps, mode)
        for message in (*found, *extension_of(session.parts.method).warnings(images)):
            log.warning("%s", message)
    log.info(
        "%s on %d images, batch %d, from step %d to %d, a checkpoint every %d",
        mode,
        images,
        batch_size,
        start_step,
        plan.total_steps,
        plan.checkpoint_steps,
    )


def _restore(session: Session) -> int:
    """The newest sound checkpoint; without one --checkpoint, if given, or fresh weights."""
    step = session.store.restore_latest()
    if step is not None:
        log.info("going on from ckpt-%d in %s", step, session.run_dir.path)
        return step
    if session.start:
        _start_from(session, session.start)
    if session.weighted is not None:
        backbone, config = session.model.encoder.backbone(), session.config
        taken = take_weights(backbone, session.weighted, config.start.stem_adapt)
        log.info("starting from %s weights of %s", f"{taken:,}", config.model.backbone_weights)
    extension_of(session.parts.method).begin()
    hashes = part_hashes(session.model)
    if session.devices.is_chief:
        session.run_dir.write_blocks(hashes)
    return 0


def _start_from(session: Session, checkpoint: Checkpoint) -> None:
    start = session.config.start
    coverage = fill(session.model, checkpoint, start.stem_adapt)
    log.info("starting from the weights of %s", coverage.summary())
    head = session.model.supervised_head
    if start.zero_init_logits_layer and head and "zero_init_logits" not in session.config.quirks:
        for variable in head.variables:
            variable.assign(np.zeros(variable.shape))
    if session.data.manifest is not None:
        warn_of_leaks(checkpoint, session.data.manifest, session.config.data.train_split)


def _say_what_moved(session: Session) -> None:
    changed = moved(session.run_dir.blocks(), part_hashes(session.model))
    for happened, word in ((True, "moved"), (False, "unchanged, bit for bit")):
        parts = [name for name, did in changed.items() if did is happened]
        if parts:
            log.info("%s: %s", word, ", ".join(parts))


@contextmanager
def naming_unreadable(source: Source) -> Iterator[None]:
    """Turns a failure to decode into an error that names the image."""
    try:
        yield
    except (tf.errors.OpError, OSError) as error:
        raise out_of_turn(error) or source.diagnose() or error from None


def _loop(
    session: Session, step: TrainStep, start_step: int, start_scores: dict[str, float]
) -> tuple[Loop, keras.callbacks.CallbackList]:
    run_dir, plan = session.run_dir, session.plan
    watchers: list[keras.callbacks.Callback] = []
    judges: list[keras.callbacks.Callback] = []
    step_log = None
    if session.config.train.health_watch:
        watchers.append(_health(session, start_scores))
    if session.devices.is_chief:
        board = cb.TensorBoard(run_dir.path)
        sheet = view_sheet(session.data.train, session.views, session.config)
        board.image("views", sheet, start_step)
        Image.fromarray(sheet).save(run_dir.views_file)
        batch_size = session.config.train.train_batch_size
        watchers += [cb.Progress(plan.total_steps, batch_size, start_step), board]
        step_log = cb.StepLog(run_dir.metrics_file, start_step)
        judges = [cb.ValidationLog(run_dir.validation_file, start_step)]
        judges.append(cb.BestCheckpoint(run_dir.path, _monitor(session)))
    patience = session.config.train.early_stopping_patience
    if patience:
        judges.append(
            keras.callbacks.EarlyStopping(_monitor(session), patience=patience, mode="max")
        )
    step_callbacks = keras.callbacks.CallbackList(watchers, model=session.model)
    after_validation = keras.callbacks.CallbackList(judges, model=session.model)
    session.model.stop_training = False
    after_validation.on_train_begin()
    cb.replay(run_dir.validation_file, start_step, judges)
    loop = Loop(
        step,
        plan,
        session.store,
        session.devices,
        step_log,
        step_callbacks,
        after_validation,
        _Validation(session, start_scores),
    )
    return loop, step_callbacks


def _monitor(session: Session) -> str:
    score = (
        "knn_accuracy" if session.config.train.train_mode == "pretrain" else "label_top_1_accuracy"
    )
    return f"validation/{score}"


def _start_scores(session: Session, start_step: int) -> dict[str, float]:
    """k-NN scores of the network before the first step, on every split that will be scored by it.

    They are the floor that pretraining has to rise above: features of a network that has learnt
    nothing classify many images well. Measured once and kept; empty without labels to score by.
    """
    train = session.config.train
    if train.train_mode != "pretrain":
        return {}
    if start_step:
        return session.run_dir.read_start_scores()
    splits = ["validation"] if train.validate_every else []
    if train.mode == "train_then_eval":
        splits.append(session.config.data.eval_split)
    splits = [name for name in dict.fromkeys(splits) if name in session.data.splits]
    scores: dict[str, float] = {}
    neighbors = _neighbors(session) if splits else None
    for split in splits:
        held_out = session.evaluator.outputs(session.data.splits[split])
        assert neighbors is not None
        scores |= scoring.score_features(
            neighbors, held_out, split, train.knn_neighbors, linear_probe=False
        )
    for split in splits:
        if f"{split}/knn_accuracy" in scores:
            log.info(
                "%s before the first step: knn_accuracy %.3f; training has to rise above it",
                split, scores[f"{split}/knn_accuracy"],
            )  # fmt: skip
    if scores and session.devices.is_chief:
        session.run_dir.write_start_scores(scores)
    return scores


def _neighbors(session: Session) -> Outputs:
    """What k-NN looks for neighbors among while a network trains."""
    steps = -(-_KNN_IMAGES // session.config.train.eval_batch_size)
    return session.evaluator.outputs(session.data.train, steps)


def _health(session: Session, start_scores: dict[str, float]) -> health.HealthWatch:
    config = session.config.train
    method = session.config.method
    simclr = config.train_mode == "pretrain" and method.method == "simclr"
    batch = config.train_batch_size
    chance = health.nt_xent_at_chance(batch, method.decoupled) if simclr else 0.0
    signs = extension_of(session.parts.method).signs

    def features() -> np.ndarray:
        steps = -(-_FEW_IMAGES // config.eval_batch_size)
        return session.evaluator.outputs(session.data.train, steps).features

    return health.HealthWatch(chance, features, session.plan.total_steps, signs, start_scores)


class _Validation:
    """Scores the validation split every few checkpoints.

    Args:
        session: The opened run.
        start_scores: k-NN scores before the first step, by name.
    """

    def __init__(self, session: Session, start_scores: dict[str, float]) -> None:
        self._session, self._start_scores = session, start_scores
        self._every = session.config.train.validate_every
        if self._every and "validation" not in session.data.splits:
            log.warning("--validate_every=%d: there is no validation split", self._every)
            self._every = 0

    def __call__(self, step: int) -> dict[str, float]:
        """The scores at a step; empty if none are due."""
        session = self._session
        if not self._every or (step // session.plan.checkpoint_steps) % self._every:
            return {}
        held_out = session.evaluator.outputs(session.data.splits["validation"])
        scores = scoring.score_logits(held_out, "validation")
        if session.config.train.train_mode == "pretrain":
            neighbors = session.config.train.knn_neighbors
            known = _neighbors(session)
            scores |= scoring.score_features(known, held_out, "validation", neighbors, False)
        classes = len(session.data.class_names)
        said = [f"{k.split('/')[1]} {scores[k]:.3f}{self._at_start(k)}"
                for k in scoring.worth_saying(scores, "validation", classes)]  # fmt: skip
        log.info("validation at step %d: %s", step, ", ".join(said) or "no labels to score by")
        return scores

    def _at_start(self, name: str) -> str:
        known = self._start_scores.get(name)
        return "" if known is None else f" ({known:.3f} before training)"
