"""The notebooks on diffraction images and depth maps, executed small."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.notebooks.executed import SMALL_NETWORK, TINY, Executed, execute

pytestmark = [pytest.mark.notebook, pytest.mark.slow]


def test_diffraction_images_are_compared_embedded_and_labeled(tmp_path: Path) -> None:
    settings = {
        "METHODS": "simclr,byol", "UNTRAINED": "false", "IMAGES_PER_CLASS": "10",
        "PATTERNS": "spots,streaks,rings", "QUEUE": "8",
    }  # fmt: skip
    done = execute("d_rheed", tmp_path, **TINY, **SMALL_NETWORK, **settings)
    runs = done.rows("sweep/sweep.csv")
    assert [run["method"] for run in runs] == ["simclr", "byol"]
    for run in runs:
        printed = done.number(rf"{run['method']} +10-NN accuracy (\S+)")
        assert printed == pytest.approx(float(run["knn_accuracy"]), abs=5e-4)
    first = json.loads(
        (done.folder / "sweep" / "runs" / runs[0]["run"] / "result.json").read_text()
    )
    raw_pixels = next(f for f in first["floors"]["floors"] if f["name"] == "raw_pixels")
    printed = done.number(r"logistic regression on raw pixels: (\S+) \(")
    assert printed == pytest.approx(raw_pixels["metrics"]["accuracy"]["value"], abs=5e-4)
    features = np.load(done.folder / "embedding" / "features.npy")
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    first = [r for r in done.rows("embedding/neighbours.csv") if r["rank"] == "1"]
    cosine = features @ features.T - 2 * np.eye(len(features))
    found = np.array([float(row["similarity"]) for row in first])
    np.testing.assert_allclose(found, cosine.max(axis=1), atol=1e-5)
    images = done.rows("embedding/embedding.csv")
    labeled = [row for row in images if row["expert"]]
    assert len(labeled) == 12
    assert all(row["expert"] == row["label"] for row in labeled)
    assert f"12 of {len(images)} images now have an expert's label" in done.text
    assert (done.folder / "embedding" / "explore.html").stat().st_size > 100_000
    assert done.pictures == 4


def depth_error(done: Executed) -> float:
    """Root mean squared error of the test maps in nm, from the files alone."""
    errors = []
    holes = done.folder / "holes"
    made = {path.stem: path for path in (done.folder / "depth_test" / "float").rglob("*.npy")}
    for row in done.rows("split.csv"):
        if row["split"] == "test":
            target = holes / "sim_depth" / row["case"] / Path(row["target"]).name
            true = np.asarray(Image.open(target)).astype(np.float64) * 0.01
            errors.append(np.load(made[Path(row["path"]).stem]) - true)
    return float(np.sqrt((np.array(errors) ** 2).mean()))


def test_depth_maps_are_routed_and_measured_in_nanometres(tmp_path: Path) -> None:
    settings = {
        "MAPS_PER_CASE": "8", "CASES": "case_1,case_2", "DEPTH_EPOCHS": "2", "FILTERS": "4,8",
        "ROUTER_STEPS": "10",
    }  # fmt: skip
    done = execute("e_depth", tmp_path, **TINY, **SMALL_NETWORK, **settings)
    assert "16 depth maps, 32 images; on two sides of the split: 0" in done.text
    assert done.number(r"all +RMSE (\S+) nm") == pytest.approx(depth_error(done), abs=0.011)
    tested = json.loads((done.folder / "depth_test" / "metrics.json").read_text())
    floor = tested["splits"]["test"]["all"]["constant_rmse"]
    assert done.number(r"all .* best constant ([^,\s]+)") == pytest.approx(floor, abs=6e-3)
    rows = done.rows("depth_test/predictions.csv")
    share = np.mean([row["case"] == row["routed_case"] for row in rows])
    assert done.number(r"sent to the network of their case: (\S+) \(") == pytest.approx(
        share, abs=5e-4
    )
    real = json.loads((done.folder / "depth_real" / "metrics.json").read_text())["sites"]
    gaps = [site["predicted"] - site["known"] for site in real["sites"]]
    assert done.number(r"site means, bias: (\S+) nm") == pytest.approx(np.mean(gaps), abs=0.011)
    assert done.pictures == 4
