"""The end of a run: the best weights, what is handed out, errors by split and case."""

import json
import logging
from collections.abc import Sequence

import keras
import numpy as np

from data_prep.manifest.manifest import Record
from data_prep.storage import write_text
from finetune.depth.build import build_generator
from finetune.depth.metrics import errors_by_case, parts_of
from finetune.depth.pairs import DepthSet
from finetune.depth.session import DepthSession
from finetune.depth.settings import DEPTH, REAL
from finetune.depth.trained import GENERATOR, REVERSE, DepthFacts, DepthModel
from finetune.finish import restore_best
from simclr_tf.checkpoints.write import export_keras
from simclr_tf.training.callbacks import StepLog, read_metrics

log = logging.getLogger(__name__)


def finish(session: DepthSession) -> None:
    """Takes the best epoch's weights, hands them out and measures them.

    All workers must call it; the first one writes.

    Args:
        session: The run, trained to its end.
    """
    step = restore_best(session)
    generator = _float32_copy(session, session.training.generator)
    reverse = session.training.reverse
    back = None if reverse is None else _float32_copy(session, reverse)
    if not session.devices.is_chief:
        return
    folder = session.folder
    facts = _facts(session, step)
    with folder.handing_out():
        export_keras(generator, folder.path / GENERATOR)
        if back is not None:
            export_keras(back, folder.path / REVERSE)
        _write_history(session)
        if not session.config.to_real:
            results = _measure(session, DepthModel.of(facts, generator))
            write_text(folder.result_file, json.dumps(results, indent=2) + "\n")
            _say(results, facts.unit)
    folder.checksums.write_last(folder.last_file, facts.to_json())


def _facts(session: DepthSession, step: int) -> DepthFacts:
    config, data = session.config, session.data
    return DepthFacts(
        kind=config.network.model,
        direction=REAL if config.to_real else DEPTH,
        case=config.data.case,
        unit=config.data.unit,
        depth_min=data.limits[0],
        depth_max=data.limits[1],
        image_size=data.size,
        reading=data.reading.record(),
        training_files=data.files.to_json(),
        epoch=step / session.plan.checkpoint_steps,
    )


def _float32_copy(session: DepthSession, network: keras.Model) -> keras.Model:
    """The same network outside any strategy, in float32; all of it trains."""
    copy = build_generator(session.config, session.data.size)
    for target, source in zip(copy.variables, network.variables, strict=True):
        target.assign(source.value.numpy())
    copy.trainable = True
    return copy


def _write_history(session: DepthSession) -> None:
    """`history.csv`: mean training losses of every epoch, and what validation gave."""
    folder, interval = session.folder, session.plan.checkpoint_steps
    steps = read_metrics(folder.metrics_file) if folder.metrics_file.exists() else {}
    epochs = np.ceil(steps.pop("step", np.zeros(0)) / interval).astype(np.int64)
    last = -(-session.last_step() // interval)
    columns = {
        f"train/{name}": np.array([_mean(values[epochs == e]) for e in range(1, last + 1)])
        for name, values in steps.items()
    }
    if folder.validation_file.exists():
        scores = read_metrics(folder.validation_file)
        rows = np.ceil(scores.pop("step") / interval).astype(np.int64) - 1
        for name, values in scores.items():
            columns[name] = np.full(last, np.nan)
            columns[name][rows] = values
    folder.history_file.unlink(missing_ok=True)
    if columns:
        StepLog(folder.history_file, 0, exact=True, index="epoch").write(1, columns)


def _mean(values: np.ndarray) -> float:
    """Mean of an epoch; nan if all of its rows are lost to damage."""
    return float(values.mean()) if len(values) else float("nan")


def _measure(session: DepthSession, model: DepthModel) -> dict[str, dict[str, dict[str, float]]]:
    """Errors by split and case, beside those of what needs no network."""
    data, batch_size = session.data, session.config.train.eval_batch_size
    train = data.part(data.train_split)
    assert train is not None
    mean_map = _mean_map(train)
    results = {}
    for name in data.manifest.splits:
        part = data.part(name)
        if name == data.train_split or part is None:
            continue

        def predict(records: Sequence[Record], part: DepthSet = part) -> np.ndarray:
            return model.predict(part.images(records), batch_size)

        found = errors_by_case(part, predict)
        constant = errors_by_case(part, lambda records: mean_map.mean())
        mean = errors_by_case(part, lambda records: mean_map)
        for case, errors in found.items():
            errors["rmse_of_mean_depth"] = constant[case]["rmse"]
            errors["rmse_of_mean_map"] = mean[case]["rmse"]
        results[name] = {case or "all": errors for case, errors in found.items()}
    return results


def _mean_map(images: DepthSet) -> np.ndarray:
    """Mean depth at every pixel over the images of a set, float64 [H, W]."""
    sums = [images.targets(part)[..., 0].sum(0, np.float64) for part in parts_of(images.records)]
    return np.sum(sums, axis=0) / len(images.records)


def _say(results: dict[str, dict[str, dict[str, float]]], unit: str) -> None:
    for split, cases in results.items():
        errors = cases["all"]
        log.info(
            "%s: RMSE %.3f %s, MAE %.3f; the mean training depth has RMSE %.3f, the mean training "
            "map %.3f",
            split, errors["rmse"], unit or "units", errors["mae"], errors["rmse_of_mean_depth"],
            errors["rmse_of_mean_map"],
        )  # fmt: skip
