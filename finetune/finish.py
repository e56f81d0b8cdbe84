"""The end of a run: the best weights, all splits scored once, what is handed out, the report."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import keras
import numpy as np

from data_prep.augment.contact_sheet import tiled
from data_prep.manifest.manifest import Manifest
from data_prep.names import clean_name
from data_prep.page import Section, Table
from data_prep.storage import replacing_folder
from finetune.classifier import Classifier
from finetune.epoch_scores import EpochScorer, ImageScorer
from finetune.floors import compute_floors, read_floors, write_floors
from finetune.inputs import sample_views
from finetune.report.files import write_results
from finetune.report.page import RunFacts, write_report
from finetune.report.results import ClassificationResults, evaluate_classifier
from finetune.report.scored_split import ScoredSplit
from finetune.report.sections import main_split
from finetune.session import HEAD, ClassifierSession, part_hashes, rate_factors
from finetune.significance import ScoredPredictions
from simclr_tf.checkpoints.find import locate
from simclr_tf.checkpoints.store import CheckpointStore
from simclr_tf.checkpoints.write import export_keras
from simclr_tf.evaluation.floors import FloorVerdict
from simclr_tf.evaluation.metrics import softmax
from simclr_tf.training.callbacks import read_metrics
from simclr_tf.training.distribution import Devices
from simclr_tf.training.fit import LoopPlan
from simclr_tf.training.run_warnings import latest, read_warnings

log = logging.getLogger(__name__)


class Validated(Protocol):
    """Interface of a trained run, as `take_best` takes it."""

    @property
    def validates(self) -> bool:
        """True if there was something to choose the best epoch by."""
        ...

    @property
    def best(self) -> Path:
        """Folder of the checkpoint that validated best."""
        ...

    @property
    def devices(self) -> Devices:
        """The devices that the run was trained on."""
        ...

    @property
    def store(self) -> CheckpointStore:
        """The run's checkpoints."""
        ...

    @property
    def plan(self) -> LoopPlan:
        """The planned length of the training."""
        ...

    def last_step(self) -> int:
        """The step at which training ended."""
        ...


def restore_best(run: Validated) -> int:
    """Restores the checkpoint that validated best; the last one without a validation."""
    run.devices.any_worker(False)  # so that the first worker has put the best in its place
    if not run.validates:
        return run.last_step()
    step = int(locate(str(run.best)).path.rpartition("-")[2])
    run.store.restore(step, run.best)
    epoch = -(-step // run.plan.checkpoint_steps)
    log.info("the weights of epoch %d (step %d) validated best", epoch, step)
    return step


def finish(session: ClassifierSession, command: Sequence[str]) -> None:
    """Takes the best epoch's weights, scores every split, exports and reports.

    All workers must call it; the first one writes.

    Args:
        session: The run, trained to its end.
        command: Program and arguments, for the report.
    """
    step = restore_best(session)
    copy, hashes = _float32_copy(session), part_hashes(session)
    scorer = _scorer(session, copy)
    # With the paths of the file, so that predictions can be joined to it.
    manifest = Manifest.load(session.folder.manifest_file)
    splits = {
        name: ScoredSplit.from_manifest(
            name,
            manifest.split(name),
            session.data.class_names,
            softmax(scorer.logits(name)),
        )
        for name in session.data.sources
    }
    if not session.devices.is_chief:
        return
    with session.folder.handing_out():
        export_classifier(copy, session.folder.path)
        results = _measure(session, splits)
        write_results(session.folder.path, results, splits, history(session), overwrite=True)
        verdict = _judge(session, results, splits)
        _say(session, results)
        facts = _facts(session, copy, command, step, hashes)
    # Before the page: where that is the run is complete, and nothing is said any more.
    _say_end(session, verdict)
    said = verdict.verdict.sentence() if verdict else ""
    warnings = tuple(text for text in facts.warnings if text != said)  # of a kill before the page
    write_report(session.folder.path, replace(facts, floors=verdict, warnings=warnings))
    log.info("the report: %s", session.folder.report_page)


def _judge(
    session: ClassifierSession, results: ClassificationResults, splits: Mapping[str, ScoredSplit]
) -> FloorVerdict | None:
    """Computes the floors, or reads them where an earlier end of the same run has."""
    if not session.config.measure.floors:
        return None
    name, folder = main_split(results), session.folder.path
    scored, config = splits[name], session.config
    floors = read_floors(folder)
    if floors is None or floors.split != name:
        recipe, channels = session.recipe, session.data.channels
        keras.utils.set_random_seed(config.machine.seed)
        untrained = (recipe.fresh or recipe.build)(channels, len(session.data.class_names))
        floors = compute_floors(
            session.data, scored, untrained, session.steps,
            config.train.eval_batch_size, config.machine.seed,
        )  # fmt: skip
    known = scored.labeled()
    judged = ScoredPredictions(known, results.decision.classes(known.scores))
    monitor = config.train.monitor
    metric = "accuracy" if monitor == "loss" else monitor
    verdict = floors.verdict(judged, metric, config.measure.bootstrap, config.machine.seed)
    write_floors(folder, floors, verdict)
    return FloorVerdict(verdict, floors.note) if verdict else None


def _scorer(session: ClassifierSession, copy: Classifier) -> EpochScorer:
    """The scorer of the splits: it gives the numbers of the network that is handed out."""
    if session.precision == "float32":
        return session.scorer
    batch_size = session.config.train.eval_batch_size
    return ImageScorer(copy, session.data, session.steps, session.devices, batch_size)


def _float32_copy(session: ClassifierSession) -> Classifier:
    """The classifier outside any strategy, in float32; all of it trains."""
    copy = session.recipe.build(session.data.channels, len(session.data.class_names))
    for target, source in zip(copy.variables, session.model.variables, strict=True):
        target.assign(source.value.numpy())
    copy.trainable = True
    copy.facts = session.model.facts
    return copy


def export_classifier(model: Classifier, folder: Path) -> None:
    """Writes `model.keras` and `saved_model/`, both from images in [0, 1] to probabilities.

    Args:
        model: In float32.
        folder: Where to; earlier exports are replaced.
    """
    export_keras(model, folder / "model.keras")
    images = keras.InputSpec(shape=(None, *model.image_shape), dtype="float32", name="images")
    with replacing_folder(folder / "saved_model") as draft:
        model.export(draft, input_signature=[images], verbose=False)


def _measure(session: ClassifierSession, splits: dict[str, ScoredSplit]) -> ClassificationResults:
    m = session.config.measure
    fixed = m.fixed_threshold()
    return evaluate_classifier(
        splits,
        session.data.class_names,
        criterion="fixed" if fixed is not None else m.threshold,  # type: ignore[arg-type]
        threshold=fixed,
        positive=clean_name(m.positive) or None,
        resamples=m.bootstrap,
        seed=session.config.machine.seed,
    )


def history(session: ClassifierSession) -> dict[str, np.ndarray]:
    """Reads the scores of every epoch, for `history.csv` and the learning curves."""
    file = session.folder.validation_file
    columns = read_metrics(file) if file.exists() else {}
    if len(columns) < 2:
        return {}
    step = columns.pop("step")
    return {"epoch": step / session.plan.checkpoint_steps, **columns}


def _facts(
    session: ClassifierSession,
    copy: Classifier,
    command: Sequence[str],
    step: int,
    hashes: Mapping[str, str],
) -> RunFacts:
    config = session.config
    flags = f"--flagfile={session.folder.path / 'flags.txt'}"
    defaults = type(config)().values()
    changed = {n: str(v) for n, v in config.values().items() if v != defaults[n]}
    epoch = step / session.plan.checkpoint_steps
    monitor = config.train.monitor.replace("_", " ")
    chosen = (
        f"The weights are those of epoch {epoch:g}, the best by {monitor} on validation; test was "
        "scored once, with them."
        if session.validates
        else "There was no validation split: the weights are those of the last epoch."
    )
    note = "Training images as the network sees them: nothing augments."
    if session.steps.augments:
        note = "Training images as the network sees them, a row an epoch."
    views = write_views(session)
    return RunFacts(
        title=session.recipe.title,
        model=(*session.recipe.about(session.model), chosen),
        command=command or (session.recipe.program, flags),
        manifest=Manifest.load(session.folder.manifest_file),
        views=views,
        views_note=note,
        settings={**session.recipe.settings, **changed},
        facts={"Machine": f"{session.devices.describe()}, {session.precision}"},
        alarms=session.remarks,
        warnings=tuple(map(str, latest(read_warnings(session.folder.warnings_file)))),
        sections=(_what_moved(session, hashes), *session.recipe.sections(session, copy)),
    )


def write_views(session: ClassifierSession) -> np.ndarray:
    """Draws `views.png`, and gives its views, uint8 or float32 [columns, rows, S, S, C]."""
    config = session.config
    views = sample_views(
        session.data.train, session.steps, config.machine.seed, config.train.train_batch_size
    )
    session.folder.write_views(tiled(views))
    return views


def _what_moved(session: ClassifierSession, hashes: Mapping[str, str]) -> Section:
    """One row per part: how many weights train, at which rate, and whether they have changed."""
    config, before = session.config.optimizer, session.folder.blocks()
    factors = rate_factors(session.recipe, session.model, config.layer_decay)
    parts = {**session.recipe.parts(session.model), HEAD: [session.model.head]}
    rows = []
    for name, layers in parts.items():
        variables = [v for layer in layers for v in layer.variables]
        trained = [v for layer in layers for v in layer.trainable_variables]
        if not variables:
            continue
        moved = before.get(name) != hashes[name]
        rows.append(
            (
                name,
                f"{_size(variables):,}",
                f"{_size(trained):,}" if trained else "none",
                f"{config.learning_rate * factors[id(trained[0])]:.3g}" if trained else "–",
                "moved" if moved else "unchanged, bit for bit",
            )
        )
    columns = ("part", "numbers", "of which train", "learning rate", "since the start")
    return Section("What was trained", tables=(Table(columns, tuple(rows)),))


def _size(variables: Sequence[keras.Variable]) -> int:
    return sum(int(np.prod(v.shape)) for v in variables)


def _say(session: ClassifierSession, results: ClassificationResults) -> None:
    for name, split in results.splits.items():
        for metric in ("accuracy", "balanced_accuracy", "roc_auc"):
            if metric in split.metrics:
                log.info("%s %s: %s", name, metric.replace("_", " "),
                         format(split.metrics[metric], ".3f"))  # fmt: skip
    decision = results.decision
    if decision.threshold is not None and decision.threshold != 0.5:
        log.info(
            "the classes above are %r from a score of %.4f on (%s); those of the epochs were by "
            "the highest score, from 0.5 on",
            results.class_names[decision.positive],
            decision.threshold,
            f"chosen on {decision.chosen_on}" if decision.chosen_on else "as given",
        )


def _say_end(session: ClassifierSession, verdict: FloorVerdict | None) -> None:
    for text in session.remarks:
        log.warning("%s", text)
    if verdict:
        say = log.info if verdict.verdict.above else log.warning
        say("%s", verdict.verdict.sentence())
