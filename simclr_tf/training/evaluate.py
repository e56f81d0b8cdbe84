"""Final evaluation of a run and what it hands out."""

import logging
import time
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from data_prep.errors import UserError
from data_prep.phrases import format_seconds
from simclr_tf.checkpoints.write import export_keras, export_saved_model
from simclr_tf.config.sections import MachineSettings
from simclr_tf.evaluation.floors import FloorVerdict, judge
from simclr_tf.evaluation.metrics import softmax
from simclr_tf.models.weights import float32_copy, part_hashes
from simclr_tf.training import distribution, scoring
from simclr_tf.training.build import build_model
from simclr_tf.training.evaluator import Evaluator, ImageOutputs, simclr_outputs
from simclr_tf.training.floors import Images, measure_floors
from simclr_tf.training.run_page import write_run_page
from simclr_tf.training.session import Session

log = logging.getLogger(__name__)

_POLL_SECONDS = 2.0
_MOST_WITHOUT_FILES = 10_000


def evaluate(session: Session, step: int) -> dict[str, Any]:
    """Scores `--eval_split`, writes `result.json` and predictions, exports the network.

    Args:
        session: The opened run; its network holds the weights of `step`.
        step: The step that is scored.

    Returns:
        What `result.json` holds: the reference's keys, and each of ours with its split.
    """
    config = session.config
    split = config.data.eval_split
    source = session.data.evaluation(split)
    held_out = session.evaluator.outputs(source, config.train.eval_steps)
    scores = scoring.score_logits(held_out, split)
    told: dict[str, np.ndarray] = {}
    if config.train.train_mode == "pretrain":
        seen = session.evaluator.outputs(session.data.train)
        told = scoring.tell_by_features(
            seen,
            held_out,
            config.train.knn_neighbors,
            config.train.linear_probe,
            len(session.data.class_names) or None,
        )
        scores |= scoring.feature_accuracies(told, held_out, split)
        # The floor: the same of the network before its first step, if it was measured.
        scores |= {
            name.replace("/", "/start_"): value
            for name, value in session.run_dir.read_start_scores().items()
            if name.startswith(f"{split}/")
        }
    floors, why_none = _floors(session, held_out, split, told)
    result = {
        "eval/regularization_loss": float(session.parts.weight_decay()),
        **_reference_keys(scores, split),
        "global_step": step,
        "eval_split": split,
        "num_eval_examples": len(held_out.index),
        "train_split": config.data.train_split,
        "num_train_examples": session.data.train.num_examples,
        "labels": "random" if config.data.labels == "random" else "given",
        **scores,
        **({"floors": floors.verdict.to_json()} if floors else {"no_floors": why_none}),
        "blocks": _blocks(session),
    }
    if session.devices.is_chief:
        session.run_dir.write_result(result, step, config.run.eval_name)
        manifest, name = session.data.manifest, f"predictions_{split}.csv"
        with session.run_dir.sealing(name):
            scoring.write_predictions(
                session.run_dir.path / name,
                held_out,
                session.data.class_names,
                manifest.split(split) if manifest else None,
            )
    _say(result, split, len(session.data.class_names))
    if floors:
        say = log.info if floors.verdict.above else log.warning
        say("%s", floors.verdict.sentence())
    elif config.train.floors:
        log.info("%s", why_none)
    export(session, step)
    if session.devices.is_chief:
        page = session.run_dir.evaluation_page(config.run.eval_name)
        write_run_page(session.run_dir, page, config, result, len(session.data.class_names), floors)
        log.info("the report: %s", page)
    return result


def _floors(
    session: Session, held_out: ImageOutputs, split: str, told: Mapping[str, np.ndarray]
) -> tuple[FloorVerdict | None, str]:
    """Compares the network with simpler methods on the same images.

    Args:
        session: The run.
        held_out: Of the split.
        split: That is scored.
        told: What is said of its labelled images from the features; without any the logits count.

    Returns:
        The verdict, or why there is none.
    """
    config, data = session.config, session.data
    known = held_out.label >= 0
    if not config.train.floors:
        return None, "Floors were not asked for (--nofloors)."
    if config.data.labels == "random":
        return None, "Floors have no meaning for labels drawn at random (--labels=random)."
    if config.train.eval_steps or session.devices.num_workers > 1:
        return None, "Floors are left out with several workers and with --eval_steps."
    if data.manifest is None and len(known) > _MOST_WITHOUT_FILES:
        return None, f"Floors are left out beyond {_MOST_WITHOUT_FILES:,} images without files."
    train, scored = (
        Images(name, source, data.manifest.split(name) if data.manifest else None)
        for name, source in (
            (config.data.train_split, data.train), (split, data.evaluation(split)),
        )
    )  # fmt: skip
    labeled = known.any() and len(data.class_names) > 1 and bool((train.labels() >= 0).any())
    if not labeled or not (told or held_out.logits is not None):
        return None, (
            "Floors do not apply: accuracies need labelled images of two classes to learn from and "
            f"labelled {split} images."
        )
    devices = distribution.connect(MachineSettings(distribute="one_device"))
    keras.utils.set_random_seed(config.machine.seed)
    forward = simclr_outputs(build_model(config, data.channels, 0))
    found = measure_floors(
        train,
        scored,
        lambda images: forward(images)["features"],
        lambda own: Evaluator(
            own, session.views, devices, config.train.eval_batch_size, crops=config.train.eval_crops
        ),
        session.views.image_size,
        config.machine.seed,
    )
    rows = found.rows[held_out.label[found.rows] >= 0]
    if told:
        method, scores = list(told.items())[-1]
        what = {"knn": "k-NN", "linear_probe": "A linear probe"}[method] + " on the features"
        scores = scores[np.cumsum(known)[rows] - 1]
    else:
        assert held_out.logits is not None
        what, scores = "", softmax(held_out.logits[rows])
    verdict = judge(
        split, held_out.label[rows], scores, scores.argmax(axis=1), found.scores,
        seed=config.machine.seed, what=what,
    )  # fmt: skip
    return FloorVerdict(verdict, found.note), ""


def _blocks(session: Session) -> dict[str, dict[str, Any]]:
    """Hash of each part of the network before the first step and now, and whether it moved."""
    before, after = session.run_dir.blocks(), part_hashes(session.model)
    return {
        name: {"before": value, "after": after[name], "moved": after[name] != value}
        for name, value in before.items()
        if name in after
    }


def _reference_keys(scores: dict[str, float], split: str) -> dict[str, float]:
    names = ("label_top_1_accuracy", "label_top_5_accuracy")
    return {f"eval/{n}": scores[f"{split}/{n}"] for n in names if f"{split}/{n}" in scores}


def _say(result: dict[str, Any], split: str, classes: int) -> None:
    for name in scoring.worth_saying(result, split, classes):
        interval = ""
        if f"{name}_low" in result:
            low, high = result[f"{name}_low"], result[f"{name}_high"]
            interval = f"  (95 % interval {low:.3f} to {high:.3f})"
        log.info("%s: %.4f%s", name, result[name], interval)


def export(session: Session, step: int) -> None:
    """Writes `encoder.keras` and `saved_model/<step>`.

    All workers must call it, for reading variables that are spread over workers takes all of them.
    """
    copy = float32_copy(session.model)
    if not session.devices.is_chief:
        return
    folder = session.run_dir
    with folder.sealing(folder.last_file, *folder.handed_out):
        folder.saved_models.mkdir(exist_ok=True)
        export_saved_model(copy, folder.saved_models / str(step))
        folder.delete_old_exports(session.config.train.keep_hub_module_max)
        export_keras(copy.encoder, folder.encoder_file)


def evaluate_as_they_come(session: Session) -> None:
    """Evaluates every new checkpoint of the run until the last one (`--mode=eval`).

    Raises:
        UserError: No new checkpoint came within `--eval_timeout` seconds.
    """
    for step in _new_steps(session):
        session.store.restore(step)
        evaluate(session, step)


def _new_steps(session: Session) -> Iterator[int]:
    timeout, last, waited_since = session.config.train.eval_timeout, -1, time.monotonic()
    while last < session.last_step():
        steps = [s for s in session.store.steps() if s > last]
        if steps:
            last, waited_since = steps[-1], time.monotonic()
            yield last
            waited_since = time.monotonic()
        elif time.monotonic() - waited_since > timeout:
            raise UserError(
                f"no new checkpoint in {session.run_dir.path} within {format_seconds(timeout)} "
                "(--eval_timeout); is the training still running?"
            )
        else:
            time.sleep(_POLL_SECONDS)
