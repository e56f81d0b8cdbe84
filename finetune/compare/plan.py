"""The plan of a comparison: sizes and steps, why they are so, and what is left out."""

import json
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from data_prep.manifest.scan import image_facts
from data_prep.phrases import format_seconds
from data_prep.storage import ANEW, Checksums, read_object
from finetune.compare.budget import (
    LEAST_FINETUNE,
    Candidate,
    ChainWork,
    Sizes,
    Steps,
    Work,
    candidates,
    choose,
    plan_steps,
    scaled,
)
from finetune.compare.images import Division, Sources
from finetune.compare.recipes import Networks, missing_weights
from finetune.compare.speed import Stopwatch, time_probe
from finetune.compare.strategies import CompareSettings, Encoder, StrategyRow
from simclr_tf.checkpoints.load import Checkpoints

log = logging.getLogger(__name__)

FILE = "plan.json"
_DEFAULT = Sizes(64, 0.375, 64, 700, 128, 80, 32)
_IMAGENET_SIZES = (224, 160, 128, 96, 64)
_IMAGENET_SHARE = 0.08  # of the budget that their features may take
_TIMED_FIRST, _TIMED_FIRST_OF_SHORT = Candidate(64, 0.25), Candidate(48, 0.25)
_LONG = 15  # minutes
_TIMING_SHARE = 0.2  # of the budget that looking at the images and timing may take together
_LEAST_TIMING = 0.1  # that timing may have, however long looking at the images took
_ANEW = 0.7  # seconds of a second timing for each of the first: TensorFlow has been warmed up
_SECONDS_A_BOOTSTRAP = 1e-5  # of a run, for each test image, class and thousand samples
_REPORT = 8.0  # seconds of pages and figures
_RAW_PIXELS = 5.0  # seconds of shrinking the images


@dataclass(frozen=True)
class ComparisonPlan:
    """The sizes and rows of a comparison, with the reasons for them.

    Attributes:
        sizes: Sizes and steps.
        rows: Slugs of the rows to run.
        left_out: Strategies that are left out, and why, sentences.
        said: Reasons for the plan, sentences.
        seconds: Planned seconds of every chain; empty without a budget.
        spent: Seconds from the start of the command until the plan stood.
    """

    sizes: Sizes
    rows: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    said: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    spent: float = 0.0

    def save(self, output: Path) -> None:
        """Writes `plan.json`."""
        Checksums(output).write_text(FILE, json.dumps(asdict(self), indent=2) + "\n")

    @staticmethod
    def load(output: Path) -> "ComparisonPlan | None":
        """Reads it; None if nothing has been planned."""
        file = output / FILE
        if not file.is_file():
            return None
        facts = read_object(file, ANEW)
        for name in ("rows", "left_out", "said"):
            facts[name] = tuple(facts[name])
        return ComparisonPlan(**{**facts, "sizes": Sizes(**facts["sizes"])})


def available(
    settings: CompareSettings, checkpoints: Checkpoints
) -> tuple[tuple[StrategyRow, ...], tuple[str, ...]]:
    """The rows whose weights are there, and a sentence for each strategy left out."""
    rows, left_out = [], {}
    for row in settings.rows():
        why = missing_weights(settings, row.encoder, checkpoints)
        if why:
            left_out[row.encoder.name] = f"{row.encoder.name} was left out: {why}."
        else:
            rows.append(row)
    return tuple(rows), tuple(left_out.values())


def by_encoder(rows: Sequence[StrategyRow]) -> dict[Encoder, tuple[StrategyRow, ...]]:
    """Rows by their encoder."""
    chains: dict[Encoder, tuple[StrategyRow, ...]] = {}
    for row in rows:
        chains[row.encoder] = (*chains.get(row.encoder, ()), row)
    return chains


def make_plan(
    settings: CompareSettings,
    division: Division,
    sources: Sources,
    channels: int,
    began: float,
    slots: int,
    checkpoints: Checkpoints,
) -> ComparisonPlan:
    """Plans a comparison; with a budget by timing a few steps of everything.

    Args:
        settings: Of the comparison.
        division: The images.
        sources: The labelled ones.
        channels: Of all of them.
        began: `time.perf_counter()` at the start of the command: all since counts.
        slots: Chains that go at the same time.
        checkpoints: Those that the comparison starts from.
    """
    rows, left_out = available(settings, checkpoints)
    batch = min(_DEFAULT.pretrain_batch, 2 ** ((len(division.unlabeled)).bit_length() - 1))
    size = settings.sizes.image_size or _DEFAULT.image_size
    sizes = Sizes(
        size,
        settings.sizes.width_multiplier or _DEFAULT.width_multiplier,
        settings.sizes.imagenet_image_size or size,
        settings.sizes.pretrain_steps or _DEFAULT.pretrain_steps,
        batch,
        settings.sizes.finetune_steps or _DEFAULT.finetune_steps,
        _DEFAULT.finetune_batch,
    )
    plan = ComparisonPlan(sizes, tuple(row.slug for row in rows), left_out)
    if not settings.sizes.minutes or not rows:
        return replace(plan, spent=time.perf_counter() - began)
    budget, now = 60 * settings.sizes.minutes, time.perf_counter()
    deadline = max(began + _TIMING_SHARE * budget, now + _LEAST_TIMING * budget)
    with tempfile.TemporaryDirectory() as folder:
        planner = _Planner(
            settings, division, sources, channels, rows, began, deadline, slots, Path(folder),
            checkpoints,
        )  # fmt: skip
        return planner.plan(plan)


class _Planner:
    """Times at one size, chooses, and times what was chosen if there is time for that.

    Speeds at other sizes are scaled by pixels and width. Timing ends at the deadline: what it has
    not come to is estimated.
    """

    def __init__(
        self, settings: CompareSettings, division: Division, sources: Sources, channels: int,
        rows: tuple[StrategyRow, ...], began: float, deadline: float, slots: int, folder: Path,
        checkpoints: Checkpoints,
    ) -> None:  # fmt: skip
        self._checkpoints = checkpoints
        self._deadline = deadline
        self._settings, self._division, self._channels = settings, division, channels
        self._sources = sources
        self._rows, self._began, self._slots, self._folder = rows, began, slots, folder
        chains = by_encoder([row for row in rows if not row.encoder.is_floor])
        # What matters most is timed first: pretraining, then one's own network, then the others.
        order = sorted(chains, key=lambda e: (e.network != "own", not e.method))
        self._chains = {encoder: chains[encoder] for encoder in order}
        self._own = [e.name for e in self._chains if e.network == "own"]
        survey = image_facts(division.images).survey
        self._largest = int(min(survey.height.min(), survey.width.min()))
        self._foreign: dict[str, ChainWork] = {}

    def _left(self) -> float:
        return self._settings.sizes.minutes * 60 - (time.perf_counter() - self._began)

    def plan(self, plan: ComparisonPlan) -> ComparisonPlan:
        s, said = self._settings, []
        options = candidates(self._largest, s.sizes.image_size, s.sizes.width_multiplier)
        first = _TIMED_FIRST if s.sizes.minutes >= _LONG else _TIMED_FIRST_OF_SHORT
        known = min(options, key=lambda c: abs(c.cost - first.cost))
        sizes = replace(plan.sizes, image_size=known.image_size, width_multiplier=known.width)
        if not s.sizes.imagenet_image_size:
            sizes = replace(sizes, imagenet_image_size=max(32, min(64, self._largest)))
        began = time.perf_counter()
        work = self._time(sizes)
        again = _ANEW * (time.perf_counter() - began)
        sizes, work = self._imagenet_size(sizes, work)
        given = {"pretrain_steps": s.sizes.pretrain_steps, "finetune_steps": s.sizes.finetune_steps}
        if self._own:
            best = choose(known, work, self._left(), self._own, options, slots=self._slots, **given)
            if best != known and self._deadline - time.perf_counter() > again:
                work = self._time(_at(sizes, best))
                known = best
                # What was scaled may not hold when it is measured.
                smaller = options[: options.index(best) + 1]
                best = choose(
                    known, work, self._left(), self._own, smaller, slots=self._slots, **given
                )
            work = scaled(work, best.cost / known.cost, self._own)
            known, sizes = best, _at(sizes, best)
            said.append(
                f"Image size {known.image_size} and width {known.width:g} are the largest of"
                f" {len(options)} that leave room for enough updates."
                if not (s.sizes.image_size and s.sizes.width_multiplier)
                else f"Image size {known.image_size} and width {known.width:g} were given."
            )
        steps = plan_steps(work, self._left(), slots=self._slots, **given)
        sizes = replace(sizes, pretrain_steps=steps.pretrain, finetune_steps=steps.finetune)
        kept = [
            row for row in self._rows
            if row.encoder.name not in steps.gone
            and not (row.head == "full" and row.encoder.name in steps.dropped)
        ]  # fmt: skip
        left_out = [
            f"{row.name} was left out: {s.sizes.minutes:g} minutes do not hold"
            f" {f'its {work.cells} fits' if row.head == 'full' else 'it'}; give more --minutes."
            for row in self._rows
            if row not in kept
        ]
        spent = time.perf_counter() - self._began
        plan = ComparisonPlan(
            sizes,
            tuple(row.slug for row in kept),
            (*plan.left_out, *left_out),
            (*said, *self._sentences(sizes, work, steps, spent)),
            {**steps.seconds, "report": work.report},
            spent,
        )
        for text in plan.said:
            log.info("plan: %s", text)
        return plan

    def _time(self, sizes: Sizes) -> Work:
        s, division = self._settings, self._division
        log.info(
            "timing a few steps at image size %d, width %g", sizes.image_size,
            sizes.width_multiplier,
        )  # fmt: skip
        where = self._folder / f"{sizes.image_size}_{sizes.width_multiplier:g}"
        where.mkdir(exist_ok=True)
        networks = Networks(
            s, sizes, self._channels, len(division.unlabeled), where, self._checkpoints
        )
        watch = Stopwatch(networks, division, self._sources, self._channels, where, self._deadline)
        chains = []
        for encoder, rows in self._chains.items():
            work = None if encoder.network == "own" else self._foreign.get(encoder.name)
            if work is None:
                work = watch.chain(encoder, rows, sizes, s.design.seeds)
                if encoder.network != "own":
                    self._foreign[encoder.name] = work
            chains.append(work)
        cells = len(division.label_sets)
        labeled = sum(bool(r.label) for r in division.images.records)
        return Work(
            tuple(chains),
            cells,
            labeled,
            len(division.test_rows),
            self._probe_seconds(),
            self._report_seconds(cells) + self._floor_seconds(cells),
        )

    def _probe_seconds(self) -> float:
        sizes = [len(known.rows) for known in self._division.label_sets]
        classes = len(self._division.class_names)
        largest = time_probe(max(sizes), 512, classes)
        return largest * sum(sizes) / len(sizes) / max(sizes) + 0.05

    def _floor_seconds(self, cells: int) -> float:
        """Seconds of the linear probe on raw pixels."""
        return _RAW_PIXELS + cells * self._probe_seconds()

    def _report_seconds(self, cells: int) -> float:
        images, classes = len(self._division.test_rows), len(self._division.class_names)
        return _REPORT + len(self._rows) * cells * images * classes * 4 * _SECONDS_A_BOOTSTRAP

    def _imagenet_size(self, sizes: Sizes, work: Work) -> tuple[Sizes, Work]:
        """The largest input size for networks with ImageNet weights that costs little."""
        foreign = [c for c in work.chains if c.name not in self._own]
        if self._settings.sizes.imagenet_image_size or not foreign:
            return sizes, work
        measured = sizes.imagenet_image_size
        budget = _IMAGENET_SHARE * self._settings.sizes.minutes * 60
        fitting = [
            size
            for size in _IMAGENET_SIZES
            if size <= self._largest
            and all(
                c.image.step * work.images * (size / measured) ** 2 <= budget and not c.pretrain
                for c in foreign
            )
        ]
        chosen = max([measured, *fitting])
        ratio = (chosen / measured) ** 2
        chains = []
        for c in work.chains:
            if c in foreign:
                image = replace(c.image, step=c.image.step * ratio)
                finetune = c.finetune and replace(c.finetune, step=c.finetune.step * ratio)
                c = replace(c, image=image, finetune=finetune)  # noqa: PLW2901
                self._foreign[c.name] = c
            chains.append(c)
        return replace(sizes, imagenet_image_size=chosen), replace(work, chains=tuple(chains))

    def _sentences(self, sizes: Sizes, work: Work, steps: Steps, spent: float) -> list[str]:
        there = [c for c in work.chains if c.name not in steps.gone]
        pretrained = [c for c in there if c.pretrain]
        fitted = [c for c in there if c.fits and c.name not in steps.dropped]
        total = sum(steps.seconds.values()) if self._slots == 1 else None
        said = []
        if any(c.name not in self._own for c in there):
            said.append(f"Networks with ImageNet weights see {sizes.imagenet_image_size} pixels.")
        if pretrained:
            assert pretrained[0].pretrain is not None
            epochs = steps.pretrain / pretrained[0].epoch
            said.append(
                f"Pretraining takes {steps.pretrain} steps of {sizes.pretrain_batch} images"
                f" ({epochs:.0f} epochs), {pretrained[0].pretrain.step:.2f} s each."
            )
        if fitted:
            assert fitted[0].finetune is not None
            said.append(
                f"Every fine-tuning takes {steps.finetune} steps of {sizes.finetune_batch} images"
                f" ({fitted[0].finetune.step:.3f} s each), whatever the labels; there are"
                f" {work.cells} a row."
            )
            if steps.finetune < LEAST_FINETUNE:
                said.append(
                    "So few updates teach little: give more --minutes, fewer --folds or"
                    " --label_fractions, or --heads=probe."
                )
        if total is not None:
            said.append(
                f"{format_seconds(spent)} went into looking at the images and timing,"
                f" {format_seconds(total)} are planned for training and"
                f" {format_seconds(work.report)} for the report, of"
                f" {format_seconds(self._settings.sizes.minutes * 60)}."
            )
        return said


def _at(sizes: Sizes, own: Candidate) -> Sizes:
    """The sizes, with another size of one's own network."""
    return replace(sizes, image_size=own.image_size, width_multiplier=own.width)


def cpu_or_gpus() -> int:
    """Number of chains to run at the same time: one per GPU, one on a CPU."""
    import tensorflow as tf

    return max(1, len(tf.config.list_physical_devices("GPU")))
