import json
from pathlib import Path

import pytest

from data_prep.errors import UserError
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.run_dir import RunDir


def config(**values: object) -> RunConfig:
    return RunConfig.from_values({"model_dir": "m", **values})


def test_an_empty_folder_is_a_new_run(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path / "deep" / "run")
    assert run_dir.prepare(config()) is False
    assert run_dir.path.is_dir()


def test_the_same_settings_go_on_and_others_are_refused_by_name(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.write_settings(config(temperature=0.5))
    assert run_dir.prepare(config(temperature=0.5)) is True
    with pytest.raises(UserError, match=r"--temperature was 0.5, is 0.1.*--overwrite"):
        run_dir.prepare(config(temperature=0.1))
    assert RunConfig.load(run_dir.config_file) == config(temperature=0.5)


def test_the_flags_of_a_folder_of_images_do_not_speak_of_imagenet(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    for values, there in (({}, True), ({"image_dir": "x"}, False), ({"manifest": "x"}, False)):
        run_dir.write_settings(config(**values))
        assert ("--dataset=imagenet2012" in (tmp_path / "flags.txt").read_text()) is there


def test_a_run_from_before_exif_was_applied_goes_on_as_it_began(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir = RunDir(tmp_path)
    assert run_dir.as_begun(config()).reading.exif == "apply"
    run_dir.write_settings(config())
    assert run_dir.as_begun(config()).reading.exif == "apply"
    old = json.loads(run_dir.config_file.read_text())
    del old["reading"]["exif"]
    run_dir.config_file.write_text(json.dumps(old))
    (tmp_path / "checksums.json").unlink()  # runs of before have none
    for _ in range(2):  # the second time the file says so
        with caplog.at_level("INFO"):
            going_on = run_dir.as_begun(config())
        assert "--exif=ignore: the run in" in caplog.text
        assert going_on == config(exif="ignore")
        assert run_dir.prepare(going_on) is True
        run_dir.write_settings(going_on)
    assert run_dir.as_begun(config(overwrite=True)) == config(overwrite=True)


@pytest.mark.parametrize("second_copy", [False, True])
def test_a_run_of_before_goes_on_with_its_sampled_percentiles(
    second_copy: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_dir, asked = RunDir(tmp_path), config(intensity="percentile:1,99")
    assert run_dir.as_begun(asked).reading.percentiles == "exact"
    run_dir.write_settings(asked)
    assert run_dir.as_begun(asked) == asked
    for file in (run_dir.config_file, run_dir.flat_settings_file):
        old = json.loads(file.read_text())
        (old if file == run_dir.flat_settings_file else old["reading"]).pop("percentiles")
        file.write_text(json.dumps(old))
    (tmp_path / "checksums.json").unlink()
    if second_copy:
        run_dir.config_file.write_text("{")
    for _ in range(2):  # the second time the file says so
        with caplog.at_level("INFO"):
            going_on = run_dir.as_begun(asked)
        assert "--percentiles=sampled: so the run in" in caplog.text
        assert going_on == config(intensity="percentile:1,99", percentiles="sampled")
        assert run_dir.prepare(going_on) is True
        run_dir.write_settings(going_on)
    again = config(intensity="percentile:1,99", overwrite=True)
    assert run_dir.as_begun(again) == again


def test_weights_that_were_moved_are_no_other_setting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old, new, other = (tmp_path / name for name in ("old/r.ckpt", "new/r.ckpt", "new/s.ckpt"))
    for file in (old, new, other):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    run_dir = RunDir(tmp_path / "run")
    run_dir.path.mkdir()
    run_dir.write_settings(config(checkpoint=str(old)))
    with pytest.raises(UserError, match="--checkpoint was"):
        run_dir.prepare(config(checkpoint=str(new)))  # both are there
    old.unlink()
    with pytest.raises(UserError, match="--checkpoint was"):
        run_dir.prepare(config(checkpoint=str(other)))
    assert run_dir.prepare(config(checkpoint=str(new))) is True
    assert "which is gone; taken to be" in caplog.text


def test_settings_that_change_nothing_learnt_may_differ(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.write_settings(config(mode="train"))
    assert run_dir.prepare(config(mode="eval", eval_split="test", steps_per_loop=5)) is True


def test_overwrite_deletes_the_runs_own_files_and_nothing_else(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    run_dir.write_settings(config(temperature=0.5))
    (tmp_path / "ckpt-3.index").write_text("old")
    (tmp_path / "saved_model" / "3").mkdir(parents=True)
    run_dir.write_early_stop(3)
    assert run_dir.early_stop() == 3
    (tmp_path / "notes.txt").write_text("mine")
    assert run_dir.prepare(config(temperature=0.1, overwrite=True)) is False
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    assert run_dir.early_stop() is None


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="is not empty and holds no run"):
        RunDir(tmp_path).prepare(config())
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match="is a file; give a folder"):
        RunDir(tmp_path / "run").prepare(config())


def test_a_half_written_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"data": {')
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        RunDir(tmp_path).prepare(config())


def test_only_the_newest_exports_are_kept(tmp_path: Path) -> None:
    run_dir = RunDir(tmp_path)
    for step in (9, 10, 100):
        (run_dir.saved_models / str(step)).mkdir(parents=True)
    run_dir.delete_old_exports(keep=2)
    assert sorted(p.name for p in run_dir.saved_models.iterdir()) == ["10", "100"]
