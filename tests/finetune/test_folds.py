"""Trainings over folds and seeds: what is kept, what is said, what is compared."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest, Record
from finetune.cli.folds import main
from finetune.folds import FoldsPlan, OneRun, manifests_of, read_folds, train_folds, write_table
from finetune.folds_page import compare, fold_table, write_compare_page, write_folds_page
from finetune.report.files import write_results
from finetune.report.results import evaluate_classifier
from finetune.report.scored_split import ScoredSplit
from finetune.significance import corrected_t_test
from simclr_tf.evaluation.metrics import softmax
from tests.chromium import look_at
from tests.finetune.runs import write_encoder
from tests.images import make_folder

NAMES = ("a", "b", "c")


def write_fold(folder: Path, number: int, folds: int = 3, images: int = 60) -> Path:
    """Every image tested once, in the fold of its number."""
    records = tuple(
        Record(
            f"/data/{i:03d}.png",
            NAMES[i // folds % 3],
            "test" if i % folds == number - 1 else "train",
        )
        for i in range(images)
    )
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"fold_{number}.csv"
    Manifest(records).save(path)
    return path


def pretend(skill: float):  # type: ignore[no-untyped-def]
    """A training that writes results of some skill at once."""

    def train(run: OneRun, folder: Path) -> int:
        images = Manifest.load(run.manifest)
        splits = {}
        for name in images.splits:
            part = images.split(name)
            rng = np.random.default_rng([int(run.name[-1]), int(10 * skill)])
            labels = part.label_indices(NAMES)
            logits = skill * np.eye(3)[labels] + rng.normal(size=(len(part), 3))
            splits[name] = ScoredSplit.from_manifest(name, part, NAMES, softmax(logits))
        results = evaluate_classifier(splits, NAMES, resamples=20)
        write_results(folder, results, splits)
        images.save(folder / "manifest.csv")
        (folder / "report.html").write_text("report")
        return 0

    return train


def folds(root: Path, name: str, skill: float, number: int = 3) -> Path:
    for fold in range(1, number + 1):
        write_fold(root / "folds", fold, number)
    plan = FoldsPlan("finetune", ("--head_only",), manifests_of(root / "folds"))
    train_folds(plan, root / name, pretend(skill))
    return root / name


def test_complete_runs_are_kept_and_the_others_trained(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write_fold(tmp_path / "folds", number)
    plan = FoldsPlan("finetune", (), manifests_of(tmp_path / "folds"))
    trained = []

    def train(run: OneRun, folder: Path) -> int:
        trained.append(run.name)
        return 143 if len(trained) == 2 else pretend(1.0)(run, folder)

    output = tmp_path / "out"
    assert train_folds(plan, output, train) == 143
    with pytest.raises(UserError, match=r"fold_2, fold_3 not complete; run simclr-folds again"):
        read_folds(output)
    assert train_folds(plan, output, train) == 0
    assert trained == ["fold_1", "fold_2", "fold_2", "fold_3"]


def test_folds_that_were_moved_go_on(tmp_path: Path) -> None:
    output = folds(tmp_path / "here", "out", 1.0)
    before = read_folds(output).values("accuracy")
    (tmp_path / "here").rename(tmp_path / "there")
    output = tmp_path / "there" / "out"
    plan = FoldsPlan("finetune", ("--head_only",), manifests_of(tmp_path / "there" / "folds"))

    def train(run: OneRun, folder: Path) -> int:
        raise AssertionError("all runs are complete")

    assert train_folds(plan, output, train) == 0
    np.testing.assert_array_equal(read_folds(output).values("accuracy"), before)


def test_other_flags_or_other_folds_do_not_go_on(tmp_path: Path) -> None:
    output = folds(tmp_path, "out", 1.0)
    runs = manifests_of(tmp_path / "folds")
    with pytest.raises(UserError, match="was begun with other arguments"):
        train_folds(FoldsPlan("finetune", ("--dropout=0.5",), runs), output, pretend(1.0))
    with (tmp_path / "folds" / "fold_2.csv").open("a") as file:
        file.write("/data/new.png,a,train,,,\n")
    with pytest.raises(UserError, match="was begun with other manifest_sha256"):
        train_folds(FoldsPlan("finetune", ("--head_only",), runs), output, pretend(1.0))
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        train_folds(FoldsPlan("finetune", (), runs), mine, pretend(1.0))


def test_the_table_has_every_fold_with_mean_and_deviation(tmp_path: Path) -> None:
    output = folds(tmp_path, "out", 1.0)
    result = read_folds(output)
    assert (result.split, result.shared, result.ratio) == ("test", False, 0.5)
    write_table(result, output / "folds.csv")
    with (output / "folds.csv").open() as file:
        rows = list(csv.DictReader(file))
    values = []
    for row in rows:
        report = json.loads((output / row["run"] / "report.json").read_text())
        stated = report["splits"]["test"]["metrics"]["roc_auc"]["value"]
        assert float(row["roc_auc"]) == stated
        assert (row["images"], row["train_images"]) == ("20", "40")
        values.append(stated)
    table = fold_table(result, ("roc_auc",))
    shown = {row[0]: row[-1] for row in table.rows}
    assert shown["mean"] == f"{np.mean(values):.3f}"
    assert shown["deviation"] == f"{np.std(values, ddof=1):.3f}"


def test_folds_are_compared_fold_by_fold(tmp_path: Path) -> None:
    a, b = (read_folds(folds(tmp_path, name, s, 6)) for name, s in (("a", 3.0), ("b", 0.5)))
    found = compare(a, b)
    difference = found.t_test["accuracy"]
    gaps = a.values("accuracy") - b.values("accuracy")
    assert difference.value == pytest.approx(gaps.mean())
    # Six folds of 60 images: 10 are tested for every 50 trained on.
    expected = corrected_t_test(a.values("accuracy"), b.values("accuracy"), ratio=10 / 50)
    for name in ("value", "low", "high", "p_value"):
        assert getattr(difference, name) == pytest.approx(getattr(expected, name), rel=1e-9)
    assert difference.value > 0.3
    assert found.bootstrap == {}  # every fold has test images of its own


def test_seeds_share_their_test_images_and_are_compared_on_samples_of_them(
    tmp_path: Path,
) -> None:
    manifest = str(write_fold(tmp_path / "folds", 1))
    runs = tuple(OneRun(f"seed_{seed}", manifest, seed) for seed in range(3))
    for name, skill in (("a", 3.0), ("b", 0.5)):
        train_folds(FoldsPlan("finetune", (), runs), tmp_path / name, pretend(skill))
    a, b = read_folds(tmp_path / "a"), read_folds(tmp_path / "b")
    assert (a.shared, a.ratio) == (True, 0.0)
    found = compare(a, b)
    assert found.bootstrap["accuracy"].value == pytest.approx(found.t_test["accuracy"].value)
    assert found.bootstrap["accuracy"].low > 0


def test_folds_of_one_stack_have_test_images_of_their_own(tmp_path: Path) -> None:
    """All images lie in one file, and yet no fold shares its test images with another."""
    for number in (1, 2, 3):
        path = write_fold(tmp_path / "folds", number)
        fold = Manifest.load(path)
        Manifest(
            tuple(
                Record("/data/stack.npy", r.label, r.split, reading=f"page={i};axes=NHW")
                for i, r in enumerate(fold.records)
            )
        ).save(path)
    plan = FoldsPlan("finetune", (), manifests_of(tmp_path / "folds"))
    train_folds(plan, tmp_path / "out", pretend(1.0))
    result = read_folds(tmp_path / "out")
    assert (result.shared, result.ratio) == (False, 0.5)


def test_runs_on_folders_in_different_places_are_compared_with_a_remark(tmp_path: Path) -> None:
    one, other = (
        read_folds(folds(tmp_path, name, skill)) for name, skill in (("a", 3.0), ("b", 0.5))
    )
    assert not any("lie in different folders" in text for text in compare(one, other).remarks)
    for number in (1, 2, 3):
        for file in ("manifest.csv", "predictions.csv"):
            path = tmp_path / "b" / f"fold_{number}" / file
            path.write_text(path.read_text().replace("/data", "/copy/of/data"))
    found = compare(one, read_folds(tmp_path / "b"))
    assert found.t_test == compare(one, other).t_test
    assert any("lie in different folders" in text for text in found.remarks)


def test_single_runs_are_compared_and_other_images_refused(tmp_path: Path) -> None:
    out = folds(tmp_path, "a", 3.0), folds(tmp_path, "b", 0.5)
    one, other = (read_folds(folder / "fold_1") for folder in out)
    found = compare(one, other)
    assert found.t_test == {}
    assert found.bootstrap["accuracy"].low > 0
    with pytest.raises(UserError, match="only runs on the same images can be compared"):
        compare(one, read_folds(out[1] / "fold_2"))
    with pytest.raises(UserError, match="only the same folds can be compared"):
        compare(one, read_folds(out[1]))


@pytest.mark.slow
def test_both_pages_are_readable_at_every_width(tmp_path: Path) -> None:
    a, b = (read_folds(folds(tmp_path, name, skill)) for name, skill in (("a", 3.0), ("b", 0.5)))
    plan = FoldsPlan("finetune", ("--head_only",), manifests_of(tmp_path / "folds"))
    write_folds_page(a, plan, ["simclr-folds", "--folds_dir=folds"], tmp_path / "folds.html")
    write_compare_page(compare(a, b), ("a", "b"), ["simclr-folds"], tmp_path / "compare.html")
    for page, said in (("folds.html", "95 % interval of the mean"), ("compare.html", "Nadeau")):
        for seen in look_at(tmp_path / page, tmp_path):
            assert seen["content"] <= seen["width"]
            assert (seen["console"], seen["overlaps"]) == ([], [])
            assert said in seen["text"]


@pytest.mark.slow
def test_the_command_trains_every_fold_by_the_training_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = write_encoder(tmp_path / "encoder.keras")
    images = make_folder(tmp_path / "images", per_class=6)
    flags = [
        f"--image_dir={images}", "--folds=2", f"--output={tmp_path / 'out'}", "--",
        f"--encoder={encoder}", "--head_only", "--train_epochs=1", "--bootstrap=100",
        "--precision=float32",
    ]  # fmt: skip
    assert main(flags) == 0
    first = capsys.readouterr().out
    tested = [r for n in (1, 2)
              for r in Manifest.load(tmp_path / "out" / f"fold_{n}" / "manifest.csv").split("test")
              .files()]  # fmt: skip
    assert sorted(tested) == sorted(map(str, images.glob("*/*.png")))
    report = (tmp_path / "out" / "fold_2" / "report.html").read_text()
    assert "simclr-finetune" in report
    assert "fold_2.csv" in report
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("fold_*/report.json")}
    assert main(flags) == 0  # goes on, with nothing left to do
    assert first.endswith(capsys.readouterr().out)
    assert {p: p.stat().st_mtime_ns for p in before} == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output=o"], "give one of --folds_dir=FOLDER, --folds=K and --seeds=0,1,2"),
        (["--output=o", "--folds_dir=nowhere"], "holds no fold_1.csv"),
        (["--output=o", "--seeds=0,1"], "--seeds needs --manifest"),
        (["--output=o", "--folds_dir=f", "--", "--output=x"], "--output=x is set by simclr-folds"),
        (["--output=o", "--folds_dir=f", "--", "--hed_only"], "did you mean --head_only?"),
        (["--compare=a"], "give two folders"),
        (["--compare=a,b"], "is neither a run with a report.json nor a folder of simclr-folds"),
    ],
)
def test_impossible_wishes_end_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    arguments: list[str], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())
