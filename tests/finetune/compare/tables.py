"""Made tables of results, for tests."""

import itertools
from collections.abc import Mapping

from finetune.compare.results import ComparisonResults, Cost, Pair
from simclr_tf.evaluation.intervals import Difference, Interval

Values = Mapping[str, tuple[float, ...]]


def table(
    values: Values,
    apart: Mapping[tuple[str, str, int], tuple[float, float]],
    *,
    labels: tuple[int, ...] = (3, 30, 300),
    costs: Mapping[str, float] | None = None,
    floor: str = "",
    p_holm: float = 0.01,
) -> ComparisonResults:
    """Rows with a mean an amount of labels; pairs that are told apart get intervals.

    Args:
        values: Row -> means, one an amount of labels.
        apart: (better, worse, position of the amount) -> ends of the difference.
        labels: Labels of each amount, the last being all.
        costs: Row -> seconds.
        floor: Name of the row of untrained features.
        p_holm: Of the pairs told apart.
    """
    names = tuple(values)
    fractions = tuple(n / labels[-1] for n in labels)
    pairs = {}
    for (a, b), (i, f) in itertools.product(itertools.combinations(names, 2), enumerate(fractions)):
        gap = values[a][i] - values[b][i]
        low, high, p = gap - 0.1, gap + 0.1, 1.0
        if (a, b, i) in apart:
            (low, high), p = apart[a, b, i], p_holm
        if (b, a, i) in apart:
            (worst, most), p = apart[b, a, i], p_holm
            low, high = -most, -worst
        if p == 1:
            low, high = min(low, -0.01), max(high, 0.01)
        pairs[a, b, f] = Pair(Difference(gap, low, high, 0.95, p / 5), p)
    means = {
        (name, f): {"balanced_accuracy": Interval(own[i], own[i] - 0.05, own[i] + 0.05)}
        for name, own in values.items()
        for i, f in enumerate(fractions)
    }
    return ComparisonResults(
        "balanced_accuracy",
        names,
        fractions,
        dict(zip(fractions, labels, strict=True)),
        classes=3,
        runs=3,
        test_images=84,
        means=means,
        pairs=pairs,
        costs={name: Cost(s, 0.0, 0, 0) for name, s in (costs or {}).items()},
        floor=floor,
    )
