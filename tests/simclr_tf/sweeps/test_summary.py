"""Means over seeds, intervals and differences against plain loops; and the tables on disk."""

import csv
from pathlib import Path

import numpy as np
import pytest

from simclr_tf.sweeps.results import (
    by_setting,
    difference,
    floor_of,
    is_clear,
    sorted_settings,
    write_tables,
)
from tests.simclr_tf.sweeps.made_up import finished


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_seeds_of_a_setting_are_taken_together() -> None:
    runs = [finished({"method": m}, 0.3 + 0.1 * s + (m == "byol") * 0.2, seed=s)
            for m in ("simclr", "byol") for s in range(3)]  # fmt: skip
    settings = by_setting(runs)
    assert [one.name for one in settings] == ["method=simclr", "method=byol"]
    values = [run.score("knn_accuracy") for run in runs[:3]]
    assert settings[0].mean("knn_accuracy") == pytest.approx(np.mean(values))
    assert settings[0].spread("knn_accuracy") == pytest.approx(np.std(values, ddof=1))
    assert settings[0].spread("loss") == pytest.approx(1)
    assert settings[0].knn is not None
    assert settings[0].knn.value == pytest.approx(np.mean(values))
    # Images and seeds are resampled: wider than the images of one seed would be.
    low, high = (runs[0].score(f"knn_accuracy_{end}") for end in ("low", "high"))
    assert low is not None
    assert high is not None
    assert settings[0].knn.high - settings[0].knn.low > 0.9 * (high - low)
    assert sorted_settings(settings, "knn_accuracy")[0].name == "method=byol"


def test_settings_are_named_by_all_runs_though_some_are_not_finished() -> None:
    runs = [finished({"method": m, "queue_size": 600}, 0.5) for m in ("moco", "byol")]
    planned = [run.run for run in runs]
    assert [one.name for one in by_setting(runs[:1], planned)] == ["method=moco"]
    assert [one.name for one in by_setting(runs[:1])] == ["method=moco, queue_size=600"]


def test_a_setting_is_called_by_no_more_flags_than_tell_it_apart() -> None:
    rows = [{"method": "moco", "queue_size": 600}, {"method": "byol", "temperature": 0.2}]
    names = [one.name for one in by_setting([finished(row, 0.5) for row in rows])]
    assert names == ["method=moco", "method=byol"]
    rows.append({"method": "moco", "queue_size": 700})
    names = [one.name for one in by_setting([finished(row, 0.5) for row in rows])]
    assert names == ["method=moco, queue_size=600", "method=byol", "method=moco, queue_size=700"]


def test_one_seed_has_the_interval_of_its_result() -> None:
    (one,) = by_setting([finished({"method": "byol"}, 0.5)])
    assert one.knn is not None
    assert one.knn.low == one.runs[0].score("knn_accuracy_low")
    assert np.isnan(one.spread("knn_accuracy"))


def test_each_run_is_compared_with_the_floor_of_its_network_and_seed() -> None:
    runs = [finished({"width_multiplier": w}, 0.2 * w + 0.1 * s, untrained=True, seed=s)
            for w in (1.0, 2.0) for s in (0, 1)]  # fmt: skip
    runs += [finished({"width_multiplier": w, "method": "byol"}, 0.8, seed=s)
             for w in (1.0, 2.0) for s in (0, 1)]  # fmt: skip
    assert [floor_of(run.run, runs) for run in runs[4:]] == runs[:4]
    settings = {one.name: one for one in by_setting(runs)}
    gain = settings["width_multiplier=2.0"].gain
    assert gain is not None
    assert gain.value == pytest.approx(0.8 - np.mean([0.4, 0.5]))
    assert is_clear(gain)
    assert settings["untrained, width_multiplier=2.0"].gain is None


def test_a_difference_is_taken_image_by_image() -> None:
    """The same images right in both but for a few: clear, where intervals of each overlap."""
    better = np.arange(60) < 40
    worse = np.arange(60) < 32
    a, b = by_setting([finished({"method": "moco"}, better), finished({"method": "byol"}, worse)])
    assert a.knn is not None
    assert b.knn is not None
    assert a.knn.low < b.knn.high
    found = difference(a, b)
    assert found is not None
    assert found.value == pytest.approx(8 / 60)
    assert is_clear(found)
    assert not is_clear(difference(a, a))


def test_settings_with_other_seeds_are_compared_by_their_means() -> None:
    runs = [finished({"method": "moco"}, 0.5, seed=s) for s in (0, 1)]
    a, b = by_setting([*runs, finished({"method": "byol"}, 0.25, seed=5)])
    found = difference(a, b)
    assert found is not None
    assert found.value == pytest.approx(0.25)


def test_tables_have_all_digits_and_say_what_is_not_finished(tmp_path: Path) -> None:
    runs = [finished({"method": m}, 1 / 3, seed=s) for m in ("simclr", "byol") for s in (0, 1)]
    planned = [run.run for run in runs]
    write_tables(planned, runs[:3], by_setting(runs[:3]), tmp_path)
    rows = read(tmp_path / "sweep.csv")
    assert [row["run"] for row in rows] == [run.name for run in planned]
    assert [row["finished"] for row in rows] == ["true", "true", "true", "false"]
    for row, run in zip(rows, runs[:3], strict=False):
        assert float(row["knn_accuracy_low"]) == run.score("knn_accuracy_low")
        assert float(row["effective_rank"]) == run.effective_rank
        assert (row["method"], row["seed"]) == (run.run.row["method"], run.run.row["seed"])
    assert rows[3]["knn_accuracy"] == rows[3]["loss"] == ""
    settings = read(tmp_path / "settings.csv")
    assert [(row["setting"], row["seeds"]) for row in settings] == [
        ("method=simclr", "2"), ("method=byol", "1"),
    ]  # fmt: skip
    assert float(settings[0]["loss_sd"]) == pytest.approx(np.std([1.5, 2.5], ddof=1))
    assert settings[1]["loss_sd"] == ""


def test_without_labels_there_are_no_accuracies(tmp_path: Path) -> None:
    runs = [finished({"method": "byol"}, None, seed=s) for s in (0, 1)]
    (one,) = by_setting(runs)
    assert one.knn is None
    assert one.gain is None
    write_tables([run.run for run in runs], runs, [one], tmp_path)
    assert read(tmp_path / "sweep.csv")[0]["knn_accuracy"] == ""
    assert read(tmp_path / "settings.csv")[0]["knn_accuracy_mean"] == ""
