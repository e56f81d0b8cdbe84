"""A trained classifier as a file that runs without this package, checked against the network.

Images can go in as they are: crop, resizing and scaling are part of the exported graph.

TensorFlow's bicubic resizing takes its weights from a table of 1,024 steps, ONNX's operator
computes them; rounded to 8 bits, some pixels differ by a level. `bicubic` therefore has
TensorFlow's table.
"""

import contextlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import tensorflow as tf

from data_prep.augment import geometry
from data_prep.augment.color import to_float
from data_prep.augment.views import SMALL_IMAGE, ViewConfig
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.reading.training_files import look_at
from data_prep.storage import put_in_place, write_text
from finetune.export.plain_keras import standard_model
from finetune.export.reading import GivenImage, input_of
from finetune.report.side_files import facts_file
from finetune.sections import Format, Input
from finetune.serve.answer import training_images
from finetune.trained import BatchScorer, Trained
from simclr_tf.checkpoints.plain_names import PlainName

_STEPS = 1024
_A = -0.5  # of Keys' cubic


def _table() -> np.ndarray:
    """Weights of a pixel at distance i / 1024, and of the one beyond, float32 [1025, 2]."""
    x = np.arange(_STEPS + 1) / _STEPS
    near = ((_A + 2) * x - (_A + 3)) * x * x + 1
    y = x + 1
    far = ((_A * y - 5 * _A) * y + 8 * _A) * y - 4 * _A
    return np.stack([near, far], axis=1).astype(np.float32)


def bicubic(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes an image as `tf.image.resize(image, [size, size], "bicubic")` does.

    Args:
        image: float32 [H, W, C].
        size: Side of the result.

    Returns:
        float32 [size, size, C].
    """
    rows, row_weights = _weights(tf.shape(image)[0], size)
    columns, column_weights = _weights(tf.shape(image)[1], size)
    # Four neighbours of every row [size, 4, W, C], then of every column [size, size, 4, C].
    tall = tf.gather(image, rows, axis=0) * row_weights[:, :, tf.newaxis, tf.newaxis]
    wide = tf.gather(tf.reduce_sum(tall, axis=1), columns, axis=1)
    return tf.reduce_sum(wide * column_weights[tf.newaxis, :, :, tf.newaxis], axis=2)


def _weights(length: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Positions int32 [size, 4] of neighbours along an axis, and their weights."""
    table = tf.constant(_table())
    step = tf.cast(length, tf.float32) / float(size)
    place = (tf.range(size, dtype=tf.float32) + 0.5) * step - 0.5
    first = tf.floor(place)
    nearest = tf.cast(tf.round((place - first) * _STEPS), tf.int32)
    left, right = tf.gather(table, nearest), tf.gather(table, _STEPS - nearest)
    weights = tf.stack([left[:, 1], left[:, 0], right[:, 0], right[:, 1]], axis=1)
    positions = tf.cast(first, tf.int32)[:, tf.newaxis] + tf.range(-1, 3)
    # Neighbours beyond the edge do not count.
    inside = tf.logical_and(positions >= 0, positions < length)
    weights = weights * tf.cast(inside, tf.float32)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    return tf.clip_by_value(positions, 0, length - 1), weights


def evaluation_view(image: tf.Tensor, views: ViewConfig) -> tf.Tensor:
    """Makes the view that `evaluation_image` makes, [S, S, C] of the image's type."""
    side = views.image_size
    if views.central_crop:
        image = _cropped(image, views.central_crop)
    if views.whole_image:
        crop = image
    else:
        crop = _cropped(image, 1.0 if side <= SMALL_IMAGE else geometry.EVALUATION_CROP)
    pixels = bicubic(tf.cast(crop, tf.float32), side)
    pixels = tf.ensure_shape(pixels, [side, side, views.channels])
    if image.dtype == tf.uint8:
        return tf.cast(tf.round(tf.clip_by_value(pixels, 0.0, 255.0)), tf.uint8)
    return tf.clip_by_value(pixels, 0.0, 1.0)


def _cropped(image: tf.Tensor, proportion: float) -> tf.Tensor:
    box = geometry.central_box(image, 1.0, proportion)
    return tf.slice(image, [box.top, box.left, 0], [box.height, box.width, -1])


log = logging.getLogger(__name__)

_FILES = 24
_BATCH = 8

Run = Callable[[np.ndarray], dict[str, np.ndarray]]
"""The exported model: outputs of its input."""


@dataclass(frozen=True)
class ExportCheck:
    """The differences between an exported model and the network it was made from.

    Attributes:
        on_noise: Largest difference of a probability on noise of several sizes.
        on_files: The same on training images read from their files, against what prediction says
            of these; None if they are not there.
        files: How many files.
        other_classes: How many of them get another class.
    """

    on_noise: float
    on_files: float | None = None
    files: int = 0
    other_classes: int = 0


def some_training_images(trained: Trained) -> Manifest:
    """Training images of all classes, if their files are still there; the log says if not."""
    images = training_images(trained)
    if not len(images):
        log.warning("the training images are not here: the export is checked on noise alone")
        return images
    ranked = sorted(images.records, key=lambda record: record.label)
    rows = np.linspace(0, len(ranked) - 1, min(_FILES, len(ranked))).astype(np.int64)
    return images.subset(ranked[row] for row in rows)


def check(run: Run, trained: Trained, given: GivenImage, images: Manifest) -> ExportCheck:
    """Runs an exported model.

    Args:
        run: The model.
        trained: The classifier that it was made from.
        given: Its input.
        images: Training images.
    """
    on_noise = _on_noise(run, trained, given)
    if not len(images):
        return ExportCheck(on_noise)
    scorer = BatchScorer(trained, _BATCH)
    expected = scorer.scores(images)
    found = np.concatenate(
        [
            _outside(run, trained, given, given.from_file(file, record))
            for record, file in zip(images.records, images.files(), strict=True)
        ]
    )
    others = int((found.argmax(1) != expected.argmax(1)).sum())
    return ExportCheck(on_noise, float(np.abs(found - expected).max()), len(images), others)


def _on_noise(run: Run, trained: Trained, given: GivenImage) -> float:
    """The largest difference of a probability from the network's own, on noise of several sizes."""
    rng, side, worst = np.random.default_rng(0), trained.preprocessing.image_size, 0.0
    for height, width in ((side, side), (2 * side + 3, 3 * side), (side // 2 + 1, side)):
        image = given.example(rng, height, width)
        seen = _seen(trained, given.outside(image))
        logits = tf.reduce_mean(trained.forward(to_float(seen))["logits"], 0, keepdims=True)
        expected = tf.nn.softmax(logits).numpy()
        worst = max(worst, float(np.abs(_outside(run, trained, given, image) - expected).max()))
    return worst


def _outside(run: Run, trained: Trained, given: GivenImage, image: np.ndarray) -> np.ndarray:
    """Probabilities [1, K] of the exported model for an image prepared as its facts say."""
    if not given.prepared:
        return run(image)["probabilities"]
    seen = to_float(_seen(trained, given.outside(image))).numpy()
    logits = run(seen)["logits"].mean(0, keepdims=True)
    return np.asarray(tf.nn.softmax(logits))


def _seen(trained: Trained, image: np.ndarray) -> tf.Tensor:
    return trained.preprocessing.inputs(tf.constant(image), trained.crops)


FORMATS: tuple[Format, ...] = get_args(Format)
INPUTS: tuple[Input, ...] = get_args(Input)
TOLERANCE = 1e-5
FILE_TOLERANCE = 1e-3  # rounding to 8 bits after resizing may turn the last bit of a pixel

_OPSET = 18
_OUTPUTS = ("features", "logits", "probabilities")

Outputs = dict[str, np.ndarray]
Signature = Callable[[tf.Tensor], dict[str, tf.Tensor]]


@dataclass(frozen=True)
class ExportRequest:
    """The format and the input that an export is to have.

    Attributes:
        form: `onnx`, `saved_model` or `keras`.
        takes: `image` = the stored values of one image [H, W, C] of any size, in the type of the
            training files (uint8 where nothing is known of them); an intensity rule is inside.
            `float_image` = one image as `read_image` gives it, float32 in [0, 1], after the
            intensity rule; `prepared` = a batch [B, S, S, C], float32 in [0, 1], cropped and
            resized. A Keras file takes `prepared` ones.
    """

    form: Format
    takes: Input = "image"


def export(trained: Trained, output: Path, request: ExportRequest) -> ExportCheck:
    """Writes the model, and beside it what a user must know (`facts_file`).

    The model is read back and run before it takes its name: its outputs must be those of the
    network, for noise and for training images read from their files.

    Args:
        trained: The classifier.
        output: New file, or folder of a SavedModel.
        request: Format and input.

    Raises:
        UserError: The format cannot take such an input, its packages are missing, or the exported
            model says something else.
    """
    if request.form == "keras" and request.takes != "prepared":
        raise UserError("--format=keras takes prepared images: give --input=prepared")
    if request.form == "onnx" and request.takes != "prepared" and trained.crops > 1:
        raise UserError(
            f"the run scores {trained.crops**2} crops of an image; give"
            " --input=prepared, or --format=saved_model",
            setting="format",
            value="onnx",
        )
    images = some_training_images(trained)
    preprocessing = trained.preprocessing
    files = preprocessing.reading.files
    if not (files and files.bits) and len(images):
        reading = replace(preprocessing.reading, files=look_at(images))
        trained = replace(trained, preprocessing=replace(preprocessing, reading=reading))
    given = input_of(trained, request.takes)
    model = _rebuilt(trained, request)
    write, read = _FORMS[request.form]
    facts = _facts(trained, request, given)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
        # The name counts: Keras goes by its ending.
        draft = Path(folder) / output.name
        write(draft, model, _signature(model, trained, request, given), facts)
        checked = check(read(draft), trained, given, images)
        _refuse_other(checked, request)
        put_in_place(draft, output)
    write_text(facts_file(output, folder=output.is_dir()), json.dumps(facts, indent=2) + "\n")
    return checked


def _refuse_other(checked: ExportCheck, request: ExportRequest) -> None:
    where = f"--format={request.form}: the exported model differs from"
    if not checked.on_noise <= TOLERANCE:
        raise UserError(
            f"{where} the network by {checked.on_noise:.1e} in a probability; nothing was written"
        )
    if checked.on_files is not None and not checked.on_files <= FILE_TOLERANCE:
        raise UserError(
            f"{where} what prediction says of {checked.files} training images by"
            f" {checked.on_files:.1e} in a probability ({checked.other_classes} of other classes);"
            " nothing was written; --input=prepared leaves reading and cropping to you"
        )


def _rebuilt(trained: Trained, request: ExportRequest) -> keras.Model:
    try:
        return standard_model(trained.network, trained.preprocessing.image_size)
    except TypeError as error:
        raise UserError(f"{error}", setting="format", value=request.form) from None


def _facts(trained: Trained, request: ExportRequest, given: GivenImage) -> dict[str, Any]:
    preprocessing, decision = trained.preprocessing, trained.decision
    side, channels = preprocessing.image_size, preprocessing.channels
    shape: list[Any] = ["height", "width", given.channels]
    if request.takes == "prepared":
        shape = ["batch", side, side, channels]
    facts: dict[str, Any] = {
        "class_names": list(trained.class_names),
        "input": {"name": "images", "shape": shape, "type": given.in_words},
        "outputs": list(_OUTPUTS),
        "reading": preprocessing.reading.fields,
        "preparation": {
            "image_size": side,
            "central_crop": preprocessing.central_crop,
            "whole_image": preprocessing.whole_image,
            "crops": trained.crops,
            "inside": request.takes != "prepared",
            "intensity_inside": request.takes == "image",
        },
    }
    if decision.threshold is not None:
        positive = trained.class_names[decision.positive]
        facts["decision"] = {"positive": positive, "threshold": decision.threshold}
    return facts


def _signature(
    model: keras.Model, trained: Trained, request: ExportRequest, given: GivenImage
) -> Signature:
    """The graph from the input to the outputs."""
    preprocessing, crops = trained.preprocessing, trained.crops
    side, channels = preprocessing.image_size, preprocessing.channels
    if request.takes == "prepared":
        spec = tf.TensorSpec([None, side, side, channels], tf.float32, name="images")
    else:
        spec = tf.TensorSpec([None, None, given.channels], given.dtype, name="images")

    def outputs(images: tf.Tensor) -> dict[str, tf.Tensor]:
        if request.takes == "prepared":
            return _named(model(images, training=False))
        image, poison = given.as_read(images)
        if request.form == "onnx":
            seen = evaluation_view(image, preprocessing.views)[tf.newaxis]
        else:
            seen = preprocessing.inputs(image, crops)
        found = model(to_float(seen), training=False)
        means = {
            name: tf.reduce_mean(found[name], 0, keepdims=True) + poison for name in _OUTPUTS[:2]
        }
        return _named({**means, "probabilities": tf.nn.softmax(means["logits"])})

    return tf.function(outputs, input_signature=[spec], autograph=False)


def _named(outputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {name: tf.identity(outputs[name], name=name) for name in _OUTPUTS}


def _write_keras(path: Path, model: keras.Model, signature: Signature, facts: Any) -> None:
    model.save(path)


def _read_keras(path: Path) -> Callable[[np.ndarray], Outputs]:
    model = keras.models.load_model(path, compile=False)
    return lambda images: {k: v.numpy() for k, v in model(images, training=False).items()}


def _write_saved_model(path: Path, model: keras.Model, signature: Signature, facts: Any) -> None:
    module = tf.Module()
    module.variables_of_the_model = [v.value for v in model.variables]
    module.serve = signature
    tf.saved_model.save(module, str(path), signatures=signature)


def _read_saved_model(path: Path) -> Callable[[np.ndarray], Outputs]:
    name = PlainName(str(path))
    loaded = tf.saved_model.load(name.path)
    serve = loaded.signatures["serving_default"]
    return lambda images: {k: v.numpy() for k, v in serve(images=tf.constant(images)).items()}


def _write_onnx(path: Path, model: keras.Model, signature: Signature, facts: Any) -> None:
    onnx, tf2onnx = _onnx_packages()
    with _quiet("tf2onnx"):
        proto, _ = tf2onnx.convert.from_function(
            signature,
            input_signature=signature.input_signature,  # type: ignore[attr-defined]
            opset=_OPSET,
            custom_op_handlers={"Erfc": (_erfc, [])},
        )
    onnx.helper.set_model_props(proto, {"classifier": json.dumps(facts)})
    onnx.checker.check_model(proto)
    onnx.save(proto, str(path))


def _erfc(graph: Any, node: Any, name: str, args: list[Any]) -> None:
    """TensorFlow's GELU in operations that ONNX has: erfc(x) = 1 - erf(x)."""
    one = graph.make_const(f"{name}_one", np.array(1, np.float32))
    erf = graph.make_node("Erf", list(node.input))
    node.type = "Sub"
    graph.replace_inputs(node, [one.output[0], erf.output[0]])


def _read_onnx(path: Path) -> Callable[[np.ndarray], Outputs]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(None, {"images": images}), strict=True))


def _onnx_packages() -> tuple[Any, Any]:
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import tf2onnx
    except ImportError as error:
        raise UserError(
            f"--format=onnx needs the package {error.name}: pip install 'simclr-tf[onnx]'"
        ) from None
    return onnx, tf2onnx


@contextlib.contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Silences a chatty logger."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


_FORMS: dict[Format, tuple[Callable[..., None], Callable[[Path], Any]]] = {
    "onnx": (_write_onnx, _read_onnx),
    "saved_model": (_write_saved_model, _read_saved_model),
    "keras": (_write_keras, _read_keras),
}
