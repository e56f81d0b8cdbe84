"""Mean depths of predicted maps against those known of sites."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.errors import UserError
from data_prep.synthetic.write import write_set
from finetune.depth.results import compare_sites, read_site_means


def test_means_of_a_site_are_compared_after_averaging_its_images() -> None:
    known = {"a": 150.0, "b": 160.0, "c": 170.0}
    depths = np.array([151.0, 149.0, 163.0, 161.0, 190.0])
    found = compare_sites(depths, ["a", "a", "b", "b", "nowhere"], ["1", "1", "2", "2", "2"], known)
    assert [(s.name, s.case, s.images, s.predicted) for s in found.sites] == [
        ("a", "1", 2, 150.0),
        ("b", "2", 2, 162.0),
    ]
    assert found.rmse.value == pytest.approx(np.sqrt((0 + 4) / 2))
    assert found.mae.value == found.bias.value == pytest.approx(1)
    assert found.image_rmse == pytest.approx(np.sqrt((1 + 1 + 9 + 1) / 4))
    assert found.constant_rmse == pytest.approx(5)
    assert found.skill.value == pytest.approx(1 - np.sqrt(2) / 5)


def test_correlation_is_that_of_numpy_and_intervals_hold_the_values() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(160, 10, 40)
    depths = true + rng.normal(2, 4, 40)
    names = [f"s{i}" for i in range(40)]
    found = compare_sites(depths, names, [""] * 40, dict(zip(names, true, strict=True)))
    assert found.correlation.value == pytest.approx(np.corrcoef(depths, true)[0, 1], abs=1e-9)
    assert found.bias.low < 2 < found.bias.high
    assert found.rmse.low < found.rmse.value < found.rmse.high


def test_where_all_sites_have_one_depth_there_is_no_skill_and_no_correlation() -> None:
    found = compare_sites(np.array([1.0, 2.0]), ["a", "b"], ["", ""], {"a": 5.0, "b": 5.0})
    assert np.isnan(found.skill.value)
    assert np.isnan(found.correlation.value)
    assert found.rmse.value == pytest.approx(np.sqrt((16 + 9) / 2))


def test_the_table_that_a_synthetic_set_brings_is_read(tmp_path: Path) -> None:
    write_set("sem_depth", tmp_path / "set", images_per_class=5, seed=0, image_size=(24, 20))
    means = read_site_means(tmp_path / "set" / "site_means.csv")
    assert len(means) == 8
    assert 145 < means["case_1_site_0000"] < 155
    assert 175 < means["case_4_site_0001"] < 185


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("site,depth\na,1\n", "needs the columns site and mean_depth"),
        ("site,mean_depth\na,1\na,2\n", "line 3: the site 'a' is given twice"),
        ("site,mean_depth\na,deep\n", "line 2: mean_depth is 'deep', which is no number"),
    ],
)
def test_a_table_that_cannot_be_used_says_where(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "means.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        read_site_means(tmp_path / "means.csv")


def test_images_of_no_known_site_are_an_error() -> None:
    with pytest.raises(UserError, match="the manifest's column group must name the site"):
        compare_sites(np.array([1.0]), ["x"], [""], {"a": 5.0})
    with pytest.raises(UserError, match="not found"):
        read_site_means("nowhere.csv")
