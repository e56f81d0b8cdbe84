from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.manifest.manifest import Manifest, Record
from finetune.report.page import mistake_pictures, most_confident_mistakes
from finetune.report.results import Decision
from finetune.report.scored_split import ScoredSplit

NAMES = ("no", "yes")


def split() -> ScoredSplit:
    positive = np.array([0.9, 0.2, 0.6, 0.35, 0.99, 0.7])
    labels = np.array([0, 1, 0, 0, -1, 1])
    scores = np.stack([1 - positive, positive], axis=1)
    return ScoredSplit("test", tuple(f"{i}.png" for i in range(6)), labels, scores)


def test_mistakes_are_sorted_by_the_score_of_the_wrong_class() -> None:
    found = most_confident_mistakes(split(), Decision(), 10)
    assert found.tolist() == [0, 1, 2]
    assert most_confident_mistakes(split(), Decision(), 2).tolist() == [0, 1]


def test_the_decision_threshold_says_what_a_mistake_is() -> None:
    assert most_confident_mistakes(split(), Decision(0.3, 1), 10).tolist() == [0, 1, 2, 3]
    assert most_confident_mistakes(split(), Decision(0.95, 1), 10).tolist() == [1, 5]


def test_pictures_say_what_was_taken_for_what_and_survive_damage(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 9, np.uint8)).save(tmp_path / "0.png")
    (tmp_path / "1.png").write_bytes(b"")
    manifest = Manifest(tuple(Record(f"{i}.png") for i in range(6)), str(tmp_path))
    pictures = mistake_pictures(split(), Decision(), NAMES, manifest)
    assert pictures[0].caption == "no (0.100)\ntaken for yes (0.900)\n0.png"
    assert pictures[0].alt == "0.png"
    assert "(cannot be shown: " in pictures[1].caption
    assert str(tmp_path) not in pictures[1].caption
    assert len(pictures) == 3
    assert len({picture.data for picture in pictures}) == 2


def test_pages_of_one_stack_are_told_apart(tmp_path: Path) -> None:
    stack = np.arange(6 * 64, dtype=np.uint8).reshape(6, 8, 8)
    np.save(tmp_path / "s.npy", stack)
    one = split()
    readings = tuple(f"page={page};axes=NHW" for page in range(6))
    paged = ScoredSplit("test", ("s.npy",) * 6, one.labels, one.scores, readings=readings)
    manifest = Manifest(tuple(Record("s.npy", reading=text) for text in readings), str(tmp_path))
    pictures = mistake_pictures(paged, Decision(), NAMES, manifest)
    captions = [picture.caption.splitlines()[-1] for picture in pictures]
    assert captions == ["s.npy, page 0", "s.npy, page 1", "s.npy, page 2"]
    assert len({picture.data for picture in pictures}) == 3


def test_without_a_manifest_paths_hold_as_they_are(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 9, np.uint8)).save(tmp_path / "0.png")
    one = ScoredSplit("test", (str(tmp_path / "0.png"),), np.array([0]), np.array([[0.1, 0.9]]))
    (picture,) = mistake_pictures(one, Decision(), NAMES, None)
    assert "cannot be shown" not in picture.caption
