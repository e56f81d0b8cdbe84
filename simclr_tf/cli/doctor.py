"""`simclr doctor`: versions, devices, optional packages, disk, and how fast this machine trains."""

import importlib.util
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from data_prep.cli.command import Command
from data_prep.cli.runtime import import_tensorflow
from data_prep.settings import Config, setting

NAME = "simclr-doctor"
DESCRIPTION = """Says what this machine has for training: versions, devices, whether a GPU is used
and why not, which precision pays, memory, disk and optional packages; then trains a small network
for a few seconds and says how many images a second it takes."""

_PACKAGES = ("simclr-tf", "tensorflow", "keras", "numpy", "scikit-learn", "imagecodecs", "absl-py")
# Module -> what it is for, and the extra that brings it.
_OPTIONAL = {
    "h5py": "HDF5 files: pip install 'simclr-tf[science]'",
    "hdf5plugin": "compressed HDF5 files: pip install 'simclr-tf[science]'",
    "astropy": "FITS files: pip install 'simclr-tf[science]'",
    "umap": "UMAP projections: pip install 'simclr-tf[umap]'",
    "onnxruntime": "ONNX exports: pip install 'simclr-tf[onnx]'",
    "lenstronomy": "lens images by lenstronomy: pip install 'simclr-tf[lensing]'",
}


@dataclass(frozen=True)
class DoctorSettings:
    """Doctor."""

    seconds: float = setting(10.0, "Seconds to train for; 0 = not at all.", low=0)
    image_size: int = setting(64, "Side of the images in pixels.", low=16)
    train_batch_size: int = setting(64, "Images of a batch.", low=2)


@dataclass(frozen=True)
class DoctorConfig(Config):
    """All settings of `simclr doctor`."""

    doctor: DoctorSettings = field(default_factory=DoctorSettings)


def run(config: DoctorConfig, _given: Collection[str]) -> None:
    """Prints what there is, line by line."""
    for line in _of_the_machine():
        print(line, flush=True)
    import_tensorflow()
    for line in _of_tensorflow():
        print(line, flush=True)
    if config.doctor.seconds:
        print(_speed(config.doctor), flush=True)


def _of_the_machine() -> Iterator[str]:
    yield f"{'python':<16}{platform.python_version()} on {platform.platform()}"
    for package in _PACKAGES:
        try:
            yield f"{package:<16}{version(package)}"
        except PackageNotFoundError:
            yield f"{package:<16}missing"
    for module, purpose in _OPTIONAL.items():
        here = importlib.util.find_spec(module) is not None
        yield f"{module:<16}{'there' if here else f'not there; for {purpose}'}"
    usage = shutil.disk_usage(Path.cwd())
    yield f"{'disk here':<16}{usage.free / 2**30:.1f} GiB free of {usage.total / 2**30:.1f}"


def _of_tensorflow() -> Iterator[str]:
    import tensorflow as tf

    from simclr_tf.config.sections import MachineSettings
    from simclr_tf.training import distribution
    from simclr_tf.training.memory import memory_here

    devices = distribution.connect(MachineSettings())
    yield f"{'devices':<16}{devices.describe()}"
    if not tf.config.list_physical_devices("GPU"):
        built = tf.test.is_built_with_cuda()
        nvidia = shutil.which("nvidia-smi") is not None
        why = (
            "no nvidia-smi: no driver, or no NVIDIA GPU"
            if not nvidia
            else "TensorFlow finds no CUDA libraries: pip install 'simclr-tf[gpu]'"
            if built
            else "this TensorFlow is built without CUDA"
        )
        yield f"{'GPU':<16}not used: {why}"
    precision = distribution.choose_precision("auto", devices)
    yield f"{'precision':<16}--precision=auto takes {precision}"
    yield f"{'memory':<16}{memory_here(devices) / 2**30:.1f} GiB may be taken"


def _speed(settings: DoctorSettings) -> str:
    """Trains a small network on generated images, and says how fast."""
    from data_prep.synthetic.write import write_set
    from simclr_tf.config.run_config import RunConfig
    from simclr_tf.training.batches import PREFETCH
    from simclr_tf.training.speed import pretraining_steps

    config = RunConfig.from_values(
        {
            "image_size": settings.image_size,
            "train_batch_size": settings.train_batch_size,
            "resnet_depth": 18,
            "width_multiplier": 0.5,
            "lineareval_while_pretraining": False,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        images = write_set(
            "lattice",
            Path(folder) / "images",
            images_per_class=-(-2 * settings.train_batch_size // 13),
            image_size=(settings.image_size, settings.image_size),
            seed=0,
        )
        batches, step = pretraining_steps(config, images)
        step(batches, PREFETCH + 2)
        steps, began = 0, time.perf_counter()
        while (seconds := time.perf_counter() - began) < settings.seconds:
            step(batches, 1)
            steps += 1
    rate = steps * settings.train_batch_size / seconds
    size = settings.image_size
    return (
        f"{'training':<16}{rate:.0f} images a second: SimCLR, ResNet-18 of half width, {size} x"
        f" {size} pixels, batch {settings.train_batch_size}, {steps} steps in {seconds:.1f} s"
    )


COMMAND = Command(NAME, DESCRIPTION, DoctorConfig, run)
main = COMMAND.main


if __name__ == "__main__":
    sys.exit(main())
