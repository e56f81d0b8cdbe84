"""Keras' ImageDataGenerator, fed from a manifest: the only place that touches it.

    train = flow_from_split(manifest, "train", image_size=96, rotation_range=30, rescale=1 / 255)
    validation = flow_from_split(manifest, "validation", image_size=96, rescale=1 / 255)
    model.fit(train, validation_data=validation)
    labels, probabilities = predict_once(model, validation)

What `flow_from_directory` gets wrong by default, or lets its user get wrong, cannot happen here:
only training images are augmented and shuffled, labels and predictions come from one pass, images
are scaled once, and what is random depends on (seed, epoch, image) alone.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from data_prep.augment.draws import example_seed
from data_prep.augment.image_data_generator import SupervisedConfig, feature_statistics, resized
from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.reading.images import read_image
from data_prep.sources.manifest_source import ManifestSource
from finetune.transfer_config import STANDARDIZING, check_scaled_once

_Base: Any = tf.keras.preprocessing.image.Iterator
_Generator: Any = tf.keras.preprocessing.image.ImageDataGenerator
_Preprocess = Callable[[np.ndarray], np.ndarray]

_EXTRA = {"interpolation_order", "zca_whitening", "zca_epsilon"}
_DRAWING = threading.Lock()


class SplitFlow(_Base):
    """Batches of a split for `Model.fit`, `evaluate` and `predict`; see `flow_from_split`.

    Attributes:
        manifest: The images of the split, in the order of `labels`.
        class_names: K names in the order of the columns of y.
        labels: Class numbers, int64 [n].
    """

    def __init__(
        self,
        manifest: Manifest,
        class_names: tuple[str, ...],
        generator: Any,
        *,
        image_size: tuple[int, int],
        channels: int,
        batch_size: int,
        augment: bool,
        seed: int,
    ) -> None:
        super().__init__(len(manifest), batch_size, augment, None)
        self.manifest, self.class_names = manifest, class_names
        self.labels = manifest.label_indices(class_names)
        self._generator, self._size, self._channels = generator, image_size, channels
        self._seed, self._epoch = seed, -1

    def _set_index_array(self) -> None:
        """The order of the next epoch."""
        self._epoch += 1
        self.index_array = np.arange(self.n)
        if self.shuffle:
            rng = np.random.default_rng([self._seed, self._epoch])
            self.index_array = rng.permutation(self.n)

    def _get_batches_of_transformed_samples(
        self, index_array: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """X float32 [b, H, W, C] and y float32 [b, K], one-hot."""
        x = np.stack([self._image(int(index)) for index in index_array])
        y = np.eye(len(self.class_names), dtype=np.float32)[self.labels[index_array]]
        return x, y

    def _image(self, index: int) -> np.ndarray:
        pixels = read_pixels(self.manifest, index, self._size, self._channels)
        if self.shuffle:
            seed = example_seed(self._seed, max(self._epoch, 0), index).numpy()
            pixels = random_transform(self._generator, pixels, seed)
        return np.asarray(self._generator.standardize(pixels), np.float32)


def flow_from_split(
    manifest: Manifest,
    split: str,
    *,
    image_size: int | tuple[int, int],
    batch_size: int = 32,
    class_names: Sequence[str] | None = None,
    channels: int | str = "auto",
    seed: int = 0,
    preprocessing_function: _Preprocess | None = None,
    **arguments: Any,
) -> SplitFlow:
    """Batches of one split of a manifest, augmented by ImageDataGenerator if it is `train`.

    Args:
        manifest: All images; statistics of `featurewise_...` and `zca_whitening` are those of its
            split `train`, whichever split is asked for.
        split: `train` is augmented and shuffled anew every epoch; any other is neither: it comes
            in the order of the manifest.
        image_size: Side, or (height, width), that images are resized to (bilinear).
        batch_size: Images of a batch; the last one of a pass may be smaller, none is dropped.
        class_names: Order of the classes; None = that of the manifest.
        channels: `auto` (as the images are), 1 or 3.
        seed: Of order and augmentation.
        preprocessing_function: Such as `keras.applications.vgg16.preprocess_input`: takes one
            image [H, W, C] in 0 to 255; called once for every image, after the augmentation.
        **arguments: Of ImageDataGenerator, under its names.

    Returns:
        What `Model.fit` takes: x float32 [b, H, W, C], in 0 to 255 unless an argument changes
        that, and y float32 [b, K], one-hot.

    Raises:
        UserError: No such split, images without a label, an unknown or impossible argument, or
            two that scale the images twice.
    """
    part = manifest.split(split)
    if any(not record.label for record in part.records):
        raise UserError(f"the split {split!r} holds images without a label; leave them out")
    check_arguments(arguments, preprocessing_function is not None)
    names = tuple(manifest.class_names if class_names is None else class_names)
    source = ManifestSource(part, names, channels, cache="false")  # headers and labels checked
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    augment = split == "train"
    kept = {*STANDARDIZING, "zca_epsilon"}
    used = arguments if augment else {k: v for k, v in arguments.items() if k in kept}
    generator = _Generator(preprocessing_function=preprocessing_function, **used)
    _fit(generator, manifest, arguments, size, source.channels)
    return SplitFlow(
        part, names, generator, image_size=size, channels=source.channels, batch_size=batch_size,
        augment=augment, seed=seed,
    )  # fmt: skip


def check_arguments(arguments: Mapping[str, Any], preprocesses: bool) -> None:
    """Refuses arguments of ImageDataGenerator that do not exist, make no images, or scale twice.

    Args:
        arguments: Name -> value.
        preprocesses: Whether a `preprocess_input` is applied as well.

    Raises:
        UserError: One line on what is wrong.
    """
    known = {field.name for field in fields(SupervisedConfig)} | _EXTRA
    for name in arguments:
        if name == "validation_split":
            raise UserError("validation_split: splits come from the manifest (simclr-split)")
        if name not in known:
            raise UserError(f"{name}: is no argument here; there are {', '.join(sorted(known))}")
    SupervisedConfig(**{k: v for k, v in arguments.items() if k not in _EXTRA})
    check_scaled_once(arguments, preprocesses, "leave one away")


def read_pixels(manifest: Manifest, index: int, size: tuple[int, int], channels: int) -> np.ndarray:
    """One image as ImageDataGenerator takes it: float32 [H, W, C] in 0 to 255."""
    record, file = manifest.records[index], manifest.files()[index]
    image = read_image(file, channels, record.reading, record.tile)
    whole = resized(tf.convert_to_tensor(image), *size).numpy()
    return whole.astype(np.float32) * np.float32(1 if image.dtype == np.uint8 else 255)


def random_transform(generator: Any, pixels: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """ImageDataGenerator's augmentation of an image, with random numbers of its own.

    It draws from NumPy's global state; that is seeded for the purpose, and left as it was.

    Args:
        generator: An ImageDataGenerator.
        pixels: float32 [H, W, C] in 0 to 255.
        seed: int64 [2], from `example_seed`.
    """
    words = np.asarray(seed, np.int64).view(np.uint32).tolist()
    number = int(np.random.SeedSequence(words).generate_state(1)[0])
    with _DRAWING:
        before = np.random.get_state()  # noqa: NPY002 (what ImageDataGenerator uses)
        try:
            drawn = generator.get_random_transform(pixels.shape, number)
        finally:
            np.random.set_state(before)  # noqa: NPY002
    return np.asarray(generator.apply_transform(pixels, drawn), np.float32)


def augment_with_generator(
    arguments: Mapping[str, Any],
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """ImageDataGenerator's augmentation inside tf.data.

    Args:
        arguments: Those of ImageDataGenerator that move and colour images; no standardization.

    Returns:
        (image [H, W, C], uint8 or float32 in [0, 1]; seed int64 [2]) -> float32 [H, W, C] in
        [0, 1].
    """
    generator = _Generator(**arguments)

    def transform(pixels: np.ndarray, seed: np.ndarray) -> np.ndarray:
        return random_transform(generator, pixels, seed) / np.float32(255)

    def augment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        pixels = tf.cast(image, tf.float32) * (1.0 if image.dtype == tf.uint8 else 255.0)
        made = tf.numpy_function(transform, [pixels, seed], tf.float32)
        return tf.ensure_shape(made, image.shape)

    return augment


def predict_once(model: keras.Model, flow: SplitFlow) -> tuple[np.ndarray, np.ndarray]:
    """Labels int64 [n] and predictions [n, K] of a split, from the same pass over it."""
    labels, predictions = [], []
    for x, y in (flow[number] for number in range(len(flow))):
        labels.append(y.argmax(axis=1))
        predictions.append(np.asarray(model(x, training=False)))
    return np.concatenate(labels), np.concatenate(predictions)


def _fit(
    generator: Any,
    manifest: Manifest,
    arguments: Mapping[str, Any],
    size: tuple[int, int],
    channels: int,
) -> None:
    """Gives the generator the statistics of the training images, if it needs any."""
    names = ("featurewise_center", "featurewise_std_normalization", "zca_whitening")
    if not any(arguments.get(name) for name in names):
        return
    training = manifest.split("train")

    def images() -> Iterator[np.ndarray]:
        return (read_pixels(training, i, size, channels) for i in range(len(training)))

    if arguments.get("zca_whitening"):
        generator.fit(np.stack(list(images())))
        return
    config = SupervisedConfig(rescale=arguments.get("rescale"))
    statistics = feature_statistics(images(), config)
    generator.mean = statistics.mean.astype(np.float32).reshape(1, 1, -1)
    generator.std = statistics.std.astype(np.float32).reshape(1, 1, -1)
