"""The notebooks on lattices and lenses, executed small."""

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from tests.notebooks.executed import SMALL_NETWORK, TINY, execute
from tests.tiny import NAME

pytestmark = [pytest.mark.notebook, pytest.mark.slow]


def test_lattices_go_through_both_pipelines(tmp_path: Path) -> None:
    settings = {
        "IMAGES_PER_CLASS": "12", "GENERATOR_EPOCHS": "2",
        "LATTICES": "cubic_bcc,hexagon,tetragonal_c", "NETWORK": "mobilenet",
    }  # fmt: skip
    done = execute("b_stem_lattices", tmp_path, **TINY, **settings)
    for name, folder in (("VGG16", "vgg16"), ("mobilenet", "mobilenet")):
        rows = [row for row in done.rows(f"{folder}/predictions.csv") if row["split"] == "test"]
        true, said = ([row[column] for row in rows] for column in ("true", "predicted"))
        printed = done.number(rf"{name}: test balanced accuracy (\S+)")
        assert printed == pytest.approx(balanced_accuracy_score(true, said), abs=5e-4)
        verdict = json.loads((done.folder / folder / "floors.json").read_text())["verdict"]
        assert verdict["sentence"] in done.text
        if name == "VGG16":
            one_pass = done.number(r"one pass: balanced accuracy (\S+)")
            assert one_pass == pytest.approx(printed, abs=5e-4)
    flags = json.loads((done.folder / "mobilenet" / "flags.json").read_text())
    assert flags["pipeline"] == "image_data_generator"
    assert len(list((done.folder / "vgg16").glob("feature_maps_*.png"))) == 2
    assert done.pictures == 5


def test_lenses_are_read_with_their_gaps_and_scored_by_probabilities(tmp_path: Path) -> None:
    settings = {
        "IMAGES_PER_CLASS": "12", "BLOCKS": "2", "BASELINE": NAME,
        "SIMCLR_TF_EXTENSIONS": SMALL_NETWORK["SIMCLR_TF_EXTENSIONS"],
    }  # fmt: skip
    done = execute("c_lenses", tmp_path, **TINY, **settings)
    arrays = [np.load(path) for path in (done.folder / "images").rglob("*.npy")]
    assert any(np.isnan(values).any() for values in arrays), "there are gaps to fill"
    assert all("nan=min" in row["reading"] for row in done.rows("split.csv"))
    kept = [row["message"] for row in done.rows("too_short/warnings.csv")]
    assert any("only 20 updates in all" in message for message in kept)
    assert all(message in done.text for message in kept)
    for name, folder in ((NAME, "resnet"), ("hybrid", "transformer")):
        kept = done.rows(f"{folder}-classifier/predictions.csv")
        rows = [row for row in kept if row["split"] == "test"]
        classes = sorted({row["true"] for row in rows})
        scores = np.array([[float(row[f"score_{name}"]) for name in classes] for row in rows])
        area = roc_auc_score([row["true"] for row in rows], scores, multi_class="ovr")
        printed = done.number(rf"{name}: macro ROC AUC (\S+)")
        assert printed == pytest.approx(area, abs=5e-4)
        verdict = json.loads((done.folder / f"{folder}-classifier" / "floors.json").read_text())
        assert verdict["verdict"]["sentence"] in done.text
        assert done.number(rf"{name}: from scores (\S+),") == pytest.approx(area, abs=5e-4)
    assert done.pictures == 4
