"""Every setting of every command: declared whole, given by its flag, read by what it governs."""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any, get_type_hints

import numpy as np
import pytest
from PIL import Image

from data_prep.manifest.manifest import Manifest, Record
from data_prep.settings import Config, Setting
from finetune.cli import depth_train, finetune, transfer
from finetune.cli.simclr import VERBS
from finetune.config import FinetuneConfig
from finetune.depth.settings import DepthConfig
from finetune.transfer_config import TransferConfig
from simclr_tf.cli import embed
from simclr_tf.cli import run as run_command
from simclr_tf.config.run_config import RunConfig
from simclr_tf.embedding.settings import EmbedConfig
from tests.finetune.runs import write_encoder
from tests.images import make_folder
from tests.tiny import NAME as TINY

COMMANDS = {verb.name: verb.command() for verb in VERBS}


@pytest.mark.parametrize("verb", COMMANDS)
def test_settings_are_declared_whole(verb: str) -> None:
    command = COMMANDS[verb]
    settings = command.config_type.settings()
    names = Counter(name for s in settings for name in (s.name, s.also) if name)
    assert max(names.values()) == 1
    for s in settings:
        assert s.help, s.name
        assert s.title, s.name
        assert s.required or not s.problem(command.defaults.get(s.name, s.default)), s.name
        assert s.kind in (bool, int, float, str, tuple), s.name


def another(s: Setting) -> Any:
    """A legal value that is not the default."""
    if s.choices:
        return next(choice for choice in s.choices if choice != s.default)
    if s.kind is bool:
        return not s.default
    if s.kind is tuple and s.item in (int, float):
        return (another_number(s, 0.5),) * 2
    if s.kind is tuple:
        return ("a", "b")
    if s.kind is str:
        return "another"
    return another_number(s, s.default or 0)


def wrong(s: Setting, number: float) -> str:
    return s.problem((number,) if s.kind is tuple else number)


def another_number(s: Setting, near: float) -> float:
    low = near if s.low is None else s.low
    high = near + 3 if s.high is None else s.high
    candidates = [low, high, (low + high) / 2, low + 1]
    kind = int if int in (s.kind, s.item) else float
    return next(
        kind(c)
        for c in candidates
        if not wrong(s, kind(c)) and kind(c) != s.default and (kind(c),) * 2 != s.default
    )


@pytest.mark.parametrize("verb", COMMANDS)
def test_every_flag_arrives_and_is_written_as_it_was_given(
    verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = COMMANDS[verb]
    kind = command.config_type
    monkeypatch.setattr(kind, "validate", Config.validate)  # each setting for itself
    needed = {s.name: another(s) for s in kind.settings() if s.required}
    for s in kind.settings():
        if s.name == "preset":
            continue  # the others change with it
        values = {**command.defaults, **needed, s.name: another(s)}
        config = kind.from_values(values)
        line = config.flags({*needed, s.name})
        parsed, given = command.parsed(line)
        assert parsed == config, line
        assert given == {*needed, s.name}
        assert parsed.values()[s.name] == another(s) != s.default


# Read only where the setting named beside it asks for it: no test can have a TPU, and so on.
ELSEWHERE = {
    "tpu_name", "tpu_zone", "gcp_project", "master",  # --use_tpu
    "data_dir", "dataset", "download",  # images of TensorFlow Datasets
    "tfrecord_dir", "data_service",  # shards, and batches from other machines
    "overwrite", "eval_timeout",  # of a folder that is there; of --mode=eval
    "pinned",  # embeddings side by side
    "real_manifest", "freeze_encoder",  # images of a microscope; a pretrained encoder
}  # fmt: skip


def in_validation(frame: FrameType | None) -> bool:
    """True in a check of all settings and in what it calls, such as a conversion that it tries."""
    while frame is not None:
        if frame.f_code.co_name.startswith(("validate", "_validate")):
            return True
        frame = frame.f_back
    return False


@contextmanager
def reads_of(config_type: type[Config]) -> Iterator[set[str]]:
    """Names of the settings that are read meanwhile, by anything but copies and checks of all."""
    read: set[str] = set()
    generic = ("data_prep/settings.py", "/dataclasses.py", "test_every_setting.py")
    sections = [get_type_hints(config_type)[f.name] for f in fields(config_type)]  # type: ignore[arg-type]
    names = {f.name for section in sections for f in fields(section)}

    def noting(self: Any, name: str) -> Any:
        if name in names and name not in read:
            frame = sys._getframe(1)
            if not frame.f_code.co_filename.endswith(generic) and not in_validation(frame):
                read.add(name)
        return object.__getattribute__(self, name)

    with pytest.MonkeyPatch.context() as patch:
        for section in {base for s in sections for base in s.__mro__ if base is not object}:
            if "__dataclass_fields__" in vars(section):
                patch.setattr(section, "__getattribute__", noting, raising=False)
        yield read


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("settings")
    make_folder(root / "images", 14, 32)
    write_encoder(root / "encoder.keras")
    rng = np.random.default_rng(0)
    records = []
    for number in range(8):
        split = "train" if number < 5 else "validation" if number < 7 else "test"
        for kind in ("image", "depth"):
            (root / kind).mkdir(exist_ok=True)
            pixels = rng.integers(0, 256, (16, 16)).astype(np.uint8)
            Image.fromarray(pixels).save(root / kind / f"{number}.png")
        records.append(
            Record(f"image/{number}.png", split=split, target=f"depth/{number}.png", case="a")
        )
    Manifest(tuple(records), str(root)).save(root / "pairs.csv")
    return root


def of_run(root: Path) -> None:
    from simclr_tf.training import distribution
    from simclr_tf.training.build import build_seeded, small_view_config, view_config

    tiny = [f"--backbone={TINY}", "--image_size=32", "--train_batch_size=8", "--train_steps=2"]
    tiny += [f"--image_dir={root / 'images'}", "--mode=train_then_eval", "--validate_every=1"]
    assert run_command.main([*tiny, f"--model_dir={root / 'pretrained'}"]) == 0
    tuned = ["--train_mode=finetune", f"--checkpoint={root / 'pretrained'}", "--labels_per_class=3"]
    assert run_command.main([*tiny, *tuned, f"--model_dir={root / 'tuned'}"]) == 0
    taught = ["--train_mode=distill", f"--teacher={root / 'tuned'}"]
    assert run_command.main([*tiny, *taught, f"--model_dir={root / 'taught'}"]) == 0
    for values in (
        {"method": "moco", "queue_size": 16}, {"method": "byol"}, {"method": "simsiam"},
        {"method": "barlow_twins"}, {"method": "vicreg"}, {"method": "swav", "prototypes": 8},
        {"backbone": "vit_tiny", "transformer_depth": 4}, {"backbone": "resnet"},
    ):  # fmt: skip
        small = {"image_size": 32, "train_batch_size": 8, "width_multiplier": 0.0625}
        config = RunConfig.from_values({"backbone": TINY, **small, "resnet_depth": 18, **values})
        view_config(config, 3)
        small_view_config(config, 3)
        build_seeded(config, distribution.connect(config.machine), 3, 0, num_examples=32)


def of_finetune(root: Path) -> None:
    line = [str(root / "encoder.keras"), str(root / "fine"), f"--image_dir={root / 'images'}"]
    assert (
        finetune.main(
            [*line, "--train_steps=3", "--bootstrap=100", "--augment=views", "--labels_per_class=3"]
        )
        == 0
    )
    line[1] = str(root / "generated")
    assert finetune.main([*line, "--train_steps=3", "--bootstrap=100", "--augment=generator"]) == 0


def of_transfer(root: Path) -> None:
    line = [str(root / "images"), "--backbone=mobilenet", "--weights=none", "--image_size=32"]
    line += ["--cut_layer=conv_pw_2_relu", "--train_steps=2", "--bootstrap=100", "--nofloors"]
    line += ["--labels_per_class=4"]
    more = ["--unfreeze_after=conv_pw_1_relu", "--unfreeze_epochs=1"]
    assert transfer.main([*line, *more, f"--output={root / 'transferred'}"]) == 0
    other = ["--preprocess=none", "--augment=generator", "--pipeline=image_data_generator"]
    assert transfer.main([*line, *other, f"--output={root / 'other'}", "--grad_cam=0"]) == 0


def of_embed(root: Path) -> None:
    line = [str(root / "encoder.keras"), str(root / "images"), str(root / "embedding")]
    assert embed.main([*line, "--suggest_labels=3", "--projections=pca"]) == 0
    listed = [str(root / "encoder.keras"), f"--manifest={root / 'embedding' / 'manifest.csv'}"]
    assert embed.main([*listed, f"--output={root / 'listed'}", "--projections=pca"]) == 0


def of_depth(root: Path) -> None:
    pairs = f"--manifest={root / 'pairs.csv'}"
    assert depth_train.main([pairs, "--train_epochs=1", f"--output={root / 'epoch'}"]) == 0
    line = [pairs, "--train_steps=2", "--train_batch_size=2"]
    assert depth_train.main([*line, f"--output={root / 'unet'}", "--filters=2,2"]) == 0
    auto = ["--model=autoencoder", "--bottleneck=4", "--filters=2,2"]
    assert depth_train.main([*line, *auto, f"--output={root / 'auto'}"]) == 0
    cycle = ["--model=cyclegan", "--filters=2,2", "--residual_blocks=1", "--guided_weight=1"]
    cycle += ["--gan_loss=wgan_gp", "--critic_steps=2"]
    assert depth_train.main([*line, *cycle, f"--output={root / 'cycle'}"]) == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Please import `affine_transform`")
@pytest.mark.parametrize(
    ("config_type", "work"),
    [
        (RunConfig, of_run), (FinetuneConfig, of_finetune), (TransferConfig, of_transfer),
        (EmbedConfig, of_embed), (DepthConfig, of_depth),
    ],
    ids=["run", "finetune", "transfer", "embed", "depth"],
)  # fmt: skip
def test_no_setting_is_accepted_and_ignored(
    config_type: type[Config], work: Callable[[Path], None], place: Path
) -> None:
    with reads_of(config_type) as read:
        work(place)
    assert {s.name for s in config_type.settings()} - read - ELSEWHERE == set()
