"""What a run leaves behind, and where: the layout of `--model_dir`."""

import json
import logging
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from data_prep.errors import UserError
from data_prep.files import write_text
from simclr_tf.config import RunConfig
from simclr_tf.settings import Config

log = logging.getLogger(__name__)

# Settings that may change when a run goes on: they alter where, how fast and how often, not what.
_FREE_TO_CHANGE = frozenset(
    """
    image_dir manifest tfrecord_dir data_dir download eval_split cache_dataset data_service
    mode eval_steps eval_batch_size keep_checkpoint_max keep_hub_module_max health_watch
    eval_crops eval_timeout knn_neighbors linear_probe distribute num_cpu_devices use_tpu tpu_name
    cache_frozen tpu_zone gcp_project master jit_compile steps_per_loop model_dir overwrite
    eval_name
    """.split()
)

# Settings that name files which may be moved together with the run.
_PLACES = frozenset(
    """
    encoder checkpoint teacher weights backbone_weights imagenet_weights image_dir manifest
    """.split()
)

_OWN_FILES = (
    "config.json", "flags.txt", "flags.json", "environment.json", "manifest.csv", "metrics.csv",
    "validation.csv", "result*.json", "predictions_*.csv", "encoder.keras", "checkpoint", "ckpt-*",
    "saved_model", "best", "blocks.json", "preprocessing.json",
    "events.out.tfevents.*", "views.png", "stopped_early.json",
)  # fmt: skip


@dataclass(frozen=True)
class RunDir:
    """The folder of one run.

    Attributes:
        path: The folder.
        config_type: The settings of its command.
        flag: That names the folder.
        free_to_change: Settings that may change when a run goes on.
        own_files: Patterns of what a run writes, and what `--overwrite` may delete.
    """

    path: Path
    config_type: ClassVar[type[Config]] = RunConfig
    flag: ClassVar[str] = "model_dir"
    free_to_change: ClassVar[frozenset[str]] = _FREE_TO_CHANGE
    own_files: ClassVar[tuple[str, ...]] = _OWN_FILES

    @property
    def config_file(self) -> Path:
        """`config.json`: every setting by topic."""
        return self.path / "config.json"

    @property
    def manifest_file(self) -> Path:
        """`manifest.csv`: which image is in which split."""
        return self.path / "manifest.csv"

    @property
    def metrics_file(self) -> Path:
        """`metrics.csv`: a row per training step."""
        return self.path / "metrics.csv"

    @property
    def validation_file(self) -> Path:
        """`validation.csv`: a row per validation during training."""
        return self.path / "validation.csv"

    @property
    def early_stop_file(self) -> Path:
        """`stopped_early.json`: the step at which early stopping ended the run, if it did."""
        return self.path / "stopped_early.json"

    @property
    def views_file(self) -> Path:
        """`views.png`: what the network is shown."""
        return self.path / "views.png"

    @property
    def encoder_file(self) -> Path:
        """`encoder.keras`: the trained encoder."""
        return self.path / "encoder.keras"

    @property
    def saved_models(self) -> Path:
        """`saved_model/`: one export per step."""
        return self.path / "saved_model"

    @property
    def best(self) -> Path:
        """`best/`: the checkpoint that validated best."""
        return self.path / "best"

    def refuse_other_images(self, identity: str) -> None:
        """Refuses to go on with other training images than the run began with.

        Args:
            identity: Of the training images, which `write_environment` keeps as `data_identity`.

        Raises:
            UserError: They are others.
        """
        known = self.read_environment().get("data_identity")
        if known not in (None, identity):
            raise UserError(
                f"the training images are not those that the run in {self.path} began with; "
                f"restore them, or give another --{self.flag}"
            )

    def prepare(self, config: Config) -> bool:
        """Makes the folder ready for a run, or finds that the same run goes on in it.

        Args:
            config: The run's settings; `overwrite` allows another run's files to be deleted.

        Returns:
            Whether an earlier part of the same run is there.

        Raises:
            UserError: The folder holds another run, or files that are not of a run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"--{self.flag}={self.path}: is a file; give a folder")
        found, overwrite = self._earlier_config(), config.values()["overwrite"]
        if found is not None and not overwrite:
            self._refuse_other(found, config)
            return True
        if found is not None or overwrite:
            self._delete_own_files()
        elif self.path.exists() and any(self.path.iterdir()):
            raise UserError(
                f"--{self.flag}={self.path}: is not empty and holds no run; give another folder, or"
                " --overwrite to write beside what is there"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        return False

    def _earlier_config(self) -> Config | None:
        if not self.config_file.exists():
            return None
        try:
            return self.config_type.load(self.config_file)
        except (UserError, ValueError) as error:
            raise UserError(
                f"{self.config_file} cannot be read ({error}); give another --{self.flag}"
            ) from None

    def _refuse_other(self, found: Config, config: Config) -> None:
        before, now = found.values(), config.values()
        differing = [
            f"--{name} was {before[name]!r}, is {now[name]!r}"
            for name in now
            if name not in self.free_to_change
            and before[name] != now[name]
            and not is_moved(name, before[name], now[name])
        ]
        if differing:
            raise UserError(
                f"--{self.flag}={self.path} holds a run with other settings "
                f"({'; '.join(differing)}); give another folder, or --overwrite"
            )

    def _delete_own_files(self) -> None:
        for pattern in self.own_files:
            for path in self.path.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def write_settings(self, config: Config) -> None:
        """Writes the settings in all three forms: by topic, flat, and as a flag file to replay."""
        values = config.values()
        write_text(self.config_file, config.to_json())
        write_text(self.path / "flags.json", json.dumps(values, indent=2) + "\n")
        lines = [f"--{name}={value}" for name, value in values.items() if value != ""]
        write_text(self.path / "flags.txt", "\n".join(lines) + "\n")

    def write_environment(self, facts: dict[str, Any]) -> None:
        """Writes what the run depends on beside its settings."""
        packages = ("tensorflow", "keras", "numpy", "scikit-learn", "pillow")
        environment = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: version(name) for name in packages},
            "command": sys.argv,
            **facts,
        }
        write_text(self.path / "environment.json", json.dumps(environment, indent=2) + "\n")

    def read_environment(self) -> dict[str, Any]:
        """What `write_environment` wrote; empty before that."""
        file = self.path / "environment.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def write_blocks(self, hashes: dict[str, str]) -> None:
        """Notes the hash of each part of the network before the first step."""
        write_text(self.path / "blocks.json", json.dumps(hashes, indent=2) + "\n")

    def blocks(self) -> dict[str, str]:
        """What `write_blocks` wrote; empty before that."""
        file = self.path / "blocks.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def write_early_stop(self, step: int) -> None:
        """Notes that early stopping ended the run."""
        write_text(self.early_stop_file, json.dumps({"step": step}) + "\n")

    def early_stop(self) -> int | None:
        """The step at which early stopping ended the run; None if it did not."""
        file = self.early_stop_file
        return int(json.loads(file.read_text())["step"]) if file.exists() else None

    def write_result(self, result: dict[str, Any], step: int, name: str = "") -> None:
        """Writes `result.json` and `result_<step>.json`, with the evaluation's name if given."""
        text = json.dumps(result, indent=2) + "\n"
        prefix = f"result_{name}" if name else "result"
        write_text(self.path / f"{prefix}.json", text)
        write_text(self.path / f"{prefix}_{step}.json", text)

    def delete_old_exports(self, keep: int) -> None:
        """Deletes all but the newest exported SavedModels; 0 keeps all."""
        if keep < 1 or not self.saved_models.exists():
            return
        steps = sorted(int(p.name) for p in self.saved_models.iterdir() if p.name.isdigit())
        for step in steps[:-keep]:
            shutil.rmtree(self.saved_models / str(step))


def is_moved(name: str, before: Any, now: Any) -> bool:
    """Whether a setting names what was moved: the old place is gone, the new has the same name."""
    if name not in _PLACES or not before or not now:
        return False
    moved = (
        not _is_there(before)
        and _is_there(now)
        and os.path.basename(os.path.normpath(before)) == os.path.basename(os.path.normpath(now))
    )
    if moved:
        log.warning("--%s was %s, which is gone; taken to be %s now", name, before, now)
    return moved


def _is_there(path: str) -> bool:
    """Whether a file, a folder or a checkpoint's prefix is there."""
    return os.path.exists(path) or os.path.exists(f"{path}.index")
