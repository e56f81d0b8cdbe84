"""`simclr-transfer` from beginning to end: frozen base, perhaps a second stage, report."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from data_prep.claim import is_unused
from data_prep.durations import format_seconds
from data_prep.errors import UserError
from data_prep.page import Section
from finetune.classifier import Classifier
from finetune.config import ClassifierConfig
from finetune.explain import choose_images, read_shown, write_pictures
from finetune.finish import finish, history, take_best
from finetune.former_settings import of_the_run
from finetune.report.learning import learning_pictures
from finetune.run_folder import ClassifierDir
from finetune.session import ClassifierSession, open_session
from finetune.train import fit, keep_warnings
from finetune.transfer import Transfer, say_size
from finetune.transfer_config import TransferConfig
from simclr_tf.config.settings import Config
from simclr_tf.training.loop import StopRequest
from simclr_tf.training.run_warnings import RunWarnings, noting_warnings
from simclr_tf.training.workers import naming_lost_workers

log = logging.getLogger(__name__)

FROZEN_STAGE = "frozen_stage"


@dataclass(frozen=True)
class TransferDir(ClassifierDir):
    """The folder of a run; that of a first stage may lie in it.

    Attributes:
        asked: The settings that the user gave, which those of a stage are made from.
    """

    config_type: ClassVar[type[ClassifierConfig]] = TransferConfig
    own_files: ClassVar[tuple[str, ...]] = (
        *ClassifierDir.own_files,
        "grad_cam.png",
        "feature_maps_*.png",
    )

    handed_out: ClassVar[tuple[str, ...]] = (
        *ClassifierDir.handed_out,
        "grad_cam.png",
        "feature_maps_*.png",
    )

    asked: TransferConfig | None = None

    def suited(self, images: int) -> Self:
        """See `ClassifierDir.suited`."""
        return replace(self, asked=self.asked and self.asked.suited(images))

    def check(self) -> None:
        """Refuses a folder that `prepare` would refuse, and touches nothing."""
        overwrite = bool(self.asked and self.asked.run.overwrite)
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--{self.flag}={self.path}: is a file; give a folder")
        if overwrite or not self.path.exists():
            return
        if self._holds_run():
            self._refuse_other(self._earlier_config(), self.asked or TransferConfig())
        elif not is_unused(self.path, (self.path / FROZEN_STAGE, *self._halves())):
            raise UserError(
                f"--{self.flag}={self.path}: is not empty and holds no run; give another folder,"
                " or --overwrite to write beside what is there"
            )

    def prepare(self, config: Config) -> bool:
        """See `RunDir.prepare`; a first stage alone is the beginning of the same run."""
        asked = self.asked or config
        if (self.path / FROZEN_STAGE).is_dir() and not self._holds_run():
            super().write_settings(asked)
        return super().prepare(asked)

    def write_settings(self, config: Config) -> None:
        """See `RunDir.write_settings`; what was asked for, not what a stage makes of it."""
        super().write_settings(self.asked or config)


def train_transfer(config: TransferConfig, command: Sequence[str] = ()) -> int:
    """Trains a head on a frozen backbone, then perhaps the end of the backbone too.

    Args:
        config: All settings.
        command: Program and arguments, for the report.

    Returns:
        0, or 128 + the number of the signal that asked the run to stop.

    Raises:
        UserError: Something asked for is impossible; nothing has been overwritten then.
    """
    if not config.run.output:
        raise UserError("--output is missing: say where the run is to be kept")
    with noting_warnings() as kept, naming_lost_workers(), ExitStack() as claims:
        return _train(config, command, kept, claims)


def _train(
    config: TransferConfig, command: Sequence[str], kept: RunWarnings, claims: ExitStack
) -> int:
    began, output = time.perf_counter(), Path(config.run.output)
    config = of_the_run(config, output, output / FROZEN_STAGE)
    for folder in (output, output / FROZEN_STAGE):
        config = TransferDir(folder).as_begun(config)
    transfer = Transfer(config)
    with StopRequest().listening() as stop:
        first = _first_stage(transfer, stop, claims) if config.unfreeze.unfreeze_after else None
        session = None if stop.signal else _last_stage(transfer, first)
        if session:
            claims.enter_context(session.claim)
            keep_warnings(session, kept)
            fit(session, stop)
    if stop.signal or session is None:
        log.info("stopped; what is done is saved, and the same command goes on from there")
        return 128 + stop.signal
    if session.folder.is_complete():
        log.info("the run is complete: %s", session.folder.report_page)
        return 0
    if first:
        _compare(first, session)
    finish(session, command)
    log.info("done in %s: %s", format_seconds(time.perf_counter() - began), config.run.output)
    return 0


def _folder(config: TransferConfig) -> Any:
    return partial(TransferDir, asked=config)


def _first_stage(transfer: Transfer, stop: StopRequest, claims: ExitStack) -> ClassifierSession:
    """The frozen stage, trained, with the weights that validated best; test is not scored."""
    config = transfer.config
    _folder(config)(Path(config.run.output)).check()
    own = replace(
        config, run=replace(config.run, output=str(Path(config.run.output) / FROZEN_STAGE))
    )
    session = open_session(own, transfer.recipe(folder=_folder(own)))
    claims.enter_context(session.claim)
    say_size(session.model)
    fit(session, stop)
    if not stop.signal:
        take_best(session)
    return session


def _last_stage(transfer: Transfer, first: ClassifierSession | None) -> ClassifierSession:
    config = transfer.config
    folder = _folder(config)
    if first is None:
        recipe = transfer.recipe(folder=folder, sections=partial(_illustrate, first=None))
        session = open_session(config, recipe)
        say_size(session.model)
        return session
    weights = [v.numpy() for v in first.model.variables]

    def start(model: Classifier) -> None:
        for variable, value in zip(model.variables, weights, strict=True):
            variable.assign(value)

    unfreeze = config.unfreeze
    log.info("second stage: what comes after %s trains too", unfreeze.unfreeze_after)
    own = replace(
        config,
        reading=first.config.reading,  # as the first stage began, which may be long ago
        optimizer=replace(config.optimizer, learning_rate=unfreeze.unfreeze_learning_rate),
        train=replace(
            config.train,
            train_epochs=unfreeze.unfreeze_epochs,
            train_steps=0,
            cache_features="auto",
        ),
    )
    recipe = transfer.recipe(
        build=transfer.build_unfrozen,
        start=start,
        new_head=False,
        folder=folder,
        about=lambda model: (*transfer.about(model), _about_stages(config, first)),
        sections=partial(_illustrate, first=first),
    )
    return open_session(own, recipe)


def _about_stages(config: TransferConfig, first: ClassifierSession) -> str:
    o, u = first.config.optimizer, config.unfreeze
    norm = "trained too" if u.train_batch_norm else "kept its statistics"
    return (
        f"Two stages: the head alone at a rate of {o.learning_rate:g}; then, from its best epoch, "
        f"for up to {u.unfreeze_epochs} epochs at {u.unfreeze_learning_rate:g} with the backbone "
        f"after {u.unfreeze_after}, whose batch normalisation {norm}."
    )


def _best(session: ClassifierSession) -> float:
    """The best validation of a run; nan without one."""
    monitor = session.config.train.monitor
    values = history(session).get(f"validation/{monitor}", np.array([]))
    if not np.isfinite(values).any():
        return float("nan")
    return float(np.nanmin(values) if monitor == "loss" else np.nanmax(values))


def _compare(first: ClassifierSession, last: ClassifierSession) -> None:
    before, after, monitor = _best(first), _best(last), last.config.train.monitor
    log.info("best validation %s: %.3f frozen, %.3f unfrozen", monitor, before, after)
    if (after > before) if monitor == "loss" else (after < before):
        log.warning("the second stage did not help on validation; leave --unfreeze_after out")


def _wanted(session: ClassifierSession) -> dict[str, Any]:
    """What is to be drawn, as `write_pictures` takes it."""
    config = session.config
    assert isinstance(config, TransferConfig)
    look, data = config.look, session.data

    def shown(asked: str, flag: str) -> Any:
        chosen = choose_images(asked, data, flag)
        return read_shown(chosen, data, session.steps) if len(chosen) else None

    maps = shown(look.feature_map_images, "feature_map_images") if look.layers() else None
    cam = shown(look.grad_cam, "grad_cam")
    return {
        "maps": (look.layers(), maps) if maps else None,
        "cam": (look.grad_cam_layer, cam) if cam else None,
    }


def _illustrate(
    session: ClassifierSession, model: Classifier, first: ClassifierSession | None
) -> tuple[Section, ...]:
    """Draws what is asked for: sections of the report, and PNG files."""
    sections = write_pictures(model, session.folder.path, **_wanted(session))
    if first and (curves := learning_pictures(history(first))):
        text = f"Best validation {first.config.train.monitor}: {_best(first):.3f}."
        return (Section("First stage, frozen", (text,), pictures=curves), *sections)
    return sections
