"""Every job as a function: images and output by position, declared settings by keyword.

Each runs the command of the same name and returns an object of the folder that it leaves. Only
settings that are given count as given, as on the command line.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.manifest.read_options import READING_FIELDS
from data_prep.storage import read_object
from finetune.api.call import call, speaking_python, with_settings_of
from finetune.api.images import Images, PathLike, places
from finetune.api.results import (
    Classifier,
    Comparison,
    DepthMaps,
    DepthModel,
    Embedding,
    Folder,
    Folds,
    Predictions,
    Results,
    Run,
    Sweep,
    export_classifier,
    numbers_in,
    predict_depth,
    predict_images,
)

_PLACES = ("image_dir", "manifest", "output")


@with_settings_of("synthesize", "output")
@speaking_python
def synthesize(output: PathLike, **settings: Any) -> Path:
    """Makes a labelled set of images; the same seed gives the same bytes.

    Args:
        output: A new folder, with a folder of images for each class.
        **settings: Those of `simclr synthesize`.

    Returns:
        The folder.
    """
    call("synthesize", {"output": os.fspath(output), **settings})
    return Path(output)


@with_settings_of("pretrain", "model_dir", "image_dir", "manifest")
@speaking_python
def pretrain(images: Images, output: PathLike, **settings: Any) -> Run:
    """Pretrains a network on images, with labels or without; a stopped run goes on.

    What is not given suits the images and the machine, and is logged with its reason.

    Args:
        images: A folder, a CSV or an `ImageSet`.
        output: Folder of the run.
        **settings: Those of `simclr pretrain`.
    """
    call("pretrain", {**places(images, output, output_setting="model_dir"), **settings})
    return Run(output)


@with_settings_of("run", "model_dir", "image_dir", "manifest")
@speaking_python
def run(images: Images, output: PathLike, **settings: Any) -> Run:
    """SimCLR's run.py: pretrains, fine-tunes or evaluates, with the reference's defaults.

    Args:
        images: A folder, a CSV or an `ImageSet`.
        output: Folder of the run.
        **settings: Those of `simclr run`.
    """
    call("run", {**places(images, output, output_setting="model_dir"), **settings})
    return Run(output)


@with_settings_of("finetune", "encoder", "output", "image_dir", "manifest")
@speaking_python
def finetune(
    encoder: PathLike, output: PathLike, images: Images | None = None, **settings: Any
) -> Classifier:
    """Trains a classifier on a pretrained network and measures it on held-out images.

    Args:
        encoder: A `Run`, its folder, or any checkpoint.
        output: Folder of the classifier.
        images: A folder, a CSV or an `ImageSet`; None = those of the encoder's run.
        **settings: Those of `simclr finetune`.
    """
    own = {"encoder": os.fspath(encoder), **places(images, output)}
    call("finetune", {**own, **settings})
    return Classifier(output)


@with_settings_of("transfer", *_PLACES)
@speaking_python
def transfer(images: Images, output: PathLike, **settings: Any) -> Classifier:
    """Trains a new head on a network of keras.applications and measures it.

    Args:
        images: A folder, a CSV or an `ImageSet`.
        output: Folder of the classifier.
        **settings: Those of `simclr transfer`.
    """
    call("transfer", {**places(images, output), **settings})
    return Classifier(output)


@with_settings_of("distill", "model_dir", "image_dir", "manifest", "teacher")
@speaking_python
def distill(teacher: PathLike, images: Images, output: PathLike, **settings: Any) -> Run:
    """Trains a small network on what a fine-tuned one says of images without labels.

    Args:
        teacher: Folder or checkpoint of the fine-tuned network.
        images: A folder, a CSV or an `ImageSet`.
        output: Folder of the run.
        **settings: Those of `simclr distill`.
    """
    own = {"teacher": os.fspath(teacher), **places(images, output, output_setting="model_dir")}
    call("distill", {**own, **settings})
    return Run(output)


@speaking_python
def evaluate(run: PathLike, split: str = "test", **settings: Any) -> Results:
    """Scores the newest checkpoint of a run on one of its splits.

    Args:
        run: A `Run` or its folder.
        split: The split to score.
        **settings: Those of `simclr run` that may change.

    Returns:
        Numbers by name, with their intervals.
    """
    from simclr_tf.config.run_config import RunConfig

    folder = Path(os.fspath(run))
    config = RunConfig.load(folder / "config.json").values()
    config |= {"mode": "eval", "eval_split": split, "overwrite": False, **settings}
    call("run", config)
    name = config["eval_name"]
    return numbers_in(read_object(folder / f"result_{name}.json")) if name else Run(folder).results


@with_settings_of("embed", "encoder", *_PLACES)
@speaking_python
def embed(encoder: PathLike, images: Images | None, output: PathLike, **settings: Any) -> Embedding:
    """Computes the features of images, measures them and makes a page to explore them.

    Args:
        encoder: A `Run`, its folder, or any checkpoint.
        images: A folder, a CSV or an `ImageSet`; None = those of the encoder's run.
        output: Folder of the embedding.
        **settings: Those of `simclr embed`.
    """
    if images is None:
        images = Folder(encoder).images
    call("embed", {"encoder": os.fspath(encoder), **places(images, output), **settings})
    return Embedding(output)


@with_settings_of("compare", *_PLACES)
@speaking_python
def compare(images: Images, output: PathLike, **settings: Any) -> Comparison:
    """Compares strategies on one's own images, with few labels and with many.

    Args:
        images: A folder, a CSV or an `ImageSet`.
        output: Folder of the comparison.
        **settings: Those of `simclr compare`, such as `minutes`.
    """
    call("compare", {**places(images, output), **settings})
    return Comparison(output)


@with_settings_of("folds", *_PLACES, "command")
@speaking_python
def folds(
    images: Images | None,
    output: PathLike,
    command: str = "finetune",
    training: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Folds:
    """Trains the same classifier over folds or seeds.

    Args:
        images: A folder, a CSV or an `ImageSet`; None with `folds_dir`.
        output: Folder of the runs.
        command: `finetune` or `transfer`.
        training: Settings of every training.
        **settings: Those of `simclr folds`, such as `folds=5`.
    """
    own = {"command": command, **places(images, output)}
    call("folds", {**own, **settings}, _flags(training or {}))
    return Folds(output)


@with_settings_of("sweep", *_PLACES)
@speaking_python
def sweep(
    images: Images, output: PathLike, training: Mapping[str, Any] | None = None, **settings: Any
) -> Sweep:
    """Pretrains over methods, settings and seeds, and sets the runs side by side.

    Args:
        images: A folder, a CSV or an `ImageSet`.
        output: Folder of the runs.
        training: Settings of `simclr run` that all runs share.
        **settings: Those of `simclr sweep`, such as `vary=["method=simclr,byol", "seed=0,1"]`.
    """
    own = places(images, output)
    # How images are read is a setting of the runs.
    reading = {name: own.pop(name) for name in READING_FIELDS if name in own}
    call("sweep", {**own, **settings}, _flags({**reading, **(training or {})}))
    return Sweep(output)


@with_settings_of("predict", "model", *_PLACES)
@speaking_python
def predict(model: PathLike, images: Images, output: PathLike = "", **settings: Any) -> Predictions:
    """Classifies images with a trained network.

    Args:
        model: A `Classifier`, its folder, or a checkpoint with a supervised head.
        images: A folder, a CSV or an `ImageSet`.
        output: The CSV to write; "" = `predictions_of_NAME.csv` beside the model.
        **settings: Those of `simclr predict`.
    """
    return predict_images(model, images, output, **settings)


@with_settings_of("export", "model", "output")
@speaking_python
def export(model: PathLike, output: PathLike = "", **settings: Any) -> Path:
    """Writes a classifier as a file that runs without this package.

    Args:
        model: A `Classifier`, its folder, or a checkpoint with a supervised head.
        output: A new file, of a SavedModel a folder; "" = `exported...` beside the model.
        **settings: Those of `simclr export`, such as `format="onnx"`.

    Returns:
        The file.
    """
    return export_classifier(model, output, **settings)


@with_settings_of("depth-train", *_PLACES)
@speaking_python
def depth_train(images: Images, output: PathLike, **settings: Any) -> DepthModel:
    """Trains a network that makes depth maps of images.

    Args:
        images: A folder with `target_dir`, or a CSV with the column `target`.
        output: Folder of the run.
        **settings: Those of `simclr depth-train`.
    """
    call("depth-train", {**places(images, output), **settings})
    return DepthModel(output)


@with_settings_of("depth-predict", "model", *_PLACES)
@speaking_python
def depth_predict(model: PathLike, images: Images, output: PathLike, **settings: Any) -> DepthMaps:
    """Predicts depth maps of images.

    Args:
        model: A `DepthModel` or its folder.
        images: A folder, a CSV or an `ImageSet`.
        output: A new folder.
        **settings: Those of `simclr depth-predict`.
    """
    return predict_depth(model, images, output, **settings)


@with_settings_of("convert", "checkpoint", "output")
@speaking_python
def convert(checkpoint: PathLike, output: PathLike, **settings: Any) -> Path:
    """Writes a SimCLR checkpoint of any kind in another layout.

    Args:
        checkpoint: What to read: a path, or a name that `list_checkpoints` gives.
        output: File or folder to write.
        **settings: Those of `simclr convert`.

    Returns:
        The file.
    """
    call("convert", {"checkpoint": os.fspath(checkpoint), "output": os.fspath(output), **settings})
    return Path(output)


def list_methods() -> tuple[str, ...]:
    """Names of the methods of pretraining."""
    from simclr_tf.config.run_config import RunConfig

    return next(s.choices for s in RunConfig.settings() if s.name == "method")


def list_backbones() -> tuple[str, ...]:
    """Names of the backbones; `keras:NAME` is any network of keras.applications."""
    from simclr_tf.models.architectures import backbone_names

    return backbone_names()


def list_checkpoints() -> Sequence[str]:
    """Names of the public checkpoints, which stand for their paths."""
    from simclr_tf.checkpoints.zoo import entries

    return [entry.name for entry in entries()]


def load_encoder(path: PathLike, *, ema: bool = False) -> Any:
    """Opens the network of a run or of a checkpoint of any kind.

    Args:
        path: A `Run`, its folder, a checkpoint, or a name that `list_checkpoints` gives.
        ema: Take the moving averages of a TF1 checkpoint.

    Returns:
        A Keras model: images [n, S, S, C] in [0, 1] to its endpoints.
    """
    from data_prep.cli.runtime import import_tensorflow

    import_tensorflow()
    from simclr_tf.checkpoints import load as loading

    with _renamed():
        return loading.load_encoder(path, ema=ema)


def _renamed() -> Any:
    from data_prep.errors import setting_renamed

    return setting_renamed(checkpoint="path")


def _flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as the arguments of another command."""
    return [f"--{name}={_text(value)}" for name, value in settings.items()]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
