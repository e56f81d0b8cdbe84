from dataclasses import replace

from finetune.compare.advice import advise
from finetune.compare.results import ComparisonResults
from simclr_tf.training.run_warnings import RunWarning
from tests.finetune.compare.tables import table

OWN, VGG, SCRATCH = "simclr (fine-tuned)", "imagenet_supervised (linear probe)", "scratch"


def test_a_clear_winner_is_recommended_with_the_interval_of_its_lead() -> None:
    apart = {(OWN, other, i): (0.06, 0.11) for other in (VGG, SCRATCH) for i in range(3)}
    said = advise(
        table({VGG: (0.5, 0.6, 0.7), OWN: (0.6, 0.7, 0.8), SCRATCH: (0.4, 0.5, 0.6)}, apart)
    )
    assert said.recommendation == (
        f"Take {OWN}: nothing is told apart above it at any amount of labels, and every other"
        " strategy falls behind somewhere."
    )
    assert said.by_labels == (
        f"With 1 label a class (1 %), {OWN} is best: balanced accuracy 0.600, 6 to 11 points above"
        f" {VGG}, the next one.",
        f"With 10 labels a class (10 %), {OWN} is best: balanced accuracy 0.700, 6 to 11 points"
        f" above {VGG}, the next one.",
        f"With all 300 labels, {OWN} is best: balanced accuracy 0.800, 6 to 11 points above {VGG},"
        " the next one.",
    )


def test_without_differences_nothing_is_recommended() -> None:
    said = advise(table({OWN: (0.9, 0.9, 0.9), VGG: (0.5, 0.5, 0.5)}, {}))
    assert said.recommendation.startswith("No recommendation")
    assert all("no strategy is told apart from it" in text for text in said.by_labels)
    assert said.against == ()


def test_a_lead_with_few_labels_and_a_tie_with_all() -> None:
    apart = {(OWN, VGG, 1): (0.061, 0.114)}
    said = advise(table({OWN: (0.5, 0.6, 0.7), VGG: (0.5, 0.5, 0.7)}, apart))
    assert said.recommendation.startswith(f"Take {OWN}")
    assert said.against == (
        f"{OWN[0].upper()}{OWN[1:]} against {VGG}: ahead by 6 to 11 points with 10 labels a class"
        " (10 %); not told apart with 1 label a class (1 %) and with all 300 labels.",
    )


def test_when_the_best_changes_with_the_labels_both_are_named() -> None:
    apart = {(VGG, OWN, 0): (0.02, 0.1), (OWN, VGG, 2): (0.03, 0.2)}
    said = advise(table({OWN: (0.4, 0.5, 0.8), VGG: (0.6, 0.5, 0.6)}, apart))
    assert said.recommendation.startswith("No strategy leads throughout")
    assert f"with 1 label a class (1 %) it is {VGG}" in said.recommendation
    assert f"with all 300 labels it is {OWN}" in said.recommendation
    assert "Take" not in said.recommendation


def test_an_interval_without_zero_that_fails_the_correction_is_a_tie_and_is_counted() -> None:
    apart = {(OWN, VGG, i): (0.01, 0.2) for i in range(3)}
    said = advise(table({OWN: (0.6, 0.6, 0.6), VGG: (0.5, 0.5, 0.5)}, apart, p_holm=0.06))
    assert said.recommendation.startswith("No recommendation")
    assert any("3 differences with such an interval did not survive" in t for t in said.cautions)


def test_one_strategy_alone_is_only_reported() -> None:
    said = advise(table({OWN: (0.5, 0.6, 0.7)}, {}))
    assert said.recommendation == (
        f"Only one strategy was run ({OWN}): there is nothing to recommend it over."
    )
    assert said.by_labels[2] == (
        f"With all 300 labels, {OWN} has a balanced accuracy of 0.700 [0.650, 0.750]."
    )


def test_equals_are_named_and_the_cheaper_one_is_pointed_out() -> None:
    apart = {(OWN, SCRATCH, i): (0.1, 0.2) for i in range(3)} | {(VGG, SCRATCH, 0): (0.1, 0.2)}
    values = {OWN: (0.6, 0.6, 0.6), VGG: (0.6, 0.6, 0.6), SCRATCH: (0.4, 0.4, 0.4)}
    said = advise(table(values, apart, costs={OWN: 600, VGG: 30, SCRATCH: 100}))
    assert said.recommendation == (
        f"{OWN[0].upper()}{OWN[1:]} and {VGG} are not told apart, and nothing is above them at any"
        f" amount of labels. The one above most others is {OWN} (above {SCRATCH}); the cheapest of"
        f" them is {VGG} (30 s)."
    )


def test_a_row_beaten_by_any_other_is_never_recommended() -> None:
    # VGG is told apart above OWN, though the row with the highest mean is not.
    apart = {(VGG, OWN, 0): (0.01, 0.1), (OWN, SCRATCH, 1): (0.1, 0.2)}
    values = {OWN: (0.5, 0.8, 0.8), VGG: (0.55, 0.7, 0.7), SCRATCH: (0.6, 0.5, 0.5)}
    assert f"Take {OWN}" not in advise(table(values, apart)).text()


def test_rows_that_are_not_above_the_untrained_floor_are_named() -> None:
    apart = {(OWN, "untrained", i): (0.1, 0.2) for i in range(3)}
    values = {"untrained": (0.4, 0.4, 0.4), OWN: (0.6, 0.6, 0.6), SCRATCH: (0.5, 0.5, 0.5)}
    said = advise(table(values, apart, floor="untrained"))
    floor = next(text for text in said.cautions if "untrained features" in text)
    assert SCRATCH in floor
    assert OWN not in floor


FLOORS = ("majority", "raw_pixels")


def with_floors(apart_from: tuple[str, ...], **more: object) -> ComparisonResults:
    """OWN above VGG throughout, and above those of the floors that are named."""
    names = (VGG, *apart_from)
    apart = {(OWN, other, i): (0.1, 0.2) for other in names for i in range(3)}
    values = dict.fromkeys((VGG, *FLOORS), (0.4, 0.4, 0.4)) | {OWN: (0.6, 0.6, 0.6)}
    whole = table(values, apart)
    return replace(whole, rows=(VGG, OWN), floors=FLOORS, **more)  # type: ignore[arg-type]


def test_the_first_sentence_says_where_the_recommended_network_stands() -> None:
    first = advise(with_floors(FLOORS)).recommendation.split(". ")[0]
    assert first.startswith(
        f"Take {OWN}, which is above the most frequent class and raw pixels at every amount of"
        " labels: "
    )
    first = advise(with_floors(("majority",))).recommendation.split(". ")[0]
    assert f"Take {OWN}, which is NOT above raw pixels at any amount of labels: " in first


def test_without_a_recommendation_the_highest_network_is_held_against_the_floors() -> None:
    values = dict.fromkeys((VGG, *FLOORS), (0.4, 0.4, 0.4)) | {OWN: (0.6, 0.6, 0.6)}
    whole = table(values, {(OWN, "majority", 2): (0.1, 0.2)})
    text = advise(replace(whole, rows=(VGG, OWN), floors=FLOORS)).recommendation
    assert text.startswith("No recommendation: ")
    assert f"{OWN}, the highest network with all 300 labels, is NOT above the most frequent" in text


def test_a_pretraining_at_chance_needs_minutes_and_not_test_images() -> None:
    chance = RunWarning(106, "chance", "the contrastive loss 12.176 is at chance (11.083)")
    known = with_floors(FLOORS, unlearned={OWN: chance}, minutes=8.0)
    said = advise(known)
    assert "has learnt nothing" in said.recommendation
    assert "give more --minutes than 8, not more test images" in said.recommendation
    assert any("12.176 is at chance" in text for text in said.cautions)
    nothing = replace(known, pairs={k: replace(p, p_holm=1.0) for k, p in known.pairs.items()})
    text = advise(nothing).text()
    assert text.startswith("No recommendation")
    assert "More test images" not in text
    assert "--pretrain_steps" in advise(replace(known, minutes=0.0)).recommendation


def test_a_lead_that_rounds_to_nothing_is_not_called_zero() -> None:
    apart = {(OWN, VGG, i): (0.0004, 0.004) for i in range(3)}
    text = advise(table({OWN: (0.6, 0.6, 0.6), VGG: (0.59, 0.59, 0.59)}, apart)).by_labels[0]
    assert "almost 0 to 0.4 points" in text
