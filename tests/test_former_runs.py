"""Folders that version 0.1.0 left go on, and its networks give what they gave.

`tests/former` holds what 0.1.0 wrote on sixteen images, with `@FOLDER@` for where that was: two
runs that were killed in the middle, the logs of the same runs without a kill, an encoder with its
features, and a classifier with its predictions.
"""

import shutil
from pathlib import Path

import numpy as np
import pytest

from data_prep.csv_files import read_rows
from data_prep.reading.images import read_image
from simclr_tf.training.callbacks import read_metrics

FORMER = Path(__file__).parent / "former"

pytestmark = pytest.mark.slow

PRETRAIN = [
    "--image_size=16", "--backbone=vit_tiny", "--width_multiplier=0.08333333",
    "--transformer_depth=4", "--patch_size=4", "--train_batch_size=4", "--precision=float32",
    "--image_dir=images", "--mode=train", "--train_mode=pretrain", "--train_steps=24",
    "--checkpoint_steps=4", "--keep_checkpoint_max=1", "--learning_rate=0.01", "--optimizer=adam",
    "--nouse_blur", "--validate_every=1", "--model_dir=stopped_pretrain",
]  # fmt: skip
FINETUNE = [
    "--encoder=encoder.keras", "--manifest=whole_pretrain/manifest.csv", "--train_epochs=12",
    "--train_batch_size=4", "--bootstrap=100", "--keep_checkpoint_max=1", "--precision=float32",
    "--output=stopped_classifier",
]  # fmt: skip


@pytest.fixture
def former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `tests/former`, which is the working directory."""
    folder = tmp_path / "former"
    shutil.copytree(FORMER, folder)
    for table in folder.rglob("*.csv"):
        text = table.read_text()
        if "@FOLDER@" in text:
            table.write_text(text.replace("@FOLDER@", str(folder)))
    monkeypatch.chdir(folder)
    return folder


def assert_same_log(got: Path, wanted: Path) -> None:
    """Columns may have come since; those that were there hold the same numbers at all steps."""
    found, former = read_metrics(got), read_metrics(wanted)
    for name in set(former) - {"seconds"}:
        np.testing.assert_allclose(found[name], former[name], rtol=2e-4, atol=2e-5, err_msg=name)


def test_a_pretraining_goes_on_as_if_it_had_not_been_stopped(former: Path) -> None:
    from simclr_tf.cli.run import main

    before = (former / "stopped_pretrain" / "metrics.csv").read_text()
    assert main(PRETRAIN) == 0
    after = (former / "stopped_pretrain" / "metrics.csv").read_text()
    assert after.startswith(before.splitlines()[0])
    for log in ("metrics.csv", "validation.csv"):
        assert_same_log(former / "stopped_pretrain" / log, former / "whole_pretrain" / log)


def test_a_classifier_goes_on_as_if_it_had_not_been_stopped(former: Path) -> None:
    from finetune.cli.finetune import main

    assert main(FINETUNE) == 0
    for log in ("metrics.csv", "history.csv"):
        assert_same_log(former / "stopped_classifier" / log, former / "whole_classifier" / log)
    rows = [list(read_rows(former / name / "predictions.csv"))
            for name in ("stopped_classifier", "whole_classifier")]  # fmt: skip
    assert [r["predicted"] for r in rows[0]] == [r["predicted"] for r in rows[1]]


def test_a_classifier_predicts_what_it_predicted(former: Path, tmp_path: Path) -> None:
    from finetune.cli.predict import main

    output = tmp_path / "new.csv"
    arguments = ["--model=whole_classifier", "--image_dir=images", f"--output={output}"]
    assert main(arguments) == 0
    tables = [former / "whole_classifier" / "predictions.csv", output]
    known, new = ({Path(r["path"]).name: r for r in read_rows(table)} for table in tables)
    assert set(known) <= set(new)
    columns = [name for name in next(iter(known.values())) if name.startswith("score_")]
    assert columns
    for name, row in known.items():
        ranked = {new[name][f"class_{k}"]: float(new[name][f"score_{k}"]) for k in (1, 2)}
        got = [ranked[column.removeprefix("score_")] for column in columns]
        np.testing.assert_allclose(got, [float(row[c]) for c in columns], atol=1e-4)


def test_an_encoder_gives_the_features_that_it_gave(former: Path) -> None:
    from simclr_tf.checkpoints.load import load_encoder

    encoder = load_encoder(former / "encoder.keras")
    files = [row["path"] for row in read_rows(former / "features.csv")]
    gray = np.stack([read_image(file) for file in files]).astype(np.float32) / 255
    features = encoder(gray, training=False)
    np.testing.assert_allclose(features, np.load(former / "features.npy"), rtol=1e-4, atol=1e-4)
