"""Splits of the real sets that have something to keep together."""

import hashlib
from collections import Counter
from pathlib import Path

from data_prep.manifest.groups import keep_together
from data_prep.manifest.scan import scan_folder
from data_prep.manifest.splits import stratified_split
from tests.data_sets import data_set


def test_blood_cells_of_one_field_stay_together_at_exact_numbers() -> None:
    manifest, kept = keep_together(
        scan_folder(data_set("blood_cells")), group_by="^.*/(.*)_obj", hashes=False
    )
    assert kept.groups == 312
    split = stratified_split(manifest, {"train": 0.6, "validation": 0.3, "test": 0.1}, 0)
    homes = {(Path(r.path).name.split("_obj")[0], r.split) for r in split.records}
    assert len(homes) == 312
    count = Counter((r.label, r.split) for r in split.records)
    for label in ("platelets", "rbc", "wbc"):
        assert [count[label, name] for name in split.splits] == [120, 60, 20]


def test_identical_lattices_never_cross() -> None:
    manifest, kept = keep_together(scan_folder(data_set("stem_2d_lattices")))
    assert kept.identical == 3
    for seed in range(5):
        split = stratified_split(manifest, {"train": 0.7, "test": 0.3}, seed)
        assert [len(split.split(name)) for name in ("train", "test")] == [189, 81]
        homes = {
            (hashlib.sha256(Path(file).read_bytes()).hexdigest(), record.split)
            for record, file in zip(split.records, split.files(), strict=True)
        }
        assert len(homes) == 267
