"""The page of predicted depth maps, and the figures on it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_prep.manifest.manifest import Manifest
from finetune.depth import predict
from finetune.depth.figures import Example
from finetune.depth.page import summary
from finetune.depth.predict import DepthRequest, open_pipeline, predict_folder
from finetune.depth.results import DepthResults
from finetune.depth.settings import DepthPredictConfig
from tests.chromium import look_at
from tests.finetune.depth.fakes import FORMULAS, install, write_holes, write_models


def predicted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, formulas: dict[str, tuple[float, float]]
) -> tuple[DepthResults, Manifest, Path]:
    """Numbers and page of a model whose training has left a history."""
    install(monkeypatch)
    manifest = write_holes(folder / "holes", split="test")
    model = write_models(folder / "model", formulas)
    (model / "history.csv").write_text("epoch,train/loss,validation/rmse\n1,3,9\n2,2,7\n")
    values = {"model": str(model), "output": str(folder / "out"), "bootstrap": 50}
    request = DepthRequest.of(DepthPredictConfig.from_values(values), ("cmd", "--a b"))
    means = {record.group: 150.0 + i for i, record in enumerate(manifest.records)}
    results = predict_folder(request, open_pipeline(request), manifest, means)
    assert results is not None
    return results, manifest, folder / "out" / "report.html"


@pytest.mark.slow
def test_in_a_browser_all_figures_show_and_no_text_overlaps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, _, page = predicted(tmp_path, monkeypatch, FORMULAS)
    for seen in look_at(page, tmp_path):
        assert seen["console"] == []
        assert seen["content"] <= seen["width"]
        # Sites; distribution and profile of two cases; six worst images; two learning curves.
        assert len(seen["images"]) == 1 + 2 + 2 + 6 + 2
        assert all(dots > 0 and shown > 60 and alt for dots, shown, alt in seen["images"])
        assert seen["overlaps"] == []
        for title in ("Errors", "Mean depth of the sites", "Worst images", "Learning curves"):
            assert title in seen["text"]


def test_a_model_that_a_single_map_beats_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "write_depth_page", lambda *_: None)
    results, manifest, _ = predicted(tmp_path, monkeypatch, {"": (300.0, 0.0)})
    told = summary(results, len(manifest))
    measured = results.splits["test"][""]
    assert measured.rmse.value > measured.map_rmse
    assert f"RMSE {measured.rmse:.2f} nm" in told[1]
    assert "no better than one map for all images" in told[0]
    assert any("no better than one depth for all sites" in sentence for sentence in told)
    bare = replace(results, splits={}, sites=None)
    assert bare.empty
    assert summary(bare, 3) == ["3 images; nothing is known to measure them by."]


def test_the_deepest_row_is_that_of_the_true_map_and_not_of_a_single_noisy_pixel() -> None:
    true = np.full((20, 10), 100.0)
    true[11:14, 3:7] = 150
    true[2, 2] = 160
    assert Example("x", true, np.zeros_like(true), true).deepest_row == 12
    assert Example("x", true, true.T.copy()).deepest_row in range(3, 7)
