"""The folder of a run (`--model_dir`): its layout, and the files that a run leaves there."""

import json
import logging
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.reading.images import encode_lossless
from data_prep.reading.spec import OF_BEFORE
from data_prep.settings import Config
from data_prep.storage import (
    CHANGING,
    Checksums,
    claimed,
    is_unused,
    read_checked,
    read_object,
    write_bytes,
    write_text,
)
from data_prep.storage import FILE as CHECKSUMS
from simclr_tf.config.run_config import RunConfig
from simclr_tf.training.run_warnings import WARNINGS_FILE

log = logging.getLogger(__name__)

ConfigT = TypeVar("ConfigT", bound=Config)

# Settings that may change when a run goes on: they alter where, how fast and how often, not what.
_FREE_TO_CHANGE = frozenset(
    """
    image_dir manifest tfrecord_dir data_dir download eval_split cache_dataset data_service
    mode eval_steps eval_batch_size keep_checkpoint_max keep_hub_module_max health_watch
    eval_crops eval_timeout knn_neighbors linear_probe distribute num_cpu_devices use_tpu tpu_name
    cache_frozen tpu_zone gcp_project master jit_compile steps_per_loop model_dir overwrite
    eval_name memory_check floors
    """.split()
)

# Settings that name files which may be moved together with the run.
_PLACES = frozenset(
    """
    encoder checkpoint teacher weights backbone_weights imagenet_weights image_dir manifest
    """.split()
)

SETTINGS_FILE = "settings.toml"
"""Settings of a run for the flag `--config`, which repeats it."""

TRAINING_FILES = (
    "config.json", "flags.txt", "flags.json", SETTINGS_FILE, "environment.json", "manifest.csv",
    "metrics.csv", "validation.csv", "checkpoint", "ckpt-*", "best", "events.out.tfevents.*",
    "stopped_early.json",
)  # fmt: skip
"""Patterns of what every run writes, of whichever command."""

_OWN_FILES = (
    *TRAINING_FILES, "result*.json", "predictions_*.csv", "encoder.keras", "report*.html",
    "saved_model", "blocks.json", "preprocessing.json", "views.png", WARNINGS_FILE,
    "start_scores.json",
)  # fmt: skip

# Of these an evaluation that goes on beside the training writes its own.
_EVALUATED = ("result*.json", "predictions_*.csv", "report*.html")

EVALUATION = "evaluation"
"""Purpose of the claim of what may be done beside training."""

RECORD = "preprocessing.json"


@dataclass(frozen=True)
class RunDir:
    """The folder of one run.

    Attributes:
        path: The folder.
        config_type: The settings of its command.
        flag: That names the folder.
        free_to_change: Settings that may change when a run goes on.
        own_files: Patterns of what a run writes, and what `--overwrite` may delete.
        handed_out: Patterns of what the end of a run writes, files and folders, but the last.
        last_file: What it writes last: where this is, the run is complete.
    """

    path: Path
    config_type: ClassVar[type[Config]] = RunConfig
    flag: ClassVar[str] = "model_dir"
    free_to_change: ClassVar[frozenset[str]] = _FREE_TO_CHANGE
    own_files: ClassVar[tuple[str, ...]] = _OWN_FILES
    handed_out: ClassVar[tuple[str, ...]] = ("saved_model",)
    last_file: ClassVar[str] = "encoder.keras"

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
    def warnings_file(self) -> Path:
        """`warnings.csv`: what the run has warned of."""
        return self.path / WARNINGS_FILE

    @property
    def start_scores_file(self) -> Path:
        """`start_scores.json`: k-NN scores of the network before the first step."""
        return self.path / "start_scores.json"

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

    @property
    def checksums(self) -> Checksums:
        """The checksums of the files that the run's state lies in."""
        return Checksums(self.path)

    @contextmanager
    def sealing(self, *patterns: str) -> Iterator[None]:
        """Notes the checksums of what the block writes, for `is_whole`.

        Args:
            patterns: Of files, and of folders with all that is in them; names in this folder.
        """
        self.checksums.forget(*self._sealed(patterns))
        yield
        found = (path for pattern in patterns for path in self.path.glob(pattern))
        files = (file for path in found for file in (path.rglob("*") if path.is_dir() else [path]))
        self.checksums.note_files(
            [file.relative_to(self.path).as_posix() for file in files if file.is_file()]
        )

    def _sealed(self, patterns: Iterable[str]) -> list[str]:
        """Files with a checksum that match one of the patterns, or lie in a folder that does."""
        patterns = tuple(patterns)
        return [name for name in self.checksums.names()
                if any(fnmatch(name.split("/")[0], pattern) for pattern in patterns)]  # fmt: skip

    @contextmanager
    def handing_out(self) -> Iterator[None]:
        """Seals what the block writes: all that a finished run hands out but its last file.

        The last file, and what is damaged, is removed before, so that nothing is made from it.
        """
        (self.path / self.last_file).unlink(missing_ok=True)
        for name in self._sealed(self.handed_out):
            if self.checksums.fault(name):
                (self.path / name).unlink(missing_ok=True)
        with self.sealing(self.last_file, *self.handed_out):
            yield

    def is_sealed(self) -> bool:
        """True if the checksums of what the run hands out are known: it was complete once."""
        return self.last_file in self.checksums.names()

    def is_whole(self) -> bool:
        """True if the last file is there, and all that was handed out is as it was written.

        Damaged and missing files are logged. Folders of earlier versions have no checksums, so
        nothing is checked in them.
        """
        names = self._sealed((self.last_file, *self.handed_out))
        faults = {name: fault for name in names if (fault := self.checksums.fault(name))}
        complete = (self.path / self.last_file).exists()
        for name, fault in faults.items():
            # A kill may have kept the last file from its place: nothing to warn of.
            level = logging.WARNING if complete or name != self.last_file else logging.INFO
            log.log(level, "%s %s; what is handed out is made anew", self.path / name, fault)
        return complete and not faults

    def claim(self, purpose: str = "") -> AbstractContextManager[None]:
        """Keeps other processes out of the folder for the length of a block.

        Args:
            purpose: Empty for training; other work that may be done beside it has its own name.

        Raises:
            UserError: Another process holds the folder; nothing has been changed then.
        """
        return claimed(
            self.path,
            f"--{self.flag}={self.path}: another process is at work there; wait for it to end, or "
            "give another folder",
            f".lock{purpose and f'-{purpose}'}",
        )

    def refuse_other_images(self, identity: str, manifest: Manifest | None = None) -> None:
        """Refuses to go on with other training images than the run began with.

        Args:
            identity: Of the training images, which `write_environment` keeps as `data_identity`.
            manifest: All images; where the environment is damaged, the manifest in the folder
                tells whether they are the same.

        Raises:
            UserError: They are others, or nothing tells any more.
        """
        try:
            known = self.read_environment().get("data_identity")
        except UserError as error:
            log.warning("%s; it is made anew, and the images are compared by manifest.csv", error)
            same = manifest is None or self._is_manifest(manifest)
        else:
            same = known in (None, identity)
        if not same:
            raise UserError(
                f"the training images are not those that the run in {self.path} began with; "
                f"restore them, or give another --{self.flag}"
            )

    def as_begun(self, config: ConfigT) -> ConfigT:
        """The settings with which a run of an earlier version goes on.

        Where the default has changed since, the run keeps what it began with: a run that has seen
        photographs as stored, whether its settings say so or it began before the EXIF orientation
        was applied; and a run whose intensity rule took its percentiles of a sample of the values.

        Args:
            config: As given; with the settings of `Declaration`.
        """
        values = config.values()
        earlier = {} if values["overwrite"] else self._reading_of_before()
        changes = {n: v for n, v in earlier.items() if OF_BEFORE[n] == v != values[n]}
        if "exif" in changes:
            log.info("--exif=ignore: the run in %s has seen images as they are stored", self.path)
        if "percentiles" in changes and values["intensity"] != "none":
            log.info("--percentiles=sampled: so the run in %s has found its limits", self.path)
        return type(config).from_values({**values, **changes}) if changes else config

    def _reading_of_before(self) -> dict[str, str]:
        """The values that the run in the folder has of `OF_BEFORE`; empty without a run."""
        try:
            before = read_object(self.config_file)["reading"]
            return {name: str(before.get(name, how)) for name, how in OF_BEFORE.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            pass  # damaged: the second copy is read, as in `_earlier_config`
        try:
            before = read_object(self.flat_settings_file)
            return {name: str(before.get(name, how)) for name, how in OF_BEFORE.items()}
        except (UserError, OSError, TypeError):
            return {}  # whoever reads it as a whole complains

    def _is_manifest(self, manifest: Manifest) -> bool:
        fault = self.checksums.fault(self.manifest_file.name)
        if fault:
            raise UserError(
                f"{self.path}: environment.json and manifest.csv are both damaged, so nothing "
                f"tells which images the run began with; give another --{self.flag}"
            )
        return Manifest.load(self.manifest_file).sha256() == manifest.sha256()

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
            raise UserError("is a file; give a folder", setting=self.flag, value=self.path)
        overwrite = config.values()["overwrite"]
        there = self._holds_run()
        if there and not overwrite:
            self._refuse_other(self._earlier_config(), config)
            return True
        if there or overwrite:
            self._delete_own_files()
        elif self.path.exists() and not is_unused(self.path, self._halves()):
            raise UserError(
                "is not empty and holds no run; give another folder, or"
                " --overwrite to write beside what is there",
                setting=self.flag,
                value=self.path,
            )
        self.path.mkdir(parents=True, exist_ok=True)
        for half in self._halves():
            half.unlink()
        return False

    def _halves(self) -> list[Path]:
        """Temporary files left by a process that was killed while it wrote the first files."""
        return [*self.path.glob(".config.json.*"), *self.path.glob(f".{CHECKSUMS}.*")]

    def remove_halves(self, training: bool = True) -> None:
        """Removes what processes that were killed while they wrote files have left of them.

        Args:
            training: Whether the folder is claimed for training, not for an evaluation.
        """
        if not training:
            self._remove_halves_of(_EVALUATED)
            return
        own = (pattern for pattern in self.own_files if pattern not in _EVALUATED)
        self._remove_halves_of((*own, CHECKSUMS))
        if any(self._halves_of(_EVALUATED)):
            with suppress(UserError), self.claim(EVALUATION):  # which may be at work
                self._remove_halves_of(_EVALUATED)

    def _remove_halves_of(self, patterns: Iterable[str]) -> None:
        for half in self._halves_of(patterns):
            half.unlink(missing_ok=True)

    def _halves_of(self, patterns: Iterable[str]) -> Iterator[Path]:
        """The temporary files of `data_prep.storage.write_bytes`."""
        for pattern in patterns:
            yield from self.path.glob(f".{pattern}.????????")
            for folder in self.path.glob(pattern):
                if folder.is_dir():
                    yield from folder.glob(".*.????????")

    def _holds_run(self) -> bool:
        """True if the settings of a run are there, in at least one of their two forms."""
        return self.config_file.exists() or self.flat_settings_file.exists()

    @property
    def flat_settings_file(self) -> Path:
        """`flags.json`: every setting, flat."""
        return self.path / "flags.json"

    def _earlier_config(self) -> Config:
        """The settings of the run that is there; of the second copy if the first is damaged."""
        try:
            found = self.config_type.from_json(read_checked(self.config_file))
            # Not all said by runs of before.
            values = {**found.values(), **self._reading_of_before()}
            return self.config_type.from_values(values)
        except FileNotFoundError:
            why = f"{self.config_file} is gone"
        except (UserError, ValueError, AttributeError, TypeError) as error:
            why = str(error)
            if self.config_file.name not in why:
                why = f"{self.config_file} cannot be read ({error})"
        try:
            flat = {**OF_BEFORE, **read_object(self.flat_settings_file)}
            found = self.config_type.from_values(flat)
        except (UserError, OSError, TypeError):
            raise UserError(f"{why}; give another --{self.flag}") from None
        log.warning("%s; the settings are taken from flags.json, and written anew", why)
        return found

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
        # First the settings: what a kill leaves of the others is then no run that goes on.
        first = ("config.json", "flags.json")
        last = ("*.csv.damaged", ".partial", CHECKSUMS, CHANGING)
        for pattern in (*first, *self.own_files, *last):
            for path in self.path.glob(pattern):
                if path.is_dir():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def write_settings(self, config: Config) -> None:
        """Writes the settings in all forms: by topic, flat, and as files to replay them with."""
        values = config.values()
        self.checksums.write_text(self.config_file.name, config.to_json())
        self.checksums.write_text(self.flat_settings_file.name, json.dumps(values, indent=2) + "\n")
        given = {name: value for name, value in values.items() if value != ""}
        if any(given.get(name) for name in ("image_dir", "manifest", "tfrecord_dir")):
            given.pop("dataset", None)  # whatever else names the images wins over it
        lines = [f"--{name}={value}" for name, value in given.items()]
        write_text(self.path / "flags.txt", "\n".join(lines) + "\n")
        write_text(self.path / SETTINGS_FILE, config.to_toml(given))

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
        text = json.dumps(environment, indent=2) + "\n"
        self.checksums.write_text("environment.json", text)

    def read_environment(self) -> dict[str, Any]:
        """Reads what `write_environment` wrote; empty before that.

        Raises:
            UserError: The file is damaged.
        """
        try:
            return read_object(self.path / "environment.json")
        except FileNotFoundError:
            return {}

    def write_manifest(self, manifest: Manifest) -> None:
        """Writes which image is in which split."""
        self.checksums.forget(self.manifest_file.name)
        manifest.save(self.manifest_file)
        self.checksums.note_file(self.manifest_file.name)

    def write_record(self, record: dict[str, Any]) -> None:
        """Writes how images are prepared, where `checkpoints.preprocessing` finds it."""
        self.checksums.write_text(RECORD, json.dumps(record, indent=2) + "\n")

    def write_blocks(self, hashes: dict[str, str]) -> None:
        """Notes the hash of each part of the network before the first step."""
        self.checksums.write_text("blocks.json", json.dumps(hashes, indent=2) + "\n")

    def blocks(self) -> dict[str, str]:
        """Reads what `write_blocks` wrote; empty if it is missing or damaged, which is logged."""
        try:
            return read_object(self.path / "blocks.json")
        except FileNotFoundError:
            log.warning("%s is gone", self.path / "blocks.json")
        except UserError as error:
            log.warning("%s", error)
        return {}

    def write_start_scores(self, scores: dict[str, float]) -> None:
        """Notes the k-NN scores of the network before the first step."""
        name = self.start_scores_file.name
        self.checksums.write_text(name, json.dumps(scores, indent=2) + "\n")

    def read_start_scores(self) -> dict[str, float]:
        """The scores before the first step; empty if none were noted, or the note is damaged."""
        try:
            return read_object(self.start_scores_file)
        except FileNotFoundError:
            return {}
        except UserError as error:
            log.warning("%s; scores are not held against those before training", error)
            return {}

    def write_views(self, picture: np.ndarray) -> None:
        """Writes `views.png`.

        Args:
            picture: uint8 [H, W, 3].
        """
        with self.sealing(self.views_file.name):
            write_bytes(self.views_file, encode_lossless(picture))

    def write_early_stop(self, step: int) -> None:
        """Notes that early stopping ended the run."""
        self.checksums.write_text(self.early_stop_file.name, json.dumps({"step": step}) + "\n")

    def forget_early_stop(self) -> None:
        """Removes the note of `write_early_stop`."""
        self.checksums.forget(self.early_stop_file.name)
        self.early_stop_file.unlink(missing_ok=True)

    def early_stop(self) -> int | None:
        """The step at which early stopping ended the run; None if it did not.

        A damaged note does not count: training finds out again, from the validations.
        """
        try:
            return int(read_object(self.early_stop_file)["step"])
        except FileNotFoundError:
            return None
        except (UserError, KeyError, ValueError) as error:
            log.warning("%s; whether the run stopped early is found out anew", error)
            return None

    def evaluation_page(self, name: str = "") -> Path:
        """`report.html` of the run, or of one of its evaluations by name."""
        return self.path / (f"report_{name}.html" if name else "report.html")

    def write_result(self, result: dict[str, Any], step: int, name: str = "") -> None:
        """Writes `result.json` and `result_<step>.json`, with the evaluation's name if given."""
        text = json.dumps(result, indent=2) + "\n"
        prefix = f"result_{name}" if name else "result"
        self.checksums.write_text(f"{prefix}.json", text)
        self.checksums.write_text(f"{prefix}_{step}.json", text)

    def delete_old_exports(self, keep: int) -> None:
        """Deletes all but the newest exported SavedModels; 0 keeps all."""
        if keep < 1 or not self.saved_models.exists():
            return
        steps = sorted(int(p.name) for p in self.saved_models.iterdir() if p.name.isdigit())
        for step in steps[:-keep]:
            shutil.rmtree(self.saved_models / str(step))


def is_moved(name: str, before: Any, now: Any) -> bool:
    """True if a setting names what was moved: the old place is gone, the new has the same name."""
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
    """True if a file, a folder or a checkpoint's prefix is there."""
    return os.path.exists(path) or os.path.exists(f"{path}.index")
