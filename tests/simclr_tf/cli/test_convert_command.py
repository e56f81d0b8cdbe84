"""`simclr-convert` on the small public layouts: what it prints, writes and refuses."""

import csv
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.checkpoints import adapt
from simclr_tf.checkpoints.load import load_encoder, load_model
from simclr_tf.checkpoints.write import write_model
from simclr_tf.cli.convert import main
from simclr_tf.models import SimCLRModel, canonical_variables
from tests.simclr_tf.checkpoints.common import LAYOUTS, Recorded, path_of

TF1 = str(path_of("tf1_tiny_r18_w8_cifar_pretrain"))


def convert(*arguments: str) -> int:
    return main(list(arguments))


@pytest.mark.parametrize("layout", ["tf1_tiny_r18_w8_cifar_pretrain/hub", *list(LAYOUTS)[5:8]])
def test_an_encoder_and_an_account_are_written(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "encoder.keras"
    assert convert(f"--checkpoint={path_of(layout)}", f"--output={output}") == 0
    printed = capsys.readouterr().out
    assert "r18_0.125x_sk0_cifar, projection head of 3 layers" in printed
    assert "final_avg_pool" in printed
    recorded = Recorded(LAYOUTS[layout][0])
    encoder = keras.models.load_model(output)
    features = recorded.outputs["final_avg_pool"]
    np.testing.assert_allclose(
        encoder(recorded.images), features, atol=1e-5 * np.abs(features).max()
    )
    with Path(f"{output}.coverage.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(row["status"] == "used" for row in rows) >= len(encoder.variables)


@pytest.mark.slow
def test_a_saved_model_is_executed_and_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(
        load_model(path_of("tf1_tiny_r18_w8_img64_finetune")), tmp_path / "s", "saved_model"
    )
    assert convert(f"--checkpoint={tmp_path / 's'}", "--trust") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    differences = {line[0]: float(line[-1]) for line in lines if line and line[0] == "logits_sup"}
    assert differences["logits_sup"] < 1e-5


@pytest.mark.slow
def test_numbers_unlike_the_originals_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = load_model(path_of("tf1_tiny_r18_w8_img64_finetune"))
    write_model(source, tmp_path / "s", "saved_model")
    original = adapt._execute

    def other(folder: str, images: tf.Tensor) -> dict[str, np.ndarray]:
        return {name: value * 1.01 for name, value in original(folder, images).items()}

    monkeypatch.setattr(adapt, "_execute", other)
    output = tmp_path / "e.keras"
    assert convert(f"--checkpoint={tmp_path / 's'}", f"--output={output}", "--trust") == 1
    assert "differs from" in capsys.readouterr().err
    assert not output.exists()


class Malicious(tf.Module):
    """A SavedModel called like the public ones, which writes a file when it is loaded or called."""

    def __init__(self, source: SimCLRModel, target: Path) -> None:
        super().__init__()
        self.vars = {name: v.value for name, v in canonical_variables(source).items()}
        self.target = str(target)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3]), tf.TensorSpec([], tf.bool)])
    def __call__(self, inputs: tf.Tensor, trainable: tf.Tensor) -> dict[str, tf.Tensor]:
        """Writes, and gives nothing of use."""
        tf.io.write_file(self.target, "owned")
        return {"final_avg_pool": tf.reduce_mean(inputs, [1, 2])}


def test_the_graph_of_a_saved_model_runs_only_if_it_is_trusted(tmp_path: Path) -> None:
    target = tmp_path / "owned"
    tf.saved_model.save(Malicious(load_model(TF1), target), str(tmp_path / "s"))
    before = set(tmp_path.rglob("*"))
    output = tmp_path / "e.keras"
    assert convert(f"--checkpoint={tmp_path / 's'}", f"--output={output}") == 0
    made = {file.name for file in set(tmp_path.rglob("*")) - before}
    assert made == {"e.keras", "e.keras.coverage.csv", ".e.keras.complete.json"}
    for a, b in zip(load_encoder(output).variables, load_encoder(TF1).variables, strict=True):
        np.testing.assert_array_equal(a, b)
    load_model(tmp_path / "s")
    assert not target.exists()
    convert(f"--checkpoint={tmp_path / 's'}", "--trust")
    assert target.exists(), "the model of this test does what it should"


def test_a_keras_file_with_code_in_it_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = str(tmp_path / "owned")
    code = keras.layers.Lambda(lambda x: [x, tf.io.write_file(target, "owned")][0])
    keras.Sequential([keras.Input((4,)), code]).save(tmp_path / "m.keras")
    assert convert(f"--checkpoint={tmp_path / 'm.keras'}") == 1
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    assert "cannot be read" in error
    assert "safe_mode" not in error
    assert not (tmp_path / "owned").exists()


def test_a_network_without_finite_numbers_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = load_model(TF1)
    kernel = broken.encoder.resnet.stem.convs[0].kernel
    kernel.assign(np.full(kernel.shape, np.nan))
    write_model(broken, tmp_path / "one", "tf1")
    assert convert(f"--checkpoint={tmp_path / 'one'}", f"--output={tmp_path / 'e.keras'}") == 1
    assert "no finite numbers at initial_conv" in capsys.readouterr().err
    assert not (tmp_path / "e.keras").exists()


@pytest.mark.slow
def test_there_and_back_again(tmp_path: Path) -> None:
    steps = [(TF1, "two", "tf2"), (str(tmp_path / "two"), "s", "saved_model"),
             (str(tmp_path / "s"), "one", "tf1")]  # fmt: skip
    for source, name, layout in steps:
        assert convert(f"--checkpoint={source}", f"--output={tmp_path / name}",
                       f"--format={layout}") == 0  # fmt: skip
    first, last = load_encoder(TF1), load_encoder(tmp_path / "one")
    for a, b in zip(first.variables, last.variables, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--checkpoint=nowhere"], "--checkpoint=nowhere: no such checkpoint"),
        (
            [f"--checkpoint={TF1}", "--resnet_depth=50"],
            "you asked for --resnet_depth=50 and it has 18",
        ),
        ([f"--checkpoint={TF1}", "--output=thing"], "end it in .keras or .weights.h5, or give"),
        ([f"--checkpoint={TF1}", "--rescale=-2"], "must be positive"),
        ([f"--checkpoint={TF1}", "--ema"], "holds no moving averages"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(*arguments) == 1
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1


def test_an_output_that_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "e.keras"
    output.write_text("mine")
    assert convert(f"--checkpoint={TF1}", f"--output={output}") == 1
    assert "is there already" in capsys.readouterr().err
    assert output.read_text() == "mine"
    assert convert(f"--checkpoint={TF1}", f"--output={output}", "--overwrite") == 0
    assert load_encoder(output).feature_dim == 64


def test_kernels_take_the_norms_of_another_checkpoint(tmp_path: Path) -> None:
    output = tmp_path / "e.keras"
    other = str(path_of("tf2_tiny_r18_w8_cifar_pretrain/tf2_checkpoint"))
    assert convert(f"--checkpoint={TF1}", f"--rescale={other}", f"--output={output}") == 0
    ours, theirs = load_encoder(output), load_encoder(other)
    kernel = ours.resnet.stem.convs[0].kernel
    assert np.linalg.norm(kernel) == pytest.approx(
        np.linalg.norm(theirs.resnet.stem.convs[0].kernel), rel=1e-5
    )
