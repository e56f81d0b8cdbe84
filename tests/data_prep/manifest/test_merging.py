from collections import Counter

import pytest

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from data_prep.manifest.splits import merge_classes, parse_merges

IMAGES = Manifest(
    tuple(
        Record(f"{i}.png", label) for i, label in enumerate(["none", "crack", "bent", "crack", ""])
    )
)


def labels(manifest: Manifest) -> list[str]:
    return [record.label for record in manifest.records]


def test_merged_classes_share_a_name_and_the_others_keep_theirs() -> None:
    merged = merge_classes(IMAGES, parse_merges(["disturbance:crack, bent"]))
    assert labels(merged) == ["none", "disturbance", "disturbance", "disturbance", ""]
    assert [r.path for r in merged.records] == [r.path for r in IMAGES.records]


def test_several_merges_and_a_name_that_stays() -> None:
    merges = parse_merges(["crack:crack,bent", "intact:none"])
    assert Counter(labels(merge_classes(IMAGES, merges))) == {"crack": 3, "intact": 1, "": 1}
    swapped = merge_classes(IMAGES, {"none": ["crack"], "crack": ["none"]})
    assert labels(swapped) == ["crack", "none", "bent", "none", ""]


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["crack"], "must be NEW:CLASS"),
        (["a:"], "must be NEW:CLASS"),
        (["a:crak"], "no class 'crak' .*did you mean 'crack'"),
        (["a:crack", "b:crack"], "'crack' goes into 'a' and 'b'"),
        (["none:crack"], "there is a class 'none' already; list it"),
    ],
)
def test_merges_that_cannot_be(texts: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        merge_classes(IMAGES, parse_merges(texts))
