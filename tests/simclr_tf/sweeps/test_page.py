"""The page of a sweep: what it claims, and how it looks in a browser."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from simclr_tf.sweeps.page import findings, write_sweep_page
from simclr_tf.sweeps.results import by_setting
from simclr_tf.training.run_warnings import ALARM, RunWarning
from tests.chromium import look_at
from tests.simclr_tf.sweeps.made_up import LABELS, finished

NAMES = ("checks", "dots", "stripes")


def settings_of(**shares: float) -> list:
    runs = [finished({}, 0.35, untrained=True, seed=s) for s in (0, 1)]
    runs += [finished({"method": m}, p, seed=s) for m, p in shares.items() for s in (0, 1)]
    return by_setting(runs)


def test_no_difference_is_claimed_that_the_images_do_not_carry() -> None:
    text = " ".join(findings(settings_of(simclr=0.5, byol=0.45), []))
    assert "Highest k-NN accuracy: method=simclr, 0.500" in text
    assert "do not tell it apart from method=byol" in text
    assert "flattered" in text
    text = " ".join(findings(settings_of(simclr=0.95, byol=0.4), []))
    assert "above every other setting" in text
    assert "Above the untrained network: method=simclr, +60.0" in text
    assert "Not told apart from the untrained network: method=byol, +5.0" in text


def test_one_seed_and_failures_are_said() -> None:
    runs = by_setting([finished({"method": m}, 0.5) for m in ("moco", "byol")])
    text = " ".join(findings(runs, ["method=swav,seed=0"]))
    assert "what another seed would give is not known" in text
    assert "Not finished, and not below: method=swav,seed=0." in text
    unlabeled = by_setting([finished({"method": "moco"}, None)])
    assert "no accuracy can be given" in " ".join(findings(unlabeled, []))


def test_what_runs_have_warned_of_is_on_the_page(tmp_path: Path) -> None:
    said = RunWarning(60, "knn", "k-NN accuracy on validation is not above that before training")
    warned = replace(finished({"method": "moco"}, 0.5), warnings=(said,))
    runs = by_setting([warned, finished({"method": "byol"}, 0.5)])
    path = tmp_path / "index.html"
    write_sweep_page(runs, [], NAMES, ["simclr-sweep"], path)
    text = path.read_text()
    assert text.count("Step 60: k-NN accuracy on validation is not above") == 1
    write_sweep_page(by_setting([finished({}, 0.5)]), [], NAMES, ["simclr-sweep"], path)
    assert "Warnings" not in path.read_text()


@pytest.mark.slow
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    settings = settings_of(simclr=0.5, barlow_twins=0.45, byol=0.2)
    path = tmp_path / "index.html"
    command = ["simclr-sweep", "--vary=method=simclr,byol", "--", "--image_size=32"]
    write_sweep_page(settings, [], NAMES, command, path, comparison="comparison.html")
    assert 'href="comparison.html"' in path.read_text()
    for seen in look_at(path, tmp_path):
        assert seen["overlaps"] == []
        assert seen["content"] <= seen["width"]
        assert seen["console"] == []
        assert all(dots > 0 for dots, _, _ in seen["images"])
        assert len(seen["images"]) == 3
        for one in settings:
            assert one.name in seen["text"]
        rows = [line.split("\t") for line in seen["text"].splitlines()]
        shown = [row[0] for row in rows if len(row) > 5 and row[0].startswith(("method", "untr"))]
        assert shown[:4] == ["method=simclr", "method=barlow_twins", "untrained", "method=byol"]


def test_alarms_and_floors_of_the_best_setting_come_first() -> None:
    runs = [finished({"method": name}, share) for name, share in (("byol", 0.4), ("simclr", 0.9))]
    for run in runs:
        run.result["floors"] = {"sentence": f"Above what {run.run.name} says."}
    alarm = RunWarning(0, ALARM, "3 of 60 validation images were training images of a run")
    runs[0] = replace(runs[0], warnings=(alarm, RunWarning(3, "chance", "at chance")))
    told = findings(by_setting(runs), [])
    assert told[0] == f"{runs[0].run.name}: {alarm.message}."
    assert told[1].endswith(f"the best by k-NN: Above what {runs[1].run.name} says.")


def test_a_page_without_labels_can_be_written(tmp_path: Path) -> None:
    runs = by_setting([finished({"method": m}, None) for m in ("moco", "byol")])
    write_sweep_page(runs, [], (), ["simclr-sweep"], tmp_path / "p.html", sort_by="loss")
    text = (tmp_path / "p.html").read_text()
    assert "t-SNE" in text
    assert np.all(LABELS >= 0)
