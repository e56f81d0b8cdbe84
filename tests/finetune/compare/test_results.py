import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from finetune.compare.chain import Cell, cell_file, save_cell
from finetune.compare.images import Division, LabelSet
from finetune.compare.results import collect, holm, write_tables
from finetune.compare.strategies import StrategyRow, parse_strategies

CLASSES = ("a", "b", "c")


def made(folder: Path, skills: dict[str, float]) -> tuple[tuple[StrategyRow, ...], Division]:
    """Cells of made scores: the true class gets so much more than the others."""
    records = [Record(f"{k}_{i}.png", k, "test") for k in CLASSES for i in range(30)]
    records += [Record(f"{k}_x{i}.png", k, "train") for k in CLASSES for i in range(10)]
    sets = [
        LabelSet(fold, 0, fraction, np.arange(90, 90 + round(30 * fraction)))
        for fold in (1, 2, 3)
        for fraction in (0.5, 1.0)
    ]
    images = Manifest(tuple(records), str(folder))
    division = Division(images, images.split("train"), tuple(sets))
    rows = parse_strategies(list(skills))
    truth = np.repeat(np.arange(3), 30)
    for row, drawn in itertools.product(rows, sets):
        strategy = row.name.split(" ")[0]
        # The draws are the same for all rows: they differ by their skill alone.
        rng = np.random.default_rng([drawn.fold, int(2 * drawn.fraction)])
        skill = skills[f"{strategy}:{row.head}"]
        logits = rng.normal(size=(90, 3)) + skill * np.eye(3)[truth]
        scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        cell = Cell(row.slug, drawn.fold, 0, drawn.fraction, len(drawn.rows), 5, 2.0, 40, scores)
        save_cell(folder, row, drawn, cell)
    return rows, division


@pytest.mark.slow
def test_the_table_has_means_intervals_and_paired_differences(tmp_path: Path) -> None:
    rows, division = made(tmp_path, {"simclr:probe": 3.0, "moco:probe": 0.7, "byol:probe": 0.6})
    results = collect(rows, division, tmp_path, "accuracy", 0)
    good, bad, worse = results.rows
    assert results.labels == {0.5: 15, 1.0: 30}
    assert (results.runs, results.test_images) == (3, 90)
    write_tables(results, rows, division, tmp_path)
    with open(tmp_path / "results.csv") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * 2 * 3
    for name, fraction in itertools.product(results.rows, results.fractions):
        own = [float(line["accuracy"]) for line in lines
               if line["strategy"] == name and float(line["fraction"]) == fraction]  # fmt: skip
        mean = results.value(name, fraction)
        assert mean.value == pytest.approx(np.mean(own))
        assert mean.low < mean.value < mean.high
    pair = results.pair(good, bad, 1.0)
    assert pair.told_apart
    assert pair.difference.value == pytest.approx(
        results.value(good, 1.0).value - results.value(bad, 1.0).value
    )
    turned = results.pair(bad, good, 1.0)
    assert turned.difference.low == -pair.difference.high
    assert not results.pair(bad, worse, 1.0).told_apart
    assert pair.t_test is not None
    assert pair.t_test.value == pytest.approx(pair.difference.value)
    assert results.costs[good].fits == 12.0
    assert results.costs[good].images_labeled == 240


def test_a_fit_that_is_missing_is_counted(tmp_path: Path) -> None:
    rows, division = made(tmp_path, {"simclr:probe": 1.0, "moco:full": 1.0})
    cell_file(tmp_path, rows[1], division.label_sets[2]).unlink()
    with pytest.raises(UserError, match="1 fits have not been done"):
        collect(rows, division, tmp_path, "accuracy", 0)


def test_holm_corrects_as_written_out_by_hand() -> None:
    p = [0.01, 0.04, 0.03, float("nan"), 0.5]
    # Sorted: 0.01 * 5, 0.03 * 4, 0.04 * 3, 0.5 * 2, 1 * 1, never falling, at most 1.
    np.testing.assert_allclose(holm(p), [0.05, 0.12, 0.12, 1.0, 1.0])
    assert holm([0.02]) == [0.02]
