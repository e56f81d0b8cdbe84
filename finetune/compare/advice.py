"""Recommendation of a comparison in words, which follows from its table of results alone.

A row is said to be above another only if their difference is told apart (`Pair.told_apart`): its
95 % interval excludes 0, and so does its p-value after Holm's correction for all pairs with as many
labels. Anything else is a tie.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.phrases import capitalized, format_seconds
from finetune.compare.results import ComparisonResults
from finetune.compare.strategies import MAJORITY, RAW_PIXELS
from finetune.report.sections import WORDS


@dataclass(frozen=True)
class Advice:
    """The recommendation drawn from a comparison, with its reasons.

    Attributes:
        recommendation: In a sentence or two.
        by_labels: One sentence an amount of labels.
        against: The recommended row against every other one.
        cautions: Caveats for readers.
        alarms: Reasons not to trust the numbers, shown first.
    """

    recommendation: str
    by_labels: tuple[str, ...] = ()
    against: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()

    def text(self) -> str:
        """The whole advice, one paragraph per line."""
        parts = (*self.alarms, self.recommendation, *self.by_labels, *self.against, *self.cautions)
        return "\n".join(parts)


def advise(results: ComparisonResults) -> Advice:
    """Returns the recommendation that the results support."""
    if len(results.rows) < 2:
        (only,) = results.rows
        said = tuple(
            f"{capitalized(with_labels(results, f))}, {only} has a {_metric(results)} of"
            f" {results.value(only, f):.3f}."
            for f in results.fractions
        )
        standing = f"; it is {text}" if (text := _standing(results, only)) else ""
        return Advice(
            f"Only one strategy was run ({only}): there is nothing to recommend it over{standing}."
            f"{if_unlearned(results)}",
            said,
            cautions=tuple(_unlearned(results)),
        )
    chosen, sentence = _recommend(results)
    return Advice(
        f"{sentence}{if_unlearned(results)}",
        tuple(_leader(results, f) for f in results.fractions),
        tuple(_against(results, chosen, other) for other in results.rows if other != chosen)
        if chosen
        else (),
        tuple(_cautions(results)),
    )


def with_labels(results: ComparisonResults, fraction: float) -> str:
    """`with 10 labels a class (5 %)`."""
    labels = results.labels[fraction]
    if fraction == 1:
        return f"with all {labels} labels"
    each = labels / results.classes
    share = f"{100 * fraction:.3g} %"
    number = f"{each:.0f}" if each == round(each) else f"about {each:.2g}"
    return f"with {number} label{'' if number == '1' else 's'} a class ({share})"


def _beaten(results: ComparisonResults, row: str, fraction: float) -> list[str]:
    """The rows that a row is above, the nearest first."""
    won = []
    for other in results.rows:
        if other != row:
            pair = results.pair(row, other, fraction)
            if pair.told_apart and pair.difference.value > 0:
                won.append(other)
    return sorted(won, key=lambda other: -results.value(other, fraction).value)


def _leaders(results: ComparisonResults, fraction: float) -> list[str]:
    """The row with the highest mean, then those that are not told apart from it."""
    ranked = sorted(results.rows, key=lambda row: -results.value(row, fraction).value)
    beaten = _beaten(results, ranked[0], fraction)
    return [row for row in ranked if row not in beaten]


def _leader(results: ComparisonResults, fraction: float) -> str:
    first, *tied = _leaders(results, fraction)
    value = f"{results.value(first, fraction).value:.3f}"
    beaten = _beaten(results, first, fraction)
    start = f"{capitalized(with_labels(results, fraction))}, {first}"
    if not tied:
        gap = _gap(results, first, beaten[0], fraction)
        return (
            f"{start} is best: {_metric(results)} {value}, {gap} above {beaten[0]}, the next one."
        )
    highest = f"{start} has the highest {_metric(results)} ({value})"
    if not beaten:
        return f"{highest}, but no strategy is told apart from it."
    gap = _gap(results, first, beaten[0], fraction)
    return (
        f"{highest}, not told apart from {_listed(tied)}; it is {gap} above {beaten[0]}"
        f"{' and above ' + _listed(beaten[1:]) if beaten[1:] else ''}."
    )


def _recommend(results: ComparisonResults) -> tuple[str, str]:
    """The recommended row, "" if there is none; and the recommendation."""
    leaders = {fraction: _leaders(results, fraction) for fraction in results.fractions}
    won = {row: [_beaten(results, row, f) for f in results.fractions] for row in results.rows}
    wins = {row: sum(map(len, beaten)) for row, beaten in won.items()}
    losers = {row for beaten in won.values() for known in beaten for row in known}
    throughout = [row for row in results.rows if row not in losers]
    some = [row for row in throughout if wins[row]]
    if not any(wins.values()):
        return "", (
            "No recommendation: these numbers do not tell any two of the strategies apart"
            f"{_best_of_all(results)}.{_what_would(results)}"
        )
    if not throughout:
        return "", (
            f"No strategy leads throughout: {_by_amount(results, leaders)}{_best_of_all(results)}."
        )
    if not some:
        # Those that are tied with the leader throughout, yet above nobody.
        return "", (
            f"No single recommendation: {_listed(throughout)} "
            f"{'is' if len(throughout) == 1 else 'are'} not told apart from the best at any amount"
            f" of labels, but above no other; {_by_amount(results, leaders)}"
            f"{_best_of_all(results)}."
        )
    best = max(some, key=lambda row: (wins[row], _mean(results, row)))
    what = "at any amount of labels" if len(results.fractions) > 1 else "here"
    standing = _standing(results, best)
    if len(throughout) == 1:
        which = f", which is {standing}" if standing else ""
        return best, (
            f"Take {best}{which}: nothing is told apart above it {what}, and every other strategy"
            " falls behind somewhere."
        )
    below = [row for row in results.rows if any(row in known for known in won[best])]
    which = f"; {best} is {standing}" if standing else ""
    return best, (
        f"{capitalized(_listed(throughout))} are not told apart, and nothing is above them"
        f" {what}{which}."
        f" The one above most others is {best} (above {_listed(below)})"
        f"{_cheapest(results, throughout)}."
    )


_FLOOR_WORDS = {MAJORITY: "the most frequent class", RAW_PIXELS: "raw pixels"}


def _standing(results: ComparisonResults, row: str) -> str:
    """Says if a row is above the floors; "" if there are none, or it is one itself.

    Floors are the most frequent class, a linear probe on raw pixels, and untrained features.
    """
    floors = [name for name in (*results.floors, results.floor) if name and name != row]
    if not floors:
        return ""
    missed = []
    for floor in floors:
        lost = [f for f in results.fractions if not _is_above(results, row, floor, f)]
        word = _FLOOR_WORDS.get(floor, "untrained features")
        if len(lost) == len(results.fractions) > 1:
            missed.append(f"{word} at any amount of labels")
        elif lost:
            missed.append(f"{word} {_listed([with_labels(results, f) for f in lost])}")
    if missed:
        return f"NOT above {'; nor above '.join(missed)}"
    words = [_FLOOR_WORDS.get(floor, "untrained features") for floor in floors]
    throughout = " at every amount of labels" if len(results.fractions) > 1 else ""
    return f"above {_listed(words)}{throughout}"


def _is_above(results: ComparisonResults, row: str, other: str, fraction: float) -> bool:
    pair = results.pair(row, other, fraction)
    return pair.told_apart and pair.difference.value > 0


def _best_of_all(results: ComparisonResults) -> str:
    """Says if the row that is highest with all labels is above the floors."""
    most = results.fractions[-1]
    learnt = [row for row in results.rows if row != results.floor]
    best = max(learnt or results.rows, key=lambda row: results.value(row, most).value)
    standing = _standing(results, best)
    amount = with_labels(results, most)
    return f"; {best}, the highest network {amount}, is {standing}" if standing else ""


def _what_would(results: ComparisonResults) -> str:
    """Names a remedy for ties; "" if a pretraining has learnt nothing: that needs another one."""
    if results.unlearned:
        return ""
    return " More test images or more folds would, if there is a difference."


def if_unlearned(results: ComparisonResults) -> str:
    """Warns of pretrainings that have learnt nothing; "" if there are none."""
    if not results.unlearned:
        return ""
    many = len(results.unlearned) > 1
    budget = f" than {results.minutes:g}" if results.minutes else ""
    more = "--minutes" if results.minutes else "--pretrain_steps"
    return (
        f" But the pretraining of {_listed(list(results.unlearned))} has learnt nothing, so"
        f" {'these rows are' if many else 'this row is'} no verdict on self-supervision: give more"
        f" {more}{budget}, not more test images."
    )


def _unlearned(results: ComparisonResults) -> list[str]:
    """The warning behind each pretraining that has learnt nothing."""
    return [f"{capitalized(row)}: {warning}." for row, warning in results.unlearned.items()]


def _cheapest(results: ComparisonResults, rows: Sequence[str]) -> str:
    costs = results.costs
    if any(row not in costs for row in rows):
        return ""
    cheapest = min(rows, key=lambda row: costs[row].seconds)
    return f"; the cheapest of them is {cheapest} ({format_seconds(costs[cheapest].seconds)})"


def _by_amount(results: ComparisonResults, leaders: dict[float, list[str]]) -> str:
    parts = []
    for fraction, known in leaders.items():
        tied = f" (tied with {_listed(known[1:])})" if known[1:] else ""
        parts.append(f"{with_labels(results, fraction)} it is {known[0]}{tied}")
    return "; ".join(parts)


def _against(results: ComparisonResults, row: str, other: str) -> str:
    ahead, behind, tied = [], [], []
    for fraction in results.fractions:
        pair, amount = results.pair(row, other, fraction), with_labels(results, fraction)
        if not pair.told_apart:
            tied.append(amount)
        elif pair.difference.value > 0:
            ahead.append(f"{_gap(results, row, other, fraction)} {amount}")
        else:
            behind.append(f"{_gap(results, other, row, fraction)} {amount}")
    parts = [f"ahead by {_listed(ahead)}"] if ahead else []
    parts += [f"behind by {_listed(behind)}"] if behind else []
    if tied:
        everywhere = len(tied) == len(results.fractions) > 1
        parts.append(f"not told apart {'at any amount of labels' if everywhere else _listed(tied)}")
    return f"{capitalized(row)} against {other}: {'; '.join(parts)}."


def _gap(results: ComparisonResults, better: str, worse: str, fraction: float) -> str:
    """`6 to 11 points`: the 95 % interval of a difference that excludes 0."""
    d = results.pair(better, worse, fraction).difference
    low, high = f"{100 * d.low:.0f}", f"{100 * d.high:.0f}"
    if low in ("0", high):
        low, high = f"{100 * d.low:.1f}", f"{100 * d.high:.1f}"
    if float(low) == 0:
        low = "almost 0"
    return f"{low} to {high} points"


def _cautions(results: ComparisonResults) -> list[str]:
    said = _unlearned(results)
    if floor := results.floor:
        low = []
        for fraction in results.fractions:
            learnt = [r for r in results.rows if r == floor
                      or floor in _beaten(results, r, fraction)]  # fmt: skip
            rest = [row for row in results.rows if row not in learnt]
            if rest:
                low.append(f"{with_labels(results, fraction)} {_listed(rest)}")
        if low:
            said.append(f"Not told apart from untrained features, or below them: {'; '.join(low)}.")
    number = len(results.rows) * (len(results.rows) - 1) // 2
    hints = sum(
        (p.difference.low > 0 or p.difference.high < 0) and not p.told_apart
        for (_, other, _), p in results.pairs.items()
        if other not in results.floors
    )
    lost = (
        f" {hints} difference{'s' if hints > 1 else ''} with such an interval did not survive the"
        " correction and count as ties." if hints else ""
    )  # fmt: skip
    many = "is 1 pair" if number == 1 else f"are {number} pairs"
    said.append(
        f"At each amount of labels there {many} of strategies. Two count as told apart if"
        " the 95 % interval of their paired difference excludes 0 and their p-value, corrected for"
        f" the number of pairs (Holm), is below 0.05; intervals are those of single pairs.{lost}"
    )
    runs = (
        "one run: what other training images would change is not in the intervals"
        if results.runs == 1
        else f"{results.runs} runs (folds and seeds), which are resampled with the test images"
    )
    said.append(
        f"All numbers are of the same {results.test_images} sealed test images; points are"
        f" hundredths of {_metric(results)}. Means are over {runs}."
    )
    return said


def _mean(results: ComparisonResults, row: str) -> float:
    values = [results.value(row, fraction).value for fraction in results.fractions]
    return sum(values) / len(values)


def _metric(results: ComparisonResults) -> str:
    return WORDS[results.metric]


def _listed(names: Sequence[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
