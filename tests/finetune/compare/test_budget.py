import itertools
from dataclasses import replace

import numpy as np
import pytest

from finetune.compare.budget import (
    Candidate,
    ChainWork,
    Fits,
    Speed,
    Work,
    candidates,
    choose,
    makespan,
    plan_steps,
    scaled,
)


def work(
    pretrain: float = 0.5, finetune: float = 0.05, *, cells: int = 12, dear: float = 0.0
) -> Work:
    """Scratch and untrained, SimCLR, and perhaps an ImageNet network that can be fine-tuned."""
    image = Speed(5.0, 0.002)
    chains = [
        ChainWork("untrained", None, image, Speed(8.0, finetune), 1, (Fits(3),)),
        ChainWork("simclr", Speed(12.0, pretrain), image, Speed(8.0, finetune), 1, (Fits(),),
                  epoch=3.0),
    ]  # fmt: skip
    if dear:
        vgg = Speed(5.0, 0.1)
        chains.append(ChainWork("vgg", None, vgg, Speed(9.0, dear), 1, (Fits(),), dear=True))
    return Work(tuple(chains), cells, images=400, test_images=80, probe=0.3)


def by_hand(w: Work, pretrain: int, finetune: int) -> float:
    """Seconds of the work, written out."""
    total = 0.0
    for c in w.chains:
        if c.pretrain:
            total += c.pretrain.start + pretrain * c.pretrain.step
        total += c.image.start + w.images * c.image.step + w.cells * w.probe
        for row in c.fits:
            assert c.finetune
            one = finetune * row.factor * c.finetune.step + row.rest
            total += c.finetune.start + w.cells * (one + w.test_images * c.image.step)
    return total


def test_the_plan_keeps_to_the_budget_whatever_the_speeds() -> None:
    for pretrain, finetune, minutes in itertools.product(
        (0.05, 0.5, 2.0), (0.02, 0.1, 0.3), (8, 30, 120)
    ):
        w = work(pretrain, finetune)
        steps = plan_steps(w, 60 * minutes)
        took = by_hand(w, steps.pretrain, steps.finetune) + w.report
        assert took == pytest.approx(sum(steps.seconds.values()) + w.report)
        assert took <= 60 * minutes
        free = steps.pretrain < 3000 or steps.finetune < 600
        if free:
            assert took >= 0.8 * 60 * minutes, (pretrain, finetune, minutes)


def test_given_steps_are_kept_and_the_rest_fills_the_budget() -> None:
    w = work()
    steps = plan_steps(w, 1200, pretrain_steps=100)
    assert steps.pretrain == 100
    assert 0.8 * 1200 < by_hand(w, 100, steps.finetune) + w.report < 1200
    steps = plan_steps(w, 1200, finetune_steps=50)
    assert steps.finetune == 50
    assert 0.8 * 1200 < by_hand(w, steps.pretrain, 50) + w.report < 1200


def test_too_small_a_budget_ends_with_less_and_never_with_nothing() -> None:
    """Fine-tuning goes first, then whole encoders; pretraining is what a comparison is for."""
    left_out = []
    for seconds in (600, 150, 100, 60, 40, 10, 1):
        steps = plan_steps(work(), seconds)
        left_out.append(len(steps.dropped) + 2 * len(steps.gone))
        assert list(steps.seconds)
        assert "simclr" in steps.seconds
        if seconds >= 100:
            assert sum(steps.seconds.values()) + work().report <= seconds
    assert left_out == sorted(left_out)
    assert left_out[0] == 0
    assert plan_steps(work(), 100).dropped
    assert plan_steps(work(), 1).gone == ("untrained",)


def test_what_is_left_out_of_a_small_budget_is_no_longer_counted() -> None:
    w = work()
    steps = plan_steps(w, 100)
    kept = [c for c in w.chains if c.name in steps.seconds]
    by_name = {c.name: w._chain(replace(c, fits=(), finetune=None), steps.pretrain, 0)
               for c in kept if c.name in steps.dropped}  # fmt: skip
    for name, seconds in by_name.items():
        assert steps.seconds[name] == pytest.approx(seconds)


def test_no_size_is_worth_a_row() -> None:
    """A larger network whose fine-tunings would be left out is not chosen."""
    own = ["untrained", "simclr"]
    options = candidates(300)
    for minutes in (3, 5, 8, 15):
        chosen = choose(Candidate(48, 0.25), work(0.2, 0.05), 60.0 * minutes, own, options)
        smallest = plan_steps(
            scaled(work(0.2, 0.05), options[0].cost / Candidate(48, 0.25).cost, own), 60.0 * minutes
        )
        there = plan_steps(
            scaled(work(0.2, 0.05), chosen.cost / Candidate(48, 0.25).cost, own), 60.0 * minutes
        )
        assert len(there.dropped) <= len(smallest.dropped)
        assert len(there.gone) <= len(smallest.gone)


def test_fine_tuning_of_a_large_network_is_left_out_where_it_would_eat_the_budget() -> None:
    w = work(dear=2.0)
    steps = plan_steps(w, 600)
    assert steps.dropped == ("vgg",)
    assert sum(steps.seconds.values()) < 600
    assert plan_steps(w, 6000).dropped == ()


def test_chains_at_the_same_time_end_within_the_budget_and_do_more() -> None:
    alone, together = plan_steps(work(), 600), plan_steps(work(), 600, slots=2)
    assert together.pretrain > alone.pretrain
    assert makespan(list(together.seconds.values()), 2) <= 600


def test_makespan_is_that_of_the_longest_slot() -> None:
    assert makespan([3.0, 2.0, 2.0, 1.0], 2) == 4.0
    assert makespan([3.0, 2.0], 1) == 5.0
    rng = np.random.default_rng(0)
    jobs = rng.uniform(1, 10, 20).tolist()
    assert sum(jobs) / 3 <= makespan(jobs, 3) <= sum(jobs) / 3 + max(jobs)


def test_a_larger_budget_affords_a_larger_network_and_images_are_not_blown_up() -> None:
    own = ["untrained", "simclr"]
    known = Candidate(64, 0.25)
    options = candidates(300)
    chosen = [choose(known, work(0.2, 0.02), 60.0 * m, own, options) for m in (4, 20, 200, 2000)]
    costs = [c.cost for c in chosen]
    assert costs == sorted(costs)
    assert len(set(costs)) > 2
    assert max(c.image_size for c in candidates(70)) == 64
    assert {c.image_size for c in candidates(300, image_size=80)} == {80}
    assert {c.width for c in candidates(300, width=0.5)} == {0.5}


def test_scaling_changes_ones_own_network_alone() -> None:
    w = scaled(work(dear=0.5), 4.0, ["untrained", "simclr"])
    steps = [c.finetune.step for c in w.chains if c.finetune]
    assert steps == pytest.approx([0.2, 0.2, 0.5])
    assert w.chains[1].pretrain == Speed(12.0, 2.0)
