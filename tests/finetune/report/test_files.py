import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as sk

from data_prep.errors import UserError
from finetune.report.files import RESULT_FILES, read_results, write_results
from finetune.report.results import evaluate_classifier
from finetune.report.scored_split import ScoredSplit
from tests.finetune.scores import scored

NAMES = ('a&b"c', "<script>alert(1)</script>", "with, comma")
HISTORY = {"epoch": np.arange(1, 4), "loss": [0.1 + 0.2, 2.0, math.nan]}


def write(folder: Path, *splits: ScoredSplit, names: tuple[str, ...] = NAMES) -> None:
    by_name = {split.split: split for split in splits}
    results = evaluate_classifier(by_name, names, resamples=20)
    write_results(folder, results, by_name, HISTORY)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_metrics_are_those_recomputed_from_the_predictions_file(tmp_path: Path) -> None:
    write(tmp_path, scored("validation"), scored("test", 83, unlabeled=5))
    table = [r for r in rows(tmp_path / "predictions.csv") if r["split"] == "test" and r["true"]]
    p = np.array([[float(r[f"score_{name}"]) for name in NAMES] for r in table])
    true = np.array([NAMES.index(r["true"]) for r in table])
    given = np.array([NAMES.index(r["predicted"]) for r in table])
    expected = {
        "accuracy": sk.accuracy_score(true, given),
        "balanced_accuracy": sk.balanced_accuracy_score(true, given),
        "macro_f1": sk.f1_score(true, given, average="macro"),
        "weighted_f1": sk.f1_score(true, given, average="weighted"),
        "cohen_kappa": sk.cohen_kappa_score(true, given),
        "matthews_correlation": sk.matthews_corrcoef(true, given),
        "roc_auc": sk.roc_auc_score(true, p, multi_class="ovr"),
        "average_precision": sk.average_precision_score(np.eye(3)[true], p),
        "log_loss": sk.log_loss(true, p),
    }
    split = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["splits"]["test"]
    found = {name: split["metrics"][name]["value"] for name in expected}
    assert found == pytest.approx(expected, abs=1e-15)
    matrix = np.array(split["confusion_matrix"])
    assert np.trace(matrix) / matrix.sum() == split["metrics"]["accuracy"]["value"]
    np.testing.assert_array_equal(matrix, sk.confusion_matrix(true, given))


def test_pages_have_a_column_and_read_back(tmp_path: Path) -> None:
    one = scored("test", 30)
    readings = tuple(f"page={page};axes=NHW" for page in range(30))
    paged = ScoredSplit("test", ("s.npy",) * 30, one.labels, one.scores, readings=readings)
    write(tmp_path, paged)
    table = rows(tmp_path / "predictions.csv")
    assert [row["page"] for row in table] == [str(page) for page in range(30)]
    assert read_results(tmp_path).splits["test"].images == paged.images
    plain = tmp_path / "plain"
    write(plain, one)
    assert "page" not in rows(plain / "predictions.csv")[0]


def test_everything_reads_back_to_the_last_digit(tmp_path: Path) -> None:
    splits = scored("validation", groups=True), scored("test", unlabeled=4)
    write(tmp_path, *splits)
    stored = read_results(tmp_path)
    for split in splits:
        back = stored.splits[split.split]
        np.testing.assert_array_equal(back.scores, split.scores)
        np.testing.assert_array_equal(back.labels, split.labels)
        assert back.paths == split.paths
        assert back.groups == split.groups
    np.testing.assert_array_equal(stored.history["loss"], HISTORY["loss"])
    assert stored.history["loss"][0] == 0.1 + 0.2
    by_name = {split.split: split for split in splits}
    again = evaluate_classifier(by_name, NAMES, resamples=20)
    assert stored.results.to_json() == again.to_json()


def test_tiles_of_one_picture_are_told_apart(tmp_path: Path) -> None:
    split = ScoredSplit(
        "test",
        ("a.png", "a.png"),
        np.array([0, 1]),
        np.eye(2),
        tiles=("0,0,8,8", "8,0,8,8"),
        readings=("page=3", "page=3"),
    )
    write(tmp_path, split, names=("no", "yes"))
    assert [r["tile"] for r in rows(tmp_path / "predictions.csv")] == ["0,0,8,8", "8,0,8,8"]
    assert "group" not in rows(tmp_path / "predictions.csv")[0]
    back = read_results(tmp_path).splits["test"]
    assert (back.groups, back.tiles, back.readings) == (None, split.tiles, split.readings)


def test_curves_are_the_points_of_scikit_learn_for_every_class(tmp_path: Path) -> None:
    test = scored("test")
    write(tmp_path, test)
    for k, name in enumerate(NAMES):
        own = [r for r in rows(tmp_path / "roc.csv") if r["class"] == name]
        fpr, tpr, threshold = sk.roc_curve(test.labels == k, test.scores[:, k])
        assert [float(r["false_positive_rate"]) for r in own] == fpr.tolist()
        assert [float(r["true_positive_rate"]) for r in own] == tpr.tolist()
        assert [float(r["threshold"]) for r in own] == threshold.tolist()
        own = [r for r in rows(tmp_path / "precision_recall.csv") if r["class"] == name]
        precision, recall, _ = sk.precision_recall_curve(test.labels == k, test.scores[:, k])
        assert [float(r["precision"]) for r in own] == precision.tolist()
        assert [float(r["recall"]) for r in own] == recall.tolist()
    bins = rows(tmp_path / "calibration.csv")
    assert sum(int(r["images"]) for r in bins) == 60


def test_results_are_not_replaced_unless_asked(tmp_path: Path) -> None:
    write(tmp_path, scored("test"))
    before = {name: (tmp_path / name).read_bytes() for name in RESULT_FILES}
    with pytest.raises(UserError, match=r"report\.json: is there already"):
        write(tmp_path, scored("test", seed=5))
    assert {name: (tmp_path / name).read_bytes() for name in RESULT_FILES} == before
    splits = {"test": scored("test", seed=5)}
    results = evaluate_classifier(splits, NAMES, resamples=20)
    write_results(tmp_path, results, splits, overwrite=True)
    assert (tmp_path / "report.json").read_bytes() != before["report.json"]
    assert not (tmp_path / "history.csv").exists()


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one", scored("test"))
    write(tmp_path / "two", scored("test"))
    for name in RESULT_FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no results"):
        read_results(tmp_path)
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        read_results(tmp_path)
