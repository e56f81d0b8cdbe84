"""A comparison from beginning to end: images, plan, all chains, tables and page.

The folder of a comparison holds

    settings.json     what was asked for; it is checked before the same command goes on
    division/         who may see which image
    plan.json         sizes and steps, and why
    encoders/         pretrainings, as simclr-run keeps them
    features/         features of all images
    cells/            what every fit says of the test images
    results.csv, summary.csv, comparisons.csv, costs.csv, recommendation.txt, report.html
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import image_facts
from data_prep.page import Page, write_page
from data_prep.phrases import format_seconds, sentence
from data_prep.storage import ANEW, Checksums, is_unused, read_object, write_text
from data_prep.storage import FILE as CHECKSUMS
from finetune.compare.advice import Advice, advise
from finetune.compare.chain import Chain, Setup
from finetune.compare.images import (
    FOLDER,
    Sources,
    divide_images,
    load_division,
    save_division,
)
from finetune.compare.page import PAGE, MakeHead, comparison_page, recommendation_head
from finetune.compare.plan import (
    FILE,
    ComparisonPlan,
    available,
    by_encoder,
    cpu_or_gpus,
    make_plan,
)
from finetune.compare.recipes import Networks
from finetune.compare.results import ComparisonResults, collect, write_tables
from finetune.compare.strategies import CompareSettings, StrategyRow
from simclr_tf.checkpoints.load import Checkpoints
from simclr_tf.training.from_checkpoint import seen_by
from simclr_tf.training.health import DivergedError
from simclr_tf.training.run_dir import is_moved

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)

SETTINGS, TIMES = "settings.json", "times.json"
OWN_FILES = (
    SETTINGS, TIMES, FOLDER, "plan.json", "encoders", "features", "cells", "costs", "results.csv",
    "summary.csv", "comparisons.csv", "costs.csv", "recommendation.txt", PAGE, CHECKSUMS,
)  # fmt: skip


def refuse_other_settings(
    file: Path, asked: Mapping[str, Any], defaults: Mapping[str, Any], what: str
) -> None:
    """Checks that a folder holds what the same settings have begun.

    Args:
        file: `settings.json` in it. A setting that it does not know yet had its default.
        asked: Settings that are asked for now, by name.
        defaults: Their defaults.
        what: Is in the folder, for the error.

    Raises:
        UserError: Some settings are others.
    """
    known, wanted = read_object(file, ANEW), json.loads(json.dumps(dict(asked)))
    before = json.loads(json.dumps({name: known.get(name, defaults[name]) for name in asked}))
    changed = [f"{name} was {before[name]}, is {now}" for name, now in wanted.items()
               if before[name] != now and not is_moved(name, before[name], now)]  # fmt: skip
    if changed:
        raise UserError(
            f"--output={file.parent} holds {what} with other settings"
            f" ({'; '.join(changed)}); give another folder, or --overwrite"
        )


_DEFAULTS = {s.name: s.default for s in CompareSettings.settings()}

OpenImages = Callable[[], Manifest]
Progress = Callable[[str], Callable[[int, int], None]]


class Experiment:
    """A comparison; what is on disk is not done again.

    Args:
        settings: Its settings.
        output: Its folder.
        open_images: Finds the images; called only if they have not been divided yet.
        progress: Makes a callback (done, all) from a word for what is counted.
        began: `time.perf_counter()` when the command began, which the budget counts from.
    """

    def __init__(
        self, settings: CompareSettings, output: Path, open_images: OpenImages, progress: Progress,
        began: float,
    ) -> None:  # fmt: skip
        self.settings, self.output = settings, output
        self._open_images, self._progress, self._began = open_images, progress, began
        self._checkpoints = Checkpoints()

    def prepare(self, parallel: int = 1) -> None:
        """Divides the images and plans, or finds that both have been done.

        Args:
            parallel: Chains that go at the same time.

        Raises:
            UserError: The folder holds something else, or something asked for is impossible.
        """
        rows, left_out = available(self.settings, self._checkpoints)
        for text in left_out:
            log.warning("%s", text)
        if all(row.encoder.is_floor for row in rows):
            raise UserError(f"nothing is left to compare: {left_out[0]}")
        goes_on = self._check_folder()
        if not goes_on:
            images = self._open_images()
            division = divide_images(images, self.settings, self._progress)
            self.output.mkdir(parents=True, exist_ok=True)
            save_division(division, self.output)
            Checksums(self.output).write_text(SETTINGS, self._settings_text())
        self.division = load_division(self.output)
        self.channels = image_facts(self.division.images).channels
        self.sources = Sources(self.division, self.channels)
        plan = ComparisonPlan.load(self.output)
        if plan is None:
            for text in self.division.remarks:
                log.info("%s", text)
            slots = min(parallel, cpu_or_gpus()) if parallel > 1 else 1
            plan = make_plan(
                self.settings, self.division, self.sources, self.channels, self._began, slots,
                self._checkpoints,
            )  # fmt: skip
            for text in plan.left_out[len(left_out) :]:
                log.warning("%s", text)
            plan.save(self.output)
        self.plan = plan

    def _settings_text(self) -> str:
        return json.dumps(self.settings.deciding(), indent=2) + "\n"

    def _check_folder(self) -> bool:
        file, output = self.output / SETTINGS, self.output
        if file.is_file():
            refuse_other_settings(file, self.settings.deciding(), _DEFAULTS, "a comparison")
            return True
        # What was killed before its settings were written may begin anew.
        if output.exists() and not is_unused(output, [output / FOLDER]):
            raise UserError(
                "is not empty; give another folder, or --overwrite", setting="output", value=output
            )
        if (output / FOLDER).is_dir():
            shutil.rmtree(output / FOLDER)
        return False

    @property
    def rows(self) -> tuple[StrategyRow, ...]:
        """The rows that are compared, without those that the plan leaves out."""
        kept = set(self.plan.rows)
        return tuple(row for row in self.settings.rows() if row.slug in kept)

    def run(self, only: Sequence[str] = ()) -> None:
        """Works on all chains, one after the other.

        Args:
            only: Names of encoders; empty = all.

        Raises:
            UserError: There is no such chain.
            Stopped: A signal asked for it.
        """
        chains = by_encoder(self.rows)
        names = [encoder.name for encoder in chains]
        if wrong := [name for name in only if name not in names]:
            raise UserError(f"is none of {', '.join(names)}", setting="only", value=wrong[0])
        networks = Networks(
            self.settings, self.plan.sizes, self.channels, len(self.division.unlabeled),
            self.output, self._checkpoints,
        )  # fmt: skip
        setup = Setup(
            self.settings, self.plan.sizes, self.division, self.sources, networks, self.channels,
            self.output,
        )  # fmt: skip
        for encoder, rows in chains.items():
            if only and encoder.name not in only:
                continue
            try:
                Chain(setup, encoder, rows).run()
            except DivergedError as error:
                if only:
                    raise UserError(f"{encoder.name}: {error}") from None
                self._leave_out(encoder.name, rows, str(error))

    def _leave_out(self, name: str, rows: Sequence[StrategyRow], why: str) -> None:
        """Takes a strategy that has diverged out of the plan, and says so there for the page."""
        text = f"{name} was left out, for its training diverged: {why}."
        log.warning("%s", text)
        gone = {row.slug for row in rows}
        kept = tuple(slug for slug in self.plan.rows if slug not in gone)
        self.plan = replace(self.plan, rows=kept, left_out=(*self.plan.left_out, text))
        if all(row.encoder.is_floor for row in self.rows):
            raise UserError(f"nothing is left to compare: {text}")
        self.plan.save(self.output)

    def _alarms(self) -> tuple[str, ...]:
        """Sentences on sealed images that a network given as a file was trained on."""
        networks = {row.encoder.network for row in self.rows}
        given = []
        if "imagenet_simclr" in networks:
            checkpoint = self._checkpoints.open(self.settings.design.imagenet_checkpoint)
            given.append(checkpoint.stored.path)
        if "imagenet_supervised" in networks and self.settings.design.imagenet_weights:
            given.append(self.settings.design.imagenet_weights)
        return tuple(
            sentence(text) for path in given for text in seen_by(path, self.division.images)
        )

    def note_time(self) -> float:
        """Adds the time of this start of the command to that of earlier ones; the sum, seconds."""
        file = self.output / TIMES
        try:
            before = float(read_object(file)["seconds"]) if file.is_file() else 0.0
        except (UserError, KeyError) as error:
            log.warning("%s; the time of earlier starts is not known", error)
            before = 0.0
        total: float = before + time.perf_counter() - self._began
        self._began = time.perf_counter()
        Checksums(self.output).write_text(TIMES, json.dumps({"seconds": total}) + "\n")
        return total

    def report(
        self, command: Sequence[str], make_head: MakeHead = recommendation_head
    ) -> tuple[ComparisonResults, Advice, Page]:
        """Writes tables, recommendation and page.

        Args:
            command: Program and arguments that repeat the comparison.
            make_head: Makes the top of the page.
        """
        design, minutes = self.settings.design, self.settings.sizes.minutes
        results = collect(
            self.rows, self.division, self.output, design.metric, design.seed, minutes
        )
        advice = replace(advise(results), alarms=self._alarms())
        write_tables(results, self.rows, self.division, self.output)
        write_text(self.output / "recommendation.txt", advice.text() + "\n")
        seconds = self.note_time()
        page = comparison_page(
            self.settings, self.division, self.plan, results, advice, command, seconds, make_head
        )
        write_page(page, self.output / PAGE)
        if minutes:
            log.info("took %s of %s", format_seconds(seconds), format_seconds(60 * minutes))
        return results, advice, page


class ParallelWorkers:
    """Starts the command again and again, each time for a part of the work.

    Args:
        command: Module and arguments.
        parallel: Processes at the same time.
    """

    def __init__(self, command: Sequence[str], parallel: int) -> None:
        self._command, self._parallel = tuple(command), parallel

    def plan(self, output: Path) -> int:
        """Plans in a process of its own, whose memory on the GPU is free again afterwards.

        Args:
            output: Folder of the comparison; what has been planned there stays.

        Returns:
            Its exit code.
        """
        if (output / FILE).is_file():
            return 0
        return self._start(0, "--plan_only", f"--parallel={self._parallel}")

    def run(self, names: Sequence[str]) -> None:
        """Works on chains.

        Args:
            names: Of their encoders.

        Raises:
            UserError: A process has failed; its lines in the log say why.
        """
        slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(self._parallel):
            slots.put(slot)

        def work(name: str) -> int:
            slot = slots.get()
            try:
                log.info("%s: begins in a process of its own", name)
                return self._start(slot, f"--only={name}")
            finally:
                slots.put(slot)

        with ThreadPoolExecutor(self._parallel) as pool:
            codes = list(pool.map(work, names))
        if failed := [name for name, code in zip(names, codes, strict=True) if code]:
            raise UserError(
                f"{', '.join(failed)} did not come to an end, see above; the same command goes on"
            )

    def _start(self, slot: int, *arguments: str) -> int:
        command = [sys.executable, "-m", *self._command, *arguments]
        return subprocess.run(command, env=_environment(slot), check=False).returncode


def _environment(slot: int) -> dict[str, str]:
    """The environment of a process that sees one GPU, if there are any."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    devices = [d for d in visible.split(",") if d] or [str(n) for n in range(cpu_or_gpus())]
    return {**os.environ, "CUDA_VISIBLE_DEVICES": devices[slot % len(devices)]}
