"""A whole run, as `simclr-run` does it: open, train, evaluate."""

import logging
import time

import keras
import numpy as np

from data_prep.phrases import counted, format_seconds
from simclr_tf.checkpoints.load import Checkpoint, load_variables
from simclr_tf.checkpoints.write import export_keras
from simclr_tf.config.run_config import RunConfig
from simclr_tf.methods.base import extension_of
from simclr_tf.models.weights import float32_copy, moved, part_hashes
from simclr_tf.training import callbacks as cb
from simclr_tf.training import health, scoring
from simclr_tf.training.batches import (
    PREFETCH,
    PREFETCH_LARGE,
    Batches,
    training_batches,
    view_sheet,
    with_small_crops,
)
from simclr_tf.training.build import (
    build_step,
    first_trained_stage,
    small_view_config,
    take_weights,
)
from simclr_tf.training.evaluate import evaluate, evaluate_as_they_come
from simclr_tf.training.evaluator import ImageOutputs
from simclr_tf.training.fit import FitJob, Monitors, StopRequest, fit
from simclr_tf.training.from_checkpoint import Origins, warn_of_leaks
from simclr_tf.training.frozen_features import feature_batches, frozen_features
from simclr_tf.training.run_warnings import noting_warnings, read_warnings
from simclr_tf.training.session import Session, open_session
from simclr_tf.training.workers import naming_lost_workers

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
    start = _restore(session)
    if start < session.last_step():
        _say_plan(session, start)
    step = fit(_fitting(session, _start_scores(session, start)), start, stop)
    if stop.signal:
        return step
    _say_what_moved(session)
    folder = session.run_dir
    if session.devices.is_chief and folder.checksums.fault(folder.views_file.name):
        _write_views(session)
    if session.config.train.mode == "train":  # otherwise the evaluation exports
        copy = float32_copy(session.model)
        if session.devices.is_chief:
            with folder.sealing(folder.last_file):
                export_keras(copy.encoder, folder.encoder_file)
    return step


def _write_views(session: Session) -> np.ndarray:
    """Draws `views.png`, and gives the picture."""
    sheet = view_sheet(session.data.train, session.views, session.config)
    session.run_dir.write_views(sheet)
    return sheet


def _fitting(session: Session, start_scores: dict[str, float]) -> FitJob:
    validation = _Validation(session, start_scores)
    best = None
    if session.devices.is_chief:
        best = cb.BestCheckpoint(session.run_dir.path, _monitor(session))
    return FitJob(
        folder=session.run_dir,
        devices=session.devices,
        model=session.model,
        step=lambda: build_step(
            session.config, session.devices, session.model, session.parts, session.data.channels
        ),
        plan=session.plan,
        store=session.store,
        train=session.data.train,
        keepers=lambda start: _keepers(session, start, start_scores),
        batches=lambda start: _batches(session, start),
        validate=validation,
        due=validation.is_due,
        best=best,
    )


def _batches(session: Session, start: int) -> Batches:
    config, source = session.config, session.data.train
    batch_size, seed = config.train.train_batch_size, config.machine.seed
    if config.start.cache_frozen:
        first_stage = first_trained_stage(session.model)
        known = frozen_features(
            session.model, source, session.views, session.devices, config.train.eval_batch_size,
            first_stage, seed,
        )  # fmt: skip
        return feature_batches(known, session.devices, batch_size, seed, start)
    views = with_small_crops(session.views, small_view_config(config, session.data.channels))
    return training_batches(
        source, views, session.devices, batch_size, seed, start, config.data.data_service,
        PREFETCH_LARGE if config.train.microbatch else PREFETCH,
    )  # fmt: skip


def _say_plan(session: Session, start_step: int) -> None:
    images, plan = session.data.train.num_examples, session.plan
    mode, batch_size = session.config.train.train_mode, session.config.train.train_batch_size
    if session.config.train.health_watch:
        found = health.warnings_before_start(images, batch_size, plan.total_steps, mode)
        for message in (*found, *extension_of(session.parts.method).warnings(images)):
            log.warning("%s", message)
    log.info(
        "%s on %s, batch %d, from step %d to %d, a checkpoint every %d",
        mode,
        counted(images, "image"),
        batch_size,
        start_step,
        plan.total_steps,
        plan.checkpoint_steps,
    )


def _restore(session: Session) -> int:
    """The newest sound checkpoint; without one --checkpoint, if given, or fresh weights."""
    run_dir, goes_on = session.run_dir, bool(session.store.steps())
    fault = run_dir.checksums.fault(run_dir.start_scores_file.name) if goes_on else ""
    no_blocks = not goes_on or not run_dir.blocks()
    if no_blocks or fault:
        _begin(session)
        hashes = part_hashes(session.model)
        if session.devices.is_chief and no_blocks:
            if goes_on:
                log.warning("blocks.json is made anew from the network that the run began with")
            run_dir.write_blocks(hashes)
    if fault:
        log.warning("%s %s: it is measured anew on the network that the run began with",
                    run_dir.start_scores_file, fault)  # fmt: skip
        _start_scores(session, 0)
    step = session.store.restore_latest()
    if step is not None:
        log.info("going on from ckpt-%d in %s", step, run_dir.path)
    return step or 0


def _begin(session: Session) -> None:
    if session.start:
        _start_from(session, session.start)
    if session.weighted is not None:
        backbone, config = session.model.encoder.backbone(), session.config
        taken = take_weights(backbone, session.weighted, config.start.stem_adapt)
        log.info("starting from %s weights of %s", f"{taken:,}", config.model.backbone_weights)
    extension_of(session.parts.method).begin()


def _start_from(session: Session, checkpoint: Checkpoint) -> None:
    start = session.config.start
    coverage = load_variables(session.model, checkpoint, start.stem_adapt)
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


def _keepers(session: Session, start: int, start_scores: dict[str, float]) -> Monitors:
    run_dir, plan = session.run_dir, session.plan
    watchers: list[keras.callbacks.Callback] = []
    judges: list[keras.callbacks.Callback] = []
    step_log = None
    if session.config.train.health_watch:
        watchers.append(_health(session, start, start_scores))
    if session.devices.is_chief:
        step_log = cb.StepLog(run_dir.metrics_file, start)
        board = cb.TensorBoard(run_dir.path)
        board.image("views", _write_views(session), start)
        batch_size = session.config.train.train_batch_size
        watchers += [cb.Progress(plan.total_steps, batch_size, start), board]
        judges.append(cb.ValidationLog(run_dir.validation_file, start))
    patience = session.config.train.early_stopping_patience
    if patience:
        judges.append(
            keras.callbacks.EarlyStopping(_monitor(session), patience=patience, mode="max")
        )
    return Monitors(step_log, watchers, judges)


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


def _neighbors(session: Session) -> ImageOutputs:
    """Outputs of the training images among which k-NN looks for neighbors during training."""
    steps = -(-_KNN_IMAGES // session.config.train.eval_batch_size)
    return session.evaluator.outputs(session.data.train, steps)


def _health(session: Session, start: int, start_scores: dict[str, float]) -> health.HealthWatch:
    config = session.config.train
    method = session.config.method
    simclr = config.train_mode == "pretrain" and method.method == "simclr"
    batch = config.train_batch_size
    chance = health.nt_xent_at_chance(batch, method.decoupled) if simclr else 0.0
    signs = extension_of(session.parts.method).signs

    def features() -> np.ndarray:
        steps = -(-_FEW_IMAGES // config.eval_batch_size)
        return session.evaluator.outputs(session.data.train, steps).features

    before = read_warnings(session.run_dir.warnings_file) if start else []
    said = {warning.kind: warning.step for warning in before if 0 < warning.step <= start}
    return health.HealthWatch(chance, features, session.plan.total_steps, signs, start_scores, said)


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

    def is_due(self, step: int) -> bool:
        """True if the checkpoint of a step is to be scored."""
        return self._is_turn(step) and bool(self._session.data.class_names)

    def _is_turn(self, step: int) -> bool:
        every = self._every * self._session.plan.checkpoint_steps
        return bool(every) and not (step // self._session.plan.checkpoint_steps) % self._every

    def __call__(self, step: int) -> dict[str, float]:
        """The scores at a step; empty if none are due."""
        session = self._session
        if not self._is_turn(step):
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


def execute(config: RunConfig, origins: Origins | None = None) -> int:
    """Trains, evaluates, or both.

    Args:
        config: All settings; `run.model_dir` must be given.
        origins: The networks that the run takes from, opened; None = they are opened here.

    Returns:
        0, or 128 + the number of the signal that asked the run to stop.

    Raises:
        UserError: Something asked for is impossible; nothing has been overwritten then.
    """
    with noting_warnings() as warnings, naming_lost_workers():
        session = open_session(config, origins)
        if session.devices.is_chief:
            warnings.keep_in(session.run_dir.warnings_file)
        with session.claim:
            return _execute(session)


def _execute(session: Session) -> int:
    config, began = session.config, time.perf_counter()
    if config.train.mode == "eval":
        evaluate_as_they_come(session)
        return 0
    with StopRequest().listening() as stop:
        step = train(session, stop)
    if stop.signal:
        log.info("stopped at step %d, which is saved; the same command goes on from there", step)
        return 128 + stop.signal
    if config.train.mode == "train_then_eval":
        evaluate(session, step)
    log.info("done in %s: %s", format_seconds(time.perf_counter() - began), config.run.model_dir)
    return 0
