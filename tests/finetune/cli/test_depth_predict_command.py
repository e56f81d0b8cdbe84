"""`simclr-depth-predict`: depth maps of a folder's images, and what they are worth."""

import csv
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.manifest.manifest import Manifest
from finetune.cli.depth_predict import main
from finetune.depth import pipeline
from tests.finetune.depth.fakes import (
    FORMULAS,
    SIZE,
    install,
    write_holes,
    write_models,
    write_router,
)


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


def predict(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def true_depths(folder: Path, manifest: Manifest) -> np.ndarray:
    files = [folder / record.path.replace("sem", "depth", 1) for record in manifest.records]
    return np.stack([np.asarray(Image.open(file)).astype(np.float64) / 100 for file in files])


def predicted_depths(output: Path, manifest: Manifest) -> np.ndarray:
    names = [Path(record.path).with_suffix(".npy") for record in manifest.records]
    return np.stack([np.load(output / "float" / name) for name in names]).astype(np.float64)


def test_maps_scale_table_and_archive_tell_the_same_depths(tmp_path: Path) -> None:
    holes, output = tmp_path / "holes", tmp_path / "out"
    manifest = write_holes(holes, targets=False)
    model = write_models(tmp_path / "model", FORMULAS)
    flags = f"--model={model}", f"--manifest={holes / 'manifest.csv'}", f"--output={output}"
    assert predict(*flags, "--batch_size=5", "--bootstrap=50") == 0
    depth = predicted_depths(output, manifest)
    scale = json.loads((output / "depth_scale.json").read_text())
    assert (scale["unit"], scale["step"], scale["offset"]) == ("nm", 0.01, 0)
    table = rows(output / "predictions.csv")
    with zipfile.ZipFile(output / "submission.zip") as archive:
        assert archive.namelist() == [record.path for record in manifest.records]
        for record, own, row in zip(manifest.records, depth, table, strict=True):
            offset, gain = FORMULAS[record.case]
            image = np.asarray(Image.open(holes / record.path)) / 255
            np.testing.assert_allclose(own, offset + gain * (1 - image), atol=1e-4)
            levels = np.asarray(Image.open(output / row["depth"]))
            assert levels.dtype == np.uint16
            np.testing.assert_allclose(scale["step"] * levels, own, atol=0.00501)
            packed = Image.open(io.BytesIO(archive.read(record.path)))
            np.testing.assert_array_equal(np.asarray(packed), levels)
            assert row["path"] == str(holes / record.path)
            assert (row["case"], row["routed_case"]) == (record.case, "")
            for name, value in (("mean", own.mean()), ("min", own.min()), ("max", own.max())):
                assert float(row[f"{name}_depth"]) == pytest.approx(value, abs=1e-3)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_metrics_are_those_of_the_files_by_split_and_case(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    holes, output = tmp_path / "holes", tmp_path / "out"
    manifest = write_holes(holes, noise=3, split="test")
    model = write_models(tmp_path / "model", FORMULAS)
    flags = f"--model={model}", f"--manifest={holes / 'manifest.csv'}", f"--output={output}"
    assert predict(*flags, "--batch_size=5", "--bootstrap=50") == 0
    error = predicted_depths(output, manifest) - true_depths(holes, manifest)
    metrics = json.loads((output / "metrics.json").read_text())
    measured = metrics["splits"]["test"]
    own = np.array([record.case == "case_2" for record in manifest.records])
    for numbers, chosen in ((measured["all"], own | ~own), (measured["cases"]["case_2"], own)):
        assert numbers["images"] == chosen.sum()
        assert numbers["units"] == chosen.sum() / 2
        rmse = float(np.sqrt((error[chosen] ** 2).mean()))
        assert numbers["rmse"]["value"] == pytest.approx(rmse, rel=1e-6)
        assert numbers["rmse"]["low"] <= rmse <= numbers["rmse"]["high"]
        assert numbers["mae"]["value"] == pytest.approx(np.abs(error[chosen]).mean(), rel=1e-6)
        spread = true_depths(holes, manifest)[chosen].std()
        assert numbers["constant_rmse"] == pytest.approx(spread, rel=1e-5)
        assert numbers["skill"]["value"] == pytest.approx(1 - rmse / spread, rel=1e-4)
    each = rows(output / "errors.csv")
    for row, one in zip(each, error, strict=True):
        assert float(row["rmse"]) == pytest.approx(float(np.sqrt((one**2).mean())), rel=1e-5)
    first = capsys.readouterr().out.splitlines()[:2]
    assert first[0].split() == [
        "split", "case", "images", "RMSE", "MAE", "SSIM", "constant", "one", "map", "skill",
    ]  # fmt: skip
    assert f"{measured['all']['rmse']['value']:.2f}" in first[1]
    assert "report.html" in {path.name for path in output.iterdir()}


@pytest.mark.slow
def test_a_router_sends_images_to_the_generator_of_their_case(tmp_path: Path) -> None:
    """A classifier that is often wrong; where it is, the map is that of the other case."""
    holes, output = tmp_path / "holes", tmp_path / "out"
    manifest = write_holes(holes)
    model = write_models(tmp_path / "model", FORMULAS)
    files = (holes / record.path for record in manifest.records)
    pixels = np.stack([np.asarray(Image.open(file).resize((16, 16))) for file in files])
    router = write_router(tmp_path / "router", tuple(FORMULAS), pixels[..., None] / 255)
    flags = f"--model={model}", f"--manifest={holes / 'manifest.csv'}", f"--output={output}"
    assert predict(*flags, f"--router={router}", "--batch_size=8", "--bootstrap=50") == 0
    table, depth = rows(output / "predictions.csv"), predicted_depths(output, manifest)
    for record, row, own in zip(manifest.records, table, depth, strict=True):
        assert 0.5 <= float(row["routed_probability"]) <= 1
        offset, gain = FORMULAS[row["routed_case"]]
        image = np.asarray(Image.open(holes / record.path)) / 255
        np.testing.assert_allclose(own, offset + gain * (1 - image), atol=1e-4)
    right = np.mean([row["case"] == row["routed_case"] for row in table])
    found = json.loads((output / "metrics.json").read_text())["routing"]
    assert found["accuracy"]["value"] == pytest.approx(right)
    assert 0 < right < 1
    assert np.sum(found["confusion_matrix"]) == len(manifest)


@pytest.mark.slow
def test_real_images_are_translated_and_measured_by_the_means_of_their_sites(
    tmp_path: Path,
) -> None:
    holes = tmp_path / "holes"
    manifest = write_holes(holes, dim=0.5, targets=False)
    true = true_depths(holes, manifest)
    sites = {record.group: record.case for record in manifest.records}
    lines = ["site,case,mean_depth"]
    for site, case in sites.items():
        mean = true[[record.group == site for record in manifest.records]].mean()
        lines.append(f"{site},{case},{mean}")
    (tmp_path / "means.csv").write_text("\n".join(lines) + "\n")
    model = write_models(tmp_path / "model", FORMULAS)
    biases = {}
    for name, more in (("straight", ()), ("translated", (f"--translator={model}",))):
        output = tmp_path / name
        flags = f"--model={model}", f"--manifest={holes / 'manifest.csv'}", f"--output={output}"
        means = f"--site_means={tmp_path / 'means.csv'}"
        assert predict(*flags, means, "--bootstrap=50", *more) == 0
        found = json.loads((output / "metrics.json").read_text())
        assert found["splits"] == {}
        assert found["sites"]["number"] == len(sites)
        biases[name] = found["sites"]["bias"]["value"]
        html = (output / "report.html").read_text()
        assert "Mean depth of the sites" in html
    assert biases["straight"] > 10
    assert abs(biases["translated"]) < 1


def test_a_stopped_command_goes_on_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holes = tmp_path / "holes"
    write_holes(holes, targets=False)
    model = write_models(tmp_path / "model", FORMULAS)
    common = (f"--model={model}", f"--manifest={holes / 'manifest.csv'}", "--batch_size=4",
              "--bootstrap=20")  # fmt: skip
    assert predict(*common, f"--output={tmp_path / 'whole'}") == 0
    real, calls = pipeline.write_depth, []

    def stopping(folder: Path, name: str, *rest: object) -> None:
        calls.append(name)
        if len(calls) == 7:
            raise KeyboardInterrupt
        real(folder, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline, "write_depth", stopping)
    assert predict(*common, f"--output={tmp_path / 'parts'}") == 130
    assert not (tmp_path / "parts").exists()
    assert predict(*common, f"--output={tmp_path / 'parts'}") == 0
    # The first batch of four was done; of the second, two of four maps had been written.
    assert calls[7:] == [*calls[4:7], *calls[10:]]
    assert len(calls) == 7 + 8
    for name in ("submission.zip", "predictions.csv", "depth_scale.json"):
        whole, parts = (tmp_path / which / name for which in ("whole", "parts"))
        assert whole.read_bytes() == parts.read_bytes()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--manifest={holes}/manifest.csv", "--router={model}", "--model={one}"],
         "has one generator for all cases"),
        (["--image_dir={holes}/sem/case_1"], "case_1_000.png: its case is not known"),
        (["--image_dir={other}", "--model={one}"],
         r"3 of 3 images are not such .* of 16x12 \(height x width\): .*checks_000.png has 20x20"
         " pixels and 3 channels"),
        (["--manifest={holes}/manifest.csv", "--model={holes}"], "holds no model"),
        (["--manifest={holes}/manifest.csv", "--model=nowhere"], "--model=nowhere: no such folder"),
        (["--manifest={holes}/manifest.csv", "--output={holes}"], "is not empty: give another"),
        (["--manifest={holes}/manifest.csv", "--site_means={holes}/no.csv"], "no.csv: not found"),
        (["--manifest={holes}/manifest.csv", "--surface_depth=flat"], "must be a depth"),
    ],
)  # fmt: skip
def test_what_cannot_be_predicted_is_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], message: str
) -> None:
    from tests.images import make_folder

    places = {
        "holes": tmp_path / "holes",
        "other": make_folder(tmp_path / "other", per_class=1, size=20),
        "model": write_models(tmp_path / "model", FORMULAS),
        "one": write_models(tmp_path / "one", {"": (100.0, 70.0)}),
    }
    write_holes(places["holes"], per_case=2)
    given = [flag.format(**places) for flag in flags]
    if not any(flag.startswith("--model") for flag in given):
        given.append(f"--model={places['model']}")
    if not any(flag.startswith("--output") for flag in given):
        given.append(f"--output={tmp_path / 'out'}")
    assert predict(*given) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len([line for line in lines if "error:" in line]) == 1
    assert re.search(message, lines[-1])
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_an_eight_bit_archive_has_a_gray_level_a_unit_and_a_level_surface(tmp_path: Path) -> None:
    holes, output = tmp_path / "holes", tmp_path / "out"
    manifest = write_holes(holes, per_case=2, targets=False)
    model = write_models(tmp_path / "model", FORMULAS)
    flags = f"--model={model}", f"--manifest={holes / 'manifest.csv'}", f"--output={output}"
    levels = "--surface_depth=case_1:105,case_2:129", "--surface_tolerance=4"
    assert predict(*flags, "--archive=png8", "--bootstrap=0", *levels) == 0
    with zipfile.ZipFile(output / "submission.zip") as archive:
        for record, depth in zip(manifest.records, predicted_depths(output, manifest), strict=True):
            pixels = np.asarray(Image.open(io.BytesIO(archive.read(record.path))))
            assert pixels.dtype == np.uint8
            assert pixels.shape == SIZE
            np.testing.assert_array_equal(pixels, np.rint(depth))
            corner = 105 if record.case == "case_1" else 129
            assert depth[0, 0] == corner


_MEASURE = """
import resource, sys
from pathlib import Path
import numpy as np
import pytest
from data_prep.manifest.manifest import Manifest
from finetune.depth.pipeline import Pipeline, predict_depths
from tests.finetune.depth.fakes import FORMULAS, FakeModel
import tensorflow
images = Manifest.load(sys.argv[1])
models = {c: FakeModel(c, *f) for c, f in FORMULAS.items()}
out = Path(sys.argv[2]); out.mkdir()
SIZE = (400, 400)
for m in models.values(): m.image_size = SIZE
def read(records): return np.full((len(records), *SIZE, 1), 0.5, np.float32)
predict_depths(Pipeline(models), images, out, read, batch_size=4)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """120 maps of 0.6 MB more must not take 72 MB more."""
    peaks = []
    for number in (4, 64):
        write_holes(tmp_path / f"holes_{number}", per_case=number)
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, str(tmp_path / f"holes_{number}" / "manifest.csv"),
             str(tmp_path / f"out_{number}")],
            capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 30


def test_help_answers_without_tensorflow() -> None:
    code = (
        "import sys; from finetune.cli import depth_predict;"
        "depth_predict.main(['--help']);"
        "assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})  # fmt: skip
    assert "--site_means" in done.stdout
