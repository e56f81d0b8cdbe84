"""Sizes and steps of a comparison, computed from measured speeds and a budget.

The seconds of a chain (an encoder with all rows that stand on it) are

    pretraining   start + steps * seconds per step
    features      start + images * seconds per image     (once; all probes share them)
    probes        one per cell
    fits          start + cells * (steps * factor * seconds per step + test images * ... + rest)

and only the two numbers of steps are free.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

PRETRAIN_SHARE = 0.6
"""Of the seconds that are free, where there is both pretraining and fine-tuning."""

WANTED_PRETRAIN, WANTED_FINETUNE = 500, 60
"""Updates that a larger network or image must leave room for."""

LEAST_FINETUNE = 20
_SHRINK_PRETRAIN, _SHRINK_FINETUNE = 20, 5
"""Updates below which a row is rather left out than trained."""

MOST_FINETUNE = 600
MOST_PRETRAIN_EPOCHS = 1000
_LEAST_SHARE = 0.7  # of the free seconds that the least fine-tuning may take
_ROOM = 0.9  # of the budget is planned: a machine that is shared becomes slower, not faster
_DEAR = 0.25  # share of the budget above which a row with ImageNet weights is left out


@dataclass(frozen=True)
class Speed:
    """The speed of a kind of work, measured or scaled from a measurement.

    Attributes:
        start: Seconds before the first step: building, tracing, decoding.
        step: Seconds per step.
    """

    start: float
    step: float


@dataclass(frozen=True)
class Fits:
    """A fine-tuned row.

    Attributes:
        factor: Updates for each of the plan.
        rest: Seconds of a cell beside its steps: data set, copies, file.
    """

    factor: int = 1
    rest: float = 0.25


@dataclass(frozen=True)
class ChainWork:
    """An encoder and what stands on it.

    Attributes:
        name: Of the encoder.
        pretrain: Speed of its pretraining; None = there is none.
        image: Seconds per image for features; `start` before the first.
        finetune: Speed of fine-tuning steps; None = no row needs them.
        probes: Rows with a linear probe.
        fits: One per fine-tuned row.
        encoders: How often features are computed: the number of seeds of a random network.
        epoch: Updates that show every image once, of pretraining.
        dear: Whether its fine-tuning may be left out of a small budget.
    """

    name: str
    pretrain: Speed | None
    image: Speed
    finetune: Speed | None
    probes: int
    fits: tuple[Fits, ...]
    encoders: int = 1
    epoch: float = 1.0
    dear: bool = False


@dataclass(frozen=True)
class Work:
    """Everything that a comparison has to do.

    Attributes:
        chains: By encoder.
        cells: Of a row: folds * seeds * amounts of labels.
        images: Whose features are needed.
        test_images: That every fit is scored on.
        probe: Mean seconds of fitting a probe.
        report: Seconds for tables and page.
    """

    chains: tuple[ChainWork, ...]
    cells: int
    images: int
    test_images: int
    probe: float
    report: float = 15.0

    def seconds(self, pretrain_steps: int, finetune_steps: int) -> dict[str, float]:
        """Seconds of every chain."""
        return {c.name: self._chain(c, pretrain_steps, finetune_steps) for c in self.chains}

    def _chain(self, c: ChainWork, pretrain_steps: int, finetune_steps: int) -> float:
        total = 0.0
        if c.pretrain:
            total += c.pretrain.start + pretrain_steps * c.pretrain.step
        if c.probes:
            total += c.encoders * (c.image.start + self.images * c.image.step)
            total += c.probes * self.cells * self.probe
        for row in c.fits:
            assert c.finetune is not None
            fit = finetune_steps * row.factor * c.finetune.step + row.rest
            total += c.finetune.start + self.cells * (fit + self.test_images * c.image.step)
        return total


@dataclass(frozen=True)
class Sizes:
    """The sizes and steps of a comparison, planned or given.

    Attributes:
        image_size: Side of the network's input in pixels.
        width_multiplier: Of one's own network.
        imagenet_image_size: Side for networks with ImageNet weights.
        pretrain_steps: Updates of a pretraining.
        pretrain_batch: Images of its batches.
        finetune_steps: Updates of a fine-tuning.
        finetune_batch: Images of its batches.
    """

    image_size: int
    width_multiplier: float
    imagenet_image_size: int
    pretrain_steps: int
    pretrain_batch: int
    finetune_steps: int
    finetune_batch: int


@dataclass(frozen=True)
class Steps:
    """The two numbers of updates, and what had to be left out for them.

    Attributes:
        pretrain: Of a pretraining.
        finetune: Of a fine-tuning.
        dropped: Names of the encoders whose fine-tuning is left out.
        seconds: Of every chain.
        gone: Names of the encoders that are left out with all that stands on them.
    """

    pretrain: int
    finetune: int
    dropped: tuple[str, ...]
    seconds: Mapping[str, float]
    gone: tuple[str, ...] = ()


def makespan(seconds: Sequence[float], slots: int) -> float:
    """Time until the last job ends: the longest goes first, each to the slot that is free first."""
    ends = [0.0] * slots
    for job in sorted(seconds, reverse=True):
        ends[ends.index(min(ends))] += job
    return max(ends)


def plan_steps(
    work: Work,
    budget: float,
    *,
    slots: int = 1,
    pretrain_steps: int = 0,
    finetune_steps: int = 0,
) -> Steps:
    """The numbers of updates that fill a budget, of as many rows as it holds.

    What a budget does not hold is left out, the costliest fine-tunings first, then whole encoders.
    One always stays, and takes the time that it takes.

    Args:
        work: The work, with its speeds.
        budget: Seconds that are left.
        slots: Chains that go at the same time, each at these speeds.
        pretrain_steps: Given; 0 = planned.
        finetune_steps: Given; 0 = planned.
    """
    aim = _ROOM * budget - work.report
    work, dear = _leave_out_dear(work, aim, finetune_steps)
    shrink = (pretrain_steps or _SHRINK_PRETRAIN, finetune_steps or _SHRINK_FINETUNE)
    work, shrunk, gone = _leave_out_too_much(work, aim, slots, shrink)
    dropped = (*dear, *shrunk)
    least = makespan(list(work.seconds(pretrain_steps or 1, finetune_steps or 1).values()), slots)
    # With several slots the shares of one chain may not fit in it: look for the most that does.
    low, high = least, aim * slots
    best = (pretrain_steps or 1, finetune_steps or 1)
    for _ in range(40):
        total = (low + high) / 2 if slots > 1 else aim
        steps = _shares(work, total, pretrain_steps, finetune_steps)
        fits = makespan(list(work.seconds(*steps).values()), slots) <= aim
        if fits:
            best, low = steps, total
        else:
            high = total
        if slots == 1:
            break
    return Steps(*best, dropped, work.seconds(*best), gone)


def _shares(work: Work, total: float, pretrain: int, finetune: int) -> tuple[int, int]:
    """Steps whose seconds add up to a total over all chains."""
    fixed = sum(work.seconds(0, 0).values())
    free = total - fixed
    pretrain_cost = sum(c.pretrain.step for c in work.chains if c.pretrain)
    finetune_cost = work.cells * sum(
        row.factor * c.finetune.step for c in work.chains if c.finetune for row in c.fits
    )
    epochs = [c.epoch for c in work.chains if c.pretrain]
    most = round(MOST_PRETRAIN_EPOCHS * max(epochs)) if epochs else 1
    if pretrain:
        free -= pretrain * pretrain_cost
    if finetune:
        free -= finetune * finetune_cost
    share = PRETRAIN_SHARE
    if pretrain or not pretrain_cost:
        share = 0.0
    elif finetune or not finetune_cost:
        share = 1.0
    steps = pretrain or _whole(free * share, pretrain_cost, most)
    fits = finetune or _whole(free * (1 - share), finetune_cost, MOST_FINETUNE)
    if not finetune and share and finetune_cost and fits < LEAST_FINETUNE:
        # Rather less pretraining than heads that have learnt nothing.
        fits = _whole(free * _LEAST_SHARE, finetune_cost, LEAST_FINETUNE)
        steps = _whole(free - fits * finetune_cost, pretrain_cost, most)
    if not pretrain and pretrain_cost and fits == MOST_FINETUNE:
        steps = _whole(free - fits * finetune_cost, pretrain_cost, most)
    elif not finetune and finetune_cost and steps == most:
        fits = _whole(free - steps * pretrain_cost, finetune_cost, MOST_FINETUNE)
    return steps, fits


def _whole(seconds: float, cost: float, most: int) -> int:
    if not cost:
        return 1
    return max(1, min(most, int(seconds / cost)))


def _leave_out_dear(work: Work, aim: float, finetune_steps: int) -> tuple[Work, tuple[str, ...]]:
    """Leaves out the fine-tuning of ImageNet networks that would eat the budget."""
    chains, dropped = [], []
    for c in work.chains:
        alone = replace(c, pretrain=None, probes=0)
        cost = work._chain(alone, 0, finetune_steps or LEAST_FINETUNE)
        if c.dear and c.fits and cost > _DEAR * aim:
            dropped.append(c.name)
            c = replace(c, fits=(), finetune=None)  # noqa: PLW2901
        chains.append(c)
    return replace(work, chains=tuple(chains)), tuple(dropped)


def _leave_out_too_much(
    work: Work, aim: float, slots: int, steps: tuple[int, int]
) -> tuple[Work, tuple[str, ...], tuple[str, ...]]:
    """Leaves work out until the rest fits in a budget, with given numbers of steps.

    Fine-tunings go first, the costliest before the others: probes say nearly as much for far less.
    Then encoders go, those without pretraining first: they are what others are compared with.

    Returns:
        The work, encoders without their fine-tuning, and encoders that are not there at all.
    """
    dropped: list[str] = []
    gone: list[str] = []

    def cost(chain: ChainWork) -> float:
        return work._chain(chain, *steps)

    while makespan([cost(c) for c in work.chains], slots) > aim:
        fitted = [c for c in work.chains if c.fits]
        if fitted:
            dearest = max(fitted, key=lambda c: cost(replace(c, pretrain=None, probes=0)))
            rest = replace(dearest, fits=(), finetune=None)
            # An encoder of fits alone goes with them, unless nothing else is left.
            alone = not rest.probes
            if alone and len(work.chains) == 1:
                break
            kept = [] if alone else [rest]
            (gone if alone else dropped).append(dearest.name)
        elif len(work.chains) > 1:
            plain = [c for c in work.chains if not c.pretrain]
            dearest = max(plain or work.chains, key=cost)
            kept = []
            gone.append(dearest.name)
        else:
            break
        chains = [new for c in work.chains for new in (kept if c is dearest else [c])]
        work = replace(work, chains=tuple(chains))
    return work, tuple(name for name in dropped if name not in gone), tuple(gone)


@dataclass(frozen=True)
class Candidate:
    """A size that one's own network may have.

    Attributes:
        image_size: Side of its input in pixels.
        width: Multiplier of its width.
    """

    image_size: int
    width: float

    @property
    def cost(self) -> float:
        """Relative time of a step: number of pixels times width to the power of 1.5."""
        # Thin layers leave the processor's vector units half empty.
        return self.image_size**2 * self.width**1.5


_LADDER = tuple(
    Candidate(size, width)
    for size, width in (
        (32, 0.25), (48, 0.25), (64, 0.25), (64, 0.375), (96, 0.375), (96, 0.5), (128, 0.5),
        (128, 1.0), (160, 1.0), (224, 1.0),
    )
)  # fmt: skip


def candidates(largest: int, image_size: int = 0, width: float = 0.0) -> tuple[Candidate, ...]:
    """The sizes to choose from, rising in cost.

    Args:
        largest: Shorter side of the images in pixels: more would only blow them up.
        image_size: Given; 0 = open.
        width: Given; 0 = open.
    """
    sizes = [Candidate(image_size or c.image_size, width or c.width) for c in _LADDER]
    fitting = [c for c in sizes if image_size or c.image_size <= max(largest, 32)]
    return tuple(sorted(dict.fromkeys(fitting), key=lambda c: c.cost))


def scaled(work: Work, ratio: float, own: Sequence[str]) -> Work:
    """The work at another size of one's own network.

    Args:
        work: As measured.
        ratio: Cost of a step there, divided by that at the measured size.
        own: Names of the chains that have this network.
    """

    def at(speed: Speed) -> Speed:
        return Speed(speed.start, speed.step * ratio)

    chains = [
        replace(
            c,
            pretrain=c.pretrain and at(c.pretrain),
            image=at(c.image),
            finetune=c.finetune and at(c.finetune),
        )
        if c.name in own
        else c
        for c in work.chains
    ]
    return replace(work, chains=tuple(chains))


def choose(
    known: Candidate,
    work: Work,
    budget: float,
    own: Sequence[str],
    options: Sequence[Candidate],
    **given: int,
) -> Candidate:
    """The largest size that leaves room for enough updates; the smallest if none does.

    Args:
        known: The size that was measured.
        work: The work, with its speeds there.
        budget: Seconds that are left.
        own: Names of the chains that have this network.
        options: Sizes, rising in cost.
        **given: See `plan_steps`.
    """
    best = options[0]
    kept = 0
    for option in options:
        steps = plan_steps(scaled(work, option.cost / known.cost, own), budget, **given)
        left_out = len(steps.dropped) + 2 * len(steps.gone)
        if option is not options[0] and left_out > kept:
            break  # no size is worth a row
        kept = left_out
        enough = given.get("pretrain_steps") or steps.pretrain >= WANTED_PRETRAIN
        left = [c for c in work.chains if c.name not in steps.gone]
        pretrains = any(c.pretrain for c in left)
        fits = any(c.fits for c in left if c.name not in steps.dropped)
        if (pretrains and not enough) or (
            fits and not given.get("finetune_steps") and steps.finetune < WANTED_FINETUNE
        ):
            break
        best = option
    return best
