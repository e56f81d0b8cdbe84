import logging
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.checkpoints import download, zoo
from simclr_tf.checkpoints.load import load_encoder, load_model
from simclr_tf.checkpoints.write import write_model
from simclr_tf.cli.zoo import main
from simclr_tf.models.architectures import ResNetArchitecture
from simclr_tf.models.variable_layout import resnet_variables
from tests import golden
from tests.simclr_tf.checkpoints.bucket import DATA, WANTED, Bucket, release, serving
from tests.simclr_tf.checkpoints.common import Recorded, path_of

NAME = "simclrv2/pretrained/r50_1x_sk0"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SIMCLR_TF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "_BACK_OFF_SECONDS", 0.0)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with serving(Bucket(release(f"{NAME}/"))) as served:
        yield served


@pytest.fixture
def _keep_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def place_by_hand(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in WANTED:
        (folder / name).write_bytes(b"by hand")


def test_all_checkpoints_are_listed_once() -> None:
    names = [entry.name for entry in zoo.entries()]
    assert len(names) == len(set(names)) == 65 + 9
    by_kind: dict[str, int] = {}
    for entry in zoo.entries():
        by_kind[entry.kind] = by_kind.get(entry.kind, 0) + 1
    assert by_kind == {
        "pretrained": 13, "finetuned_1pct": 13, "finetuned_10pct": 13, "finetuned_100pct": 13,
        "supervised": 13, "pretrain": 3, "finetune_10pct": 3, "finetune_100pct": 3,
    }  # fmt: skip


def test_parameter_counts_are_those_of_the_networks() -> None:
    counts = golden.load_json("variables/parameter_counts")
    for entry in zoo.entries():
        file = f"r{entry.depth}_{entry.width}x_sk{int(entry.sk)}"
        if file in counts:
            whole = counts[file]["base_total_with_moving_stats"]
        else:
            assert entry.width == 4  # its published count leaves the moving statistics out
            specs = resnet_variables(ResNetArchitecture(entry.depth, entry.width))
            whole = sum(math.prod(spec.shape) for spec in specs if spec.trained)
        assert entry.parameters == round(whole / 1e6), entry.name


@pytest.mark.parametrize(
    ("name", "depth", "width", "sk", "top_1"),
    [
        ("simclrv2/finetuned_1pct/r50_1x_sk0", 50, 1, False, 57.9),
        ("simclrv2/finetuned_10pct/r50_1x_sk1", 50, 1, True, 72.1),
        ("simclrv2/finetuned_100pct/r152_3x_sk1", 152, 3, True, 83.1),
        ("simclrv2/pretrained/r101_2x_sk0", 101, 2, False, 77.0),
        ("simclrv2/supervised/r152_2x_sk1", 152, 2, True, 80.4),
        ("simclrv1/pretrain/4x", 50, 4, False, 76.6),
        ("simclrv1/finetune_10pct/2x", 50, 2, False, 71.6),
    ],
)
def test_networks_and_accuracies_are_the_published_ones(
    name: str, depth: int, width: int, sk: bool, top_1: float
) -> None:
    entry = zoo.find(f"{name}/")
    assert entry is not None
    assert (entry.name, entry.path) == (name, f"{name}/")
    assert (entry.depth, entry.width, entry.sk, entry.top_1) == (depth, width, sk, top_1)


def test_more_labels_never_make_a_published_network_worse() -> None:
    for arch in {e.name.rsplit("/", 1)[1] for e in zoo.entries() if "simclrv2" in e.name}:
        found = [zoo.find(f"simclrv2/finetuned_{n}pct/{arch}") for n in (1, 10, 100)]
        accuracies = [entry.top_1 for entry in found if entry and entry.top_1]
        assert len(accuracies) == 3
        assert accuracies == sorted(accuracies)


def test_the_table_has_a_line_for_each_and_is_aligned() -> None:
    lines = zoo.table().split("\n\n")[0].splitlines()
    assert [line.split()[0] for line in lines[1:]] == [entry.name for entry in zoo.entries()]
    assert {len(line) for line in lines} == {len(lines[0])}
    assert lines[1].split() == [NAME, "50", "1x", "no", "24", "71.7"]


def test_a_name_becomes_a_folder_and_is_fetched_once(bucket: Bucket, cache: Path) -> None:
    path = zoo.resolve(NAME, base_url=bucket.base_url)
    assert path == str(cache / NAME)
    for name in WANTED:
        assert (Path(path) / name).read_bytes() == bucket.objects[f"{NAME}/{name}"]
    before = bucket.requests
    assert zoo.resolve(f"{NAME}/", base_url=bucket.base_url) == path
    assert bucket.requests == before


def test_a_folder_that_lost_a_file_is_fetched_again(bucket: Bucket) -> None:
    folder = Path(zoo.resolve(NAME, base_url=bucket.base_url))
    (folder / DATA).unlink()
    zoo.resolve(NAME, base_url=bucket.base_url)
    assert (folder / DATA).read_bytes() == bucket.objects[f"{NAME}/{DATA}"]
    assert bucket.ranges_of("checkpoint") == [None]


def test_without_network_the_message_says_where_the_files_go(cache: Path) -> None:
    with serving(Bucket({})) as gone:
        pass
    with pytest.raises(UserError) as caught:
        zoo.resolve(NAME, base_url=gone.base_url)
    message = str(caught.value)
    assert f"could not reach {gone.base_url}/storage/v1/b/simclr-checkpoints/o" in message
    assert f"gs://simclr-checkpoints/{NAME}/" in message
    assert f"into {cache / NAME} by hand" in message
    assert "\n" not in message

    for name in WANTED:  # and so it is done
        (cache / NAME / name).write_bytes(b"by hand")
    assert zoo.resolve(NAME, base_url=gone.base_url) == str(cache / NAME)


def test_other_paths_come_back_as_they_are(tmp_path: Path) -> None:
    for path in ("runs/pretrain", "ckpt-3", "", str(tmp_path)):
        assert zoo.resolve(path) == path


def test_what_exists_here_under_a_zoo_like_path_comes_first(tmp_path: Path) -> None:
    place_by_hand(tmp_path / "simclrv2" / "mine")
    for path in ("simclrv2/mine", "simclrv2/mine/model.ckpt-9"):
        assert zoo.resolve(path) == path


def test_a_misspelt_name_is_met_with_the_nearest_ones() -> None:
    with pytest.raises(UserError, match=r"r50_1x_sk2: no such .* simclrv2/pretrained/r50_1x_sk0"):
        zoo.resolve("simclrv2/pretrained/r50_1x_sk2")
    with pytest.raises(UserError, match="simclrv1/pretrain/1x"):
        zoo.resolve("simclrv1/pretrained/1x")


def test_the_cache_is_where_the_user_keeps_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIMCLR_TF_CACHE", "~/own")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert zoo.cache_dir() == tmp_path / "own"
    monkeypatch.delenv("SIMCLR_TF_CACHE")
    assert zoo.cache_dir() == tmp_path / "xdg" / "simclr_tf"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert zoo.cache_dir() == tmp_path / ".cache" / "simclr_tf"


@pytest.mark.usefixtures("_keep_logging")
def test_the_command_lists_fetches_and_complains(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == f"{zoo.table()}\n"

    place_by_hand(cache / NAME)
    assert main([f"--fetch={NAME}"]) == 0
    assert capsys.readouterr().out == f"{cache / NAME}\n"

    assert main(["--fetch=r50_1x_sk0"]) == 1
    assert "no such public checkpoint" in capsys.readouterr().err


def test_the_command_starts_without_tensorflow_and_bears_a_closed_pipe() -> None:
    code = (
        "import sys; from simclr_tf.checkpoints.zoo import class_names;"
        "from simclr_tf.cli import zoo;"
        "class_names(); sys.argv[1:] = []; code = zoo.main();"
        "sys.exit(code or 7 * ('tensorflow' in sys.modules or 'keras' in sys.modules))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    root = Path(zoo.__file__).parents[2]
    process = subprocess.run(
        [sys.executable, "-c", code],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    os.close(writing)
    assert (process.returncode, process.stderr) == (0, "")


def objects_below(folder: Path, prefix: str) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {f"{prefix}/{p.relative_to(folder).as_posix()}": p.read_bytes() for p in files}


def test_a_fetched_checkpoint_is_loaded(tmp_path: Path) -> None:
    recorded = path_of("tf1_tiny_r18_w8_cifar_pretrain")
    with serving(Bucket(objects_below(recorded, NAME))) as served:
        folder = zoo.resolve(NAME, base_url=served.base_url)
        address = f"gs://simclr-checkpoints/{NAME}/model.ckpt-3"
        prefix = zoo.resolve(address, base_url=served.base_url)
    images = Recorded(recorded.name).images
    features = Recorded(recorded.name).outputs["final_avg_pool"]
    for path in (folder, prefix):
        np.testing.assert_allclose(
            load_encoder(path)(images), features, atol=1e-5 * np.abs(features).max()
        )


@pytest.mark.slow
@pytest.mark.parametrize("head", ["gs://", "https://storage.googleapis.com/"])
def test_a_saved_model_is_fetched_by_its_address_with_its_graph(tmp_path: Path, head: str) -> None:
    model = load_model(path_of("tf1_tiny_r18_w8_cifar_pretrain"))
    write_model(model, tmp_path / "saved", "saved_model")
    objects = objects_below(tmp_path / "saved", "deep/er/saved_model")
    shutil.rmtree(tmp_path / "saved")
    with serving(Bucket(objects)) as served:
        address = f"{head}simclr-checkpoints/deep/er/saved_model/"
        folder = zoo.resolve(address, base_url=served.base_url)
        asked = served.requests
        assert zoo.resolve(address, base_url=served.base_url) == folder
        assert served.requests == asked
    images = Recorded("tf1_tiny_r18_w8_cifar_pretrain").images
    executed = tf.saved_model.load(folder)(tf.constant(images), trainable=False)
    np.testing.assert_allclose(
        load_encoder(folder)(images), executed["final_avg_pool"], rtol=1e-4, atol=1e-6
    )


def test_addresses_elsewhere_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="only those in Google Cloud Storage can be read"):
        zoo.resolve("https://example.org/checkpoint")


@pytest.mark.parametrize("path", ["b/../../x", "../x", "b//x", "b/C:x", "b/..\\x"])
def test_an_address_cannot_name_a_place_outside_the_cache(path: str) -> None:
    with pytest.raises(UserError, match="cannot be the name of a folder"):
        zoo.resolve(f"gs://{path}")
