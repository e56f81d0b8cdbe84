import csv
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.synthetic.sample import NPY, PNG, PNG16, image_generator
from data_prep.synthetic.sem_depth import (
    Beam,
    SemDepthParameters,
    case_depth,
    depth_map,
    detect,
    draw_hole,
    signal,
    sky_view,
)
from data_prep.synthetic.write import write_set

PLAIN = Beam(
    width=1e-3,
    electrons=1e9,
    edge=1.0,
    escape=1.0,
    brightness=0.1,
    contrast=0.4,
    gamma=1.0,
    line_noise=0.0,
    jitter=0.0,
    charging=0.0,
    slope=0.0,
)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def make(folder: Path, count: int, file_format: str = PNG, **settings: object) -> Path:
    write_set(
        "sem_depth",
        folder,
        images_per_class=count,
        seed=2,
        file_format=file_format,
        parameters=SemDepthParameters(**settings),  # type: ignore[arg-type]
    )
    return folder


@pytest.mark.parametrize("case", [1, 2, 3, 4])
def test_the_mean_of_a_map_is_the_holes_and_that_of_the_case(case: int) -> None:
    means = []
    for index in range(60):
        rng = image_generator(0, f"case_{case}", index)
        hole = draw_hole(f"case_{case}", 72, 48, SemDepthParameters(), rng)
        depth = depth_map(hole, 72, 48, rng)
        assert depth.mean() == pytest.approx(hole.mean_depth, abs=1e-9)
        assert np.percentile(depth[:2], 50) == pytest.approx(130, abs=3)
        assert depth[30:42, 20:28].mean() > depth.mean()
        means.append(hole.mean_depth)
    assert case_depth(f"case_{case}") == 140 + 10 * case
    assert np.mean(means) == pytest.approx(140 + 10 * case, abs=1.0)
    assert np.std(means) == pytest.approx(2.0, rel=0.35)


def test_all_electrons_escape_from_a_level_surface_and_few_from_a_deep_hole() -> None:
    np.testing.assert_allclose(sky_view(np.full((20, 30), 7.0), 2.0), 1)
    views = []
    for deep in (20.0, 60.0, 180.0):
        depth = np.zeros((41, 41))
        depth[10:31, 10:31] = deep
        views.append(sky_view(depth, 2.0)[20, 20])
    assert views == sorted(views, reverse=True)
    assert views[-1] < 0.1


def test_the_sky_view_of_a_trench_is_the_closed_form() -> None:
    # Walls of height d at the distance w: the mean over directions of 1 / (1 + (d sin / w)^2).
    half, deep = 12, 30.0
    depth = np.zeros((101, 101))
    depth[50 - half : 50 + half + 1] = deep
    found = sky_view(depth, 2.0)[50, 50]
    expected = 1 / math.sqrt(1 + (deep / (2.0 * (half + 1))) ** 2)
    assert found == pytest.approx(expected, rel=0.05)


def test_the_signal_of_a_slope_is_one_over_the_cosine_of_its_tilt() -> None:
    slope = 1.5
    depth = np.tile(slope * 4.0 * np.arange(40.0), (30, 1))
    found = signal(depth, 4.0, np.ones_like(depth), PLAIN)
    np.testing.assert_allclose(found, math.sqrt(1 + slope**2), rtol=1e-9)


def test_the_detector_counts_electrons_and_adds_its_offset() -> None:
    clean = np.full((200, 200), 1.2)
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(detect(clean, PLAIN, rng), 0.1 + 0.4 * 1.2, atol=1e-3)
    few = Beam(**{**vars(PLAIN), "electrons": 50.0})
    picture = detect(clean, few, rng)
    assert picture.std() == pytest.approx(0.4 * math.sqrt(1.2 / 50), rel=0.03)


def test_charging_brightens_what_lies_behind_an_edge_along_the_scan() -> None:
    clean = np.full((4, 60), 0.5)
    clean[:, 20:24] = 2.0
    charged = Beam(**{**vars(PLAIN), "charging": 0.3})
    picture = detect(clean, charged, np.random.default_rng(0))
    plain = detect(clean, PLAIN, np.random.default_rng(0))
    difference = (picture - plain).mean(axis=0)
    np.testing.assert_allclose(difference[:20], 0, atol=1e-3)
    assert difference[25] > 0.05
    assert (np.diff(difference[25:50]) < 1e-3).all()


def test_the_layout_and_both_manifests(tmp_path: Path) -> None:
    folder = make(tmp_path / "set", 5)
    assert {path.name for path in folder.iterdir()} == {
        "sim_sem",
        "sim_depth",
        "real_sem",
        "manifest.csv",
        "real_manifest.csv",
        "site_means.csv",
        "parameters.csv",
    }
    manifest = Manifest.load(folder / "manifest.csv")
    assert len(manifest) == 4 * 5 * 2
    assert manifest.splits == ()
    for record in manifest.records:
        assert record.case == record.label == Path(record.path).parts[1]
        assert Path(record.path).stem.rsplit("_", 1)[0] == record.group == Path(record.target).stem
        for name in (record.path, record.target):
            with Image.open(folder / name) as image:
                assert (image.mode, image.size) == ("L", (48, 72))
    groups = [record.group for record in manifest.records]
    assert all(groups.count(group) == 2 for group in groups)
    first, second = (
        np.asarray(Image.open(folder / record.path), float).reshape(12, 6, 8, 6).mean(axis=(1, 3))
        for record in manifest.records[:2]
    )
    assert np.abs(first - second).mean() > 2  # different settings, not only different noise
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.9
    real = Manifest.load(folder / "real_manifest.csv")
    assert len(real) == 20
    assert {record.target for record in real.records} == {""}
    assert len(read_table(folder / "parameters.csv")) == 60


def test_a_sites_mean_is_that_of_the_maps_of_its_pictures(tmp_path: Path) -> None:
    folder = make(tmp_path / "set", 8)
    means = {row["site"]: row for row in read_table(folder / "site_means.csv")}
    assert len(means) == 8
    rows = [row for row in read_table(folder / "parameters.csv") if row["domain"] == "real"]
    for site, row in means.items():
        depths = [float(one["mean_depth"]) for one in rows if one["group"] == site]
        assert len(depths) == 4
        assert float(row["mean_depth"]) == pytest.approx(np.mean(depths), abs=1e-3)
        assert {one["class_name"] for one in rows if one["group"] == site} == {row["case"]}


def test_the_three_formats_of_a_depth_map_agree(tmp_path: Path) -> None:
    maps = {}
    for file_format in (PNG, PNG16, NPY):
        folder = make(tmp_path / file_format, 1, file_format)
        record = Manifest.load(folder / "manifest.csv").records[6]
        file = folder / record.target
        maps[file_format] = np.load(file) if file_format == NPY else np.asarray(Image.open(file))
    assert maps[NPY].dtype == np.float32
    np.testing.assert_allclose(maps[PNG], maps[NPY], atol=0.501)
    np.testing.assert_allclose(maps[PNG16] / 100, maps[NPY], atol=0.00501)


def test_depths_that_do_not_fit_a_png_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --format=npy"):
        make(tmp_path / "set", 1, surface_depth=60.0)
    assert list(tmp_path.iterdir()) == []


def test_the_real_domain_is_noisier_and_of_lower_contrast(tmp_path: Path) -> None:
    folder = make(tmp_path / "set", 6)
    noise = {}
    for name in ("manifest.csv", "real_manifest.csv"):
        corners = []
        for record in Manifest.load(folder / name).records:
            corner = np.asarray(Image.open(folder / record.path), float)[:3, :12]
            corners.append(np.diff(corner, axis=1).std() / corner.mean())
        noise[name] = np.mean(corners)
    assert noise["real_manifest.csv"] > 1.2 * noise["manifest.csv"]
