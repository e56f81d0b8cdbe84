"""Rows of a sweep from flags and tables, and what the runs are called."""

from pathlib import Path

import pytest

from data_prep.errors import UserError
from simclr_tf.sweeps.grid import grid_rows, row_arguments, run_names


def test_varied_values_are_combined_the_first_flag_slowest() -> None:
    rows = grid_rows(["method=simclr,byol", "--seed=0, 1"])
    assert rows == [
        {"method": method, "seed": seed} for method in ("simclr", "byol") for seed in ("0", "1")
    ]
    assert row_arguments(rows[-1]) == ("--method=byol", "--seed=1")


def test_a_csv_has_a_run_a_row_and_leaves_out_what_is_empty(tmp_path: Path) -> None:
    table = tmp_path / "grid.csv"
    table.write_text('\ufeffmethod,--temperature, train_blocks\nmoco,0.2,\n\nbyol,,"stem,4"\n')
    assert grid_rows([], table) == [
        {"method": "moco", "temperature": "0.2"},
        {"method": "byol", "train_blocks": "stem,4"},
    ]
    seeds = grid_rows(["seed=3,4"], table)
    assert [row["seed"] for row in seeds] == ["3", "4", "3", "4"]
    assert [row["method"] for row in seeds] == ["moco", "moco", "byol", "byol"]


def test_a_toml_table_says_the_same_as_a_csv(tmp_path: Path) -> None:
    table = tmp_path / "grid.toml"
    table.write_text(
        '[[run]]\nmethod = "moco"\ntemperature = 0.2\nuse_blur = false\n'
        '[[run]]\nmethod = "byol"\nseed = 1\ntrain_blocks = ["stem", 4]\n'
    )
    assert grid_rows([], table) == [
        {"method": "moco", "temperature": "0.2", "use_blur": "false"},
        {"method": "byol", "seed": "1", "train_blocks": "stem,4"},
    ]


@pytest.mark.parametrize(
    ("vary", "file", "content", "said"),
    [
        ([], "", "", "nothing is varied"),
        (["method"], "", "", "--vary=method: give FLAG=VALUE"),
        (["seed=0,,1"], "", "", "--vary=seed=0,,1: give FLAG=VALUE"),
        (["seed=0,0"], "", "", "a value is given twice"),
        (["seed=0", "seed=1"], "", "", "--seed is varied twice"),
        (["seed=0"], "g.csv", "seed\n1\n", "is a column of"),
        ([], "g.csv", None, "there is no such file"),
        ([], "g.txt", "seed\n1\n", "must end in .csv or .toml"),
        ([], "g.csv", "seed\n", "holds no row"),
        ([], "g.csv", "seed,seed\n1,2\n", "a flag's name of its own"),
        ([], "g.csv", "seed,method\n1\n", "line 2: has 1 cell, the first line 2"),
        ([], "g.toml", "[run]\nseed = 1\n", "give one [[run]] a row"),
        ([], "g.toml", "[[run]\n", "cannot be read"),
    ],
)
def test_what_is_no_grid_is_refused_in_one_line(
    tmp_path: Path, vary: list[str], file: str, content: str | None, said: str
) -> None:
    if content is not None and file:
        (tmp_path / file).write_text(content)
    with pytest.raises(UserError) as error:
        grid_rows(vary, tmp_path / file if file else "")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_names_hold_only_what_differs() -> None:
    rows = [{"method": m, "image_size": "64", "seed": s} for m in ("moco", "byol") for s in "01"]
    assert run_names(rows)[:2] == ["method=moco,seed=0", "method=moco,seed=1"]
    assert run_names([{"method": "moco"}, {"method": "moco", "seed": "1"}]) == ["common", "seed=1"]
    assert run_names([{"method": "moco", "seed": "2"}]) == ["method=moco,seed=2"]


def test_names_are_fit_for_folders_and_stay_apart() -> None:
    long = "a" * 300
    rows = [{"checkpoint": value} for value in ("a/b", "a-b", "a b", long, f"{long}c", "..")]
    names = run_names(rows)
    assert len(set(names)) == len(rows)
    assert names[1] == "checkpoint=a-b"
    assert all("/" not in name and len(name) <= 120 for name in names)
