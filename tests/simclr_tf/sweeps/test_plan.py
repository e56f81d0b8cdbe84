"""The runs of a sweep, their floors, and what the folder remembers."""

import json
from pathlib import Path
from typing import Any

import pytest

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import scan_folder
from simclr_tf.config.run_config import RunConfig
from simclr_tf.sweeps.grid import grid_rows, row_arguments
from simclr_tf.sweeps.plan import PLAN, PlannedRun, floors, keep_plan, plan_runs
from tests.images import make_split_folder


def config_of(row: dict[str, str], **common: Any) -> RunConfig:
    kinds = {s.name: s.kind for s in RunConfig.settings()}
    return RunConfig.from_values({**common, **{n: kinds[n](v) for n, v in row.items()}})


def planned(*vary: str, **common: Any) -> tuple[PlannedRun, ...]:
    rows = grid_rows(vary)
    configs = [config_of(row, **common) for row in rows]
    return plan_runs(rows, [row_arguments(row) for row in rows], configs)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return scan_folder(make_split_folder(tmp_path_factory.mktemp("images"), 2, 1))


def test_rows_that_come_to_the_same_run_are_refused() -> None:
    with pytest.raises(UserError, match=r"temperature=0\.10 and temperature=0\.1 are"):
        planned("temperature=0.1,0.10")
    with pytest.raises(UserError, match="--train_mode=finetune: a sweep compares"):
        planned("seed=0,1", train_mode="finetune")


def test_there_is_one_floor_for_each_network_and_seed() -> None:
    runs = planned("method=simclr,moco", "width_multiplier=0.5,1", "seed=0,1", queue_size=600)
    found = floors(runs)
    assert [run.name for run in found] == [
        f"untrained,width_multiplier={width},seed={seed}" for width in ("0.5", "1") for seed in "01"
    ]
    for floor in found:
        values = floor.config.values()
        assert (values["learning_rate"], values["weight_decay"]) == (0, 0)
        assert values["method"] == "simclr"
        assert values["queue_size"] == 65536
        # The arguments say all of it.
        given = dict(argument[2:].split("=", 1) for argument in floor.arguments)
        kinds = {s.name: s.kind for s in RunConfig.settings()}
        read = {n: v == "True" if kinds[n] is bool else kinds[n](v) for n, v in given.items()}
        assert RunConfig.from_values(read) == floor.config
    assert [run.name for run in floors(planned("method=simclr,byol"))] == ["untrained"]


def test_rows_may_be_added_and_old_runs_keep_their_names(
    manifest: Manifest, tmp_path: Path
) -> None:
    output = tmp_path / "sweep"
    first = keep_plan(planned("method=simclr,byol"), manifest, output)
    assert [run.name for run in first] == ["method=simclr", "method=byol"]
    more = keep_plan(planned("method=simclr,byol", "seed=0,1"), manifest, output)
    assert [run.name for run in more] == [
        "method=simclr", "method=simclr,seed=1", "method=byol", "method=byol,seed=1",
    ]  # fmt: skip
    again = keep_plan(planned("method=simclr,byol", "seed=0,1"), manifest, output)
    assert [run.name for run in again] == [run.name for run in more]
    assert Manifest.load(output / "manifest.csv").sha256() == manifest.sha256()


@pytest.mark.parametrize(
    ("vary", "common"),
    [
        (["method=simclr"], {}),
        (["method=simclr,moco"], {}),
        (["method=simclr,byol"], {"image_size": 64}),
        (["method=simclr,byol"], {"knn_neighbors": 5}),
    ],
)
def test_another_sweep_in_the_same_folder_is_refused(
    manifest: Manifest, tmp_path: Path, vary: list[str], common: dict[str, Any]
) -> None:
    keep_plan(planned("method=simclr,byol"), manifest, tmp_path)
    before = (tmp_path / PLAN).read_bytes()
    with pytest.raises(UserError, match="holds a sweep of other runs"):
        keep_plan(planned(*vary, **common), manifest, tmp_path)
    assert (tmp_path / PLAN).read_bytes() == before


def test_what_alters_no_number_may_change(manifest: Manifest, tmp_path: Path) -> None:
    keep_plan(planned("method=simclr,byol"), manifest, tmp_path)
    keep_plan(
        planned("method=simclr,byol", steps_per_loop=4, health_watch=False), manifest, tmp_path
    )
    assert len(json.loads((tmp_path / PLAN).read_text())["runs"]) == 2


def test_settings_that_a_later_version_brings_do_not_end_a_sweep(
    manifest: Manifest, tmp_path: Path
) -> None:
    keep_plan(planned("method=simclr,byol"), manifest, tmp_path)
    stored = json.loads((tmp_path / PLAN).read_text())
    for run in stored["runs"]:
        del run["settings"]["temperature"]
    (tmp_path / PLAN).write_text(json.dumps(stored))
    keep_plan(planned("method=simclr,byol"), manifest, tmp_path)
    assert json.loads((tmp_path / PLAN).read_text())["runs"][0]["settings"]["temperature"] == 0.1


def test_other_images_and_other_folders_are_refused(manifest: Manifest, tmp_path: Path) -> None:
    output = tmp_path / "sweep"
    keep_plan(planned("method=simclr,byol"), manifest, output)
    fewer = manifest.subset(manifest.records[1:])
    with pytest.raises(UserError, match="other images or another split"):
        keep_plan(planned("method=simclr,byol"), fewer, output)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        keep_plan(planned("method=simclr,byol"), manifest, tmp_path / "else")
    assert [p.name for p in (tmp_path / "else").iterdir()] == ["notes.txt"]
