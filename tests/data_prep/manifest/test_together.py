import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.manifest.groups import keep_together, torn_units, unit_numbers
from data_prep.manifest.manifest import Manifest, Record
from tests.data_prep.cli.test_split_command import texture
from tests.data_prep.image_files import write


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Two fields of two pictures; copies of the first: brighter, turned, byte for byte."""
    root = tmp_path_factory.mktemp("set")
    pictures = {
        f"{field}_{i}.png": texture(2 * j + i) for j, field in enumerate("fg") for i in (0, 1)
    }
    first = pictures["f_0.png"]
    pictures["x_bright.png"] = (first * 0.9 + 20).astype(np.uint8)
    pictures["y_turned.png"] = np.ascontiguousarray(np.rot90(first))
    pictures["z_same.png"] = first
    for name, picture in pictures.items():
        write(root / name, picture)
    return Manifest(tuple(Record(name) for name in pictures), str(root))


def units(manifest: Manifest) -> set[frozenset[str]]:
    numbers = unit_numbers(manifest)
    return {
        frozenset(r.path[:3] for r, n in zip(manifest.records, numbers, strict=True) if n == number)
        for number in numbers
    }


def singles(*names: str) -> set[frozenset[str]]:
    return {frozenset([name]) for name in names}


def test_without_any_request_only_links_stay_together(images: Manifest) -> None:
    joined, kept = keep_together(images, hashes=False)
    assert joined == images
    assert (kept.units, kept.largest, kept.files, kept.groups, kept.identical) == (7, 1, 7, 0, 0)
    assert str(kept) == "kept together: nothing; 7 files in 7 units, the largest of 1"


def test_hashes_are_those_of_the_bytes_and_join_equal_files(images: Manifest) -> None:
    joined, kept = keep_together(images)
    for record, file in zip(joined.records, joined.files(), strict=True):
        assert record.sha256 == hashlib.sha256(Path(file).read_bytes()).hexdigest()
    assert units(joined) == {frozenset(["f_0", "z_s"]), *singles("f_1", "g_0", "g_1", "x_b", "y_t")}
    assert kept.identical == 1


def test_everything_at_once_is_one_unit_of_all_that_belongs_together(images: Manifest) -> None:
    joined, kept = keep_together(images, group_by="/([fg])?", near_duplicates="mirrored")
    assert units(joined) == {
        frozenset(["f_0", "f_1", "x_b", "y_t", "z_s"]),
        frozenset(["g_0", "g_1"]),
    }
    assert {record.group for record in joined.records} == {"f", "g"}
    assert (kept.groups, kept.identical, kept.units, kept.largest) == (2, 1, 2, 5)
    # Of f_0, bright, turned and same every two look alike.
    assert len(kept.near_pairs) == kept.near_across == 6
    assert "2 groups, 1 file with the bytes of another, 6 near-duplicate pairs (6 not of" in str(
        kept
    )
    assert kept.chained


def test_upright_copies_alone_on_request(images: Manifest) -> None:
    joined, _ = keep_together(images, hashes=False, near_duplicates="together")
    assert units(joined) == {
        frozenset(["f_0", "x_b", "z_s"]),
        *singles("f_1", "g_0", "g_1", "y_t"),
    }
    exact, _ = keep_together(images, hashes=False, near_duplicates="together", near_distance=0)
    assert len(unit_numbers(exact)) == 7


def test_files_that_are_others_than_when_they_were_listed_are_refused(images: Manifest) -> None:
    hashed, _ = keep_together(images)
    again, _ = keep_together(hashed)
    assert again == hashed
    changed = hashed.subset(replace(r, sha256="0" * 64) for r in hashed.records)
    with pytest.raises(UserError, match="7 files are not what the manifest was made of"):
        keep_together(changed)


def test_units_in_two_splits_are_counted() -> None:
    records = [Record(f"{i}.png", split="ab"[i % 2], group="gh"[i // 4]) for i in range(8)]
    records += [Record("8.png", split="a"), Record("9.png", split="b", group="k")]
    assert torn_units(Manifest(tuple(records))) == 2
