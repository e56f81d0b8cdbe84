import pytest

from data_prep.errors import UserError
from finetune.compare.strategies import METHODS, parse_strategies, preset_rows, with_floors
from simclr_tf.methods.registry import METHODS as REGISTERED


def names(*strategies: str, heads: tuple[str, ...] = ("probe", "full")) -> list[str]:
    return [row.name for row in parse_strategies(strategies, heads)]


def test_every_method_of_the_registry_is_a_strategy_with_two_heads() -> None:
    assert set(METHODS) == set(REGISTERED)
    for method in REGISTERED:
        assert names(method) == [f"{method} (linear probe)", f"{method} (fine-tuned)"]


def test_scratch_and_untrained_have_one_head_each_and_one_encoder() -> None:
    rows = parse_strategies(["scratch", "untrained"], ("probe",))
    assert [row.name for row in rows] == ["scratch", "untrained"]
    assert [row.head for row in rows] == ["full", "probe"]
    assert rows[0].encoder == rows[1].encoder
    assert (rows[0].factor, rows[1].factor) == (3, 1)


def test_a_head_can_be_asked_for_and_nothing_comes_twice() -> None:
    assert names("simclr:full", "simclr", "simclr") == [
        "simclr (fine-tuned)",
        "simclr (linear probe)",
    ]
    assert names("moco", heads=("probe",)) == ["moco (linear probe)"]


def test_longer_names_say_what_is_trained_on_what() -> None:
    (row,) = parse_strategies(["imagenet_simclr+byol@0.5+distill"])
    encoder = row.encoder
    assert (encoder.network, encoder.method, encoder.share) == ("imagenet_simclr", "byol", 0.5)
    assert row.distill
    assert row.name == "imagenet_simclr+byol@0.5 (distilled)"
    assert row.slug == "imagenet_simclr-byol_0.5-distill".replace("_0.5", "-0.5")


def test_every_comparison_has_the_floors_once_and_at_the_end() -> None:
    rows = with_floors(parse_strategies(["raw_pixels", "simclr:probe"]))
    assert [row.name for row in rows] == ["simclr (linear probe)", "majority", "raw_pixels"]
    assert [row.encoder.is_floor for row in rows] == [False, True, True]
    assert [row.slug for row in rows[1:]] == ["majority-probe", "raw_pixels-probe"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("raw_pixels:full", "does not go together|no features to fine-tune"),
        ("simcrl", "did you mean simclr"),
        ("simclr+moco", "is none of"),
        ("simclr@2", "a share of the images"),
        ("simclr:half", "probe or full"),
        ("scratch:probe", "does not go together"),
        ("untrained+distill", "has no features to fine-tune"),
        ("imagenet_supervised+distill", "does not go together"),
    ],
)
def test_other_names_are_refused_with_what_would_be_right(name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_strategies([name])


def test_the_six_experiments_are_named_rows_with_a_head_on_frozen_features() -> None:
    rows = preset_rows("six_experiments")
    titles = " ".join(row.name for row in rows)
    assert all(str(number) in titles for number in range(1, 7))
    assert {row.head for row in rows} == {"probe"}
    assert [row.encoder.name for row in rows] == [
        "imagenet_simclr", "imagenet_simclr+simclr", "simclr", "simclr@0.5", "imagenet_supervised",
    ]  # fmt: skip
    assert len({row.slug for row in rows}) == len(rows)
