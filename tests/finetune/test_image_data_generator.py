from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from sklearn.metrics import accuracy_score

from data_prep.errors import UserError
from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import scan_folder
from finetune.image_data_generator import (
    augment_with_generator,
    flow_from_split,
    predict_once,
    random_transform,
    read_pixels,
)
from tests.images import make_split_folder

# Keras' own code imports a name of SciPy that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:Please import `affine_transform`")

SIZE = 16
ImageDataGenerator = tf.keras.preprocessing.image.ImageDataGenerator


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Manifest:
    return scan_folder(make_split_folder(tmp_path_factory.mktemp("images"), 8, 5, SIZE))


def small_model(channels: int = 3) -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((SIZE, SIZE, channels)),
        layers.Conv2D(8, 3, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, activation="softmax"),
    ])  # fmt: skip
    model.compile(keras.optimizers.Adam(0.01), "categorical_crossentropy", metrics=["accuracy"])
    return model


def test_model_fit_takes_the_batches_and_its_validation_accuracy_is_that_of_sklearn(
    images: Manifest,
) -> None:
    settings = {"image_size": SIZE, "batch_size": 4, "rescale": 1 / 255}
    train = flow_from_split(images, "train", rotation_range=30, **settings)
    validation = flow_from_split(images, "validation", rotation_range=30, **settings)
    model = small_model()
    logged = model.fit(train, validation_data=validation, epochs=3, verbose=0).history
    predicted = model.predict(validation, verbose=0).argmax(axis=1)
    in_file_order = images.split("validation").label_indices(images.class_names)
    expected = accuracy_score(in_file_order, predicted)
    assert 0 < expected < 1  # neither everything nor nothing is right: an order would show
    assert logged["val_accuracy"][-1] == pytest.approx(expected)


def test_labels_and_predictions_come_from_one_pass(images: Manifest) -> None:
    train = flow_from_split(images, "train", image_size=SIZE, batch_size=5, rescale=1 / 255)
    shown = []

    class Echo(keras.Model):
        """Predicts what it is shown, so that rows can be told."""

        def call(self, x, training=False):
            shown.append(np.asarray(x))
            return tf.reduce_mean(tf.convert_to_tensor(x), axis=(1, 2))

    labels, predictions = predict_once(Echo(), train)
    assert len(labels) == train.n == 24  # 5 do not divide 24: the last batch is not dropped
    pixels = np.concatenate(shown)
    for label, prediction, seen in zip(labels, predictions, pixels, strict=True):
        match = [
            i for i in range(train.n)
            if np.allclose(read_pixels(train.manifest, i, (SIZE, SIZE), 3) / 255, seen, atol=1e-6)
        ]  # fmt: skip
        assert [train.labels[i] for i in match] == [label]
        np.testing.assert_allclose(prediction, seen.mean((0, 1)), rtol=1e-5)


def test_batches_are_float32_images_and_one_hot_labels(images: Manifest) -> None:
    x, y = flow_from_split(images, "validation", image_size=(12, 20), batch_size=4)[0]
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((4, 12, 20, 3), np.float32, (4, 3), np.float32)
    assert 1 < x.max() <= 255
    np.testing.assert_array_equal(y.sum(axis=1), 1)


def test_only_training_images_are_shuffled_and_augmented(images: Manifest) -> None:
    def passes(split: str, **options) -> list[tuple[np.ndarray, np.ndarray]]:
        flow = flow_from_split(images, split, image_size=SIZE, batch_size=64, **options)
        epochs = []
        for _ in range(2):
            epochs.append(flow[0])
            flow.on_epoch_end()
        return epochs

    for split in ("validation", "test"):
        (first, labels), (second, _) = passes(split, horizontal_flip=True, brightness_range=(0, 1))
        files = [np.asarray(Image.open(f), np.float32) for f in images.split(split).files()]
        np.testing.assert_array_equal(first, files)
        np.testing.assert_array_equal(second, files)
        np.testing.assert_array_equal(
            labels.argmax(1), images.split(split).label_indices(images.class_names)
        )
    (first, before), (second, after) = passes("train", rotation_range=90)
    assert (before != after).any()  # another order
    assert all(np.abs(a - b).max() > 1 for a, b in zip(first, second, strict=True))


def test_the_same_seed_gives_the_same_batches_whatever_else_draws_random_numbers(
    images: Manifest,
) -> None:
    def batches(seed: int) -> np.ndarray:
        flow = flow_from_split(
            images, "train", image_size=SIZE, batch_size=6, seed=seed, rotation_range=30,
            width_shift_range=0.2, zoom_range=0.2,
        )  # fmt: skip
        made = [flow[i][0] for i in range(len(flow))]
        np.random.seed(None)  # noqa: NPY002
        flow.on_epoch_end()
        return np.stack([*made, *(flow[i][0] for i in range(len(flow)))])

    np.testing.assert_array_equal(batches(1), batches(1))
    assert (batches(1) != batches(2)).any()


def test_augmentation_leaves_numpys_global_state_as_it_was() -> None:
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    generator = ImageDataGenerator(rotation_range=30)
    random_transform(generator, np.zeros((8, 8, 3), np.float32), np.array([1, 2]))
    np.testing.assert_array_equal(np.random.random(3), expected)  # noqa: NPY002


def test_a_preprocess_input_is_applied_once_after_the_augmentation(images: Manifest) -> None:
    calls = []

    def preprocess(image: np.ndarray) -> np.ndarray:
        calls.append(image.copy())
        return keras.applications.vgg16.preprocess_input(image)

    flow = flow_from_split(
        images, "train", image_size=SIZE, batch_size=4, horizontal_flip=True,
        preprocessing_function=preprocess,
    )  # fmt: skip
    x, _ = flow[0]
    assert len(calls) == 4
    expected = keras.applications.vgg16.preprocess_input(np.stack(calls))
    np.testing.assert_allclose(x, expected, atol=1e-5)


def test_scaling_twice_is_refused(images: Manifest) -> None:
    for twice in ({"rescale": 1 / 255}, {"samplewise_center": True}, {"zca_whitening": True}):
        with pytest.raises(UserError, match="would scale the images twice"):
            flow_from_split(
                images, "train", image_size=SIZE, preprocessing_function=np.negative, **twice
            )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rotation": 30}, "rotation: is no argument here; there are .*rotation_range"),
        ({"validation_split": 0.2}, "splits come from the manifest"),
        ({"rotation_range": 300}, "rotation_range must lie in 0 to 180"),
        ({"split": "holdout"}, "no split 'holdout'"),
    ],
)
def test_impossible_arguments_are_refused(images: Manifest, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        flow_from_split(images, **{"split": "train", "image_size": SIZE, **arguments})


def test_images_without_a_label_are_refused(images: Manifest) -> None:
    bare = images.subset([replace(images.records[0], label=""), *images.records[1:]])
    with pytest.raises(UserError, match="without a label"):
        flow_from_split(bare, bare.records[0].split, image_size=SIZE)


def test_every_argument_reaches_image_data_generator(images: Manifest) -> None:
    arguments = {
        "rotation_range": 20.0, "width_shift_range": 0.1, "height_shift_range": 0.2,
        "brightness_range": (0.5, 1.5), "shear_range": 10.0, "zoom_range": 0.3,
        "channel_shift_range": 20.0, "fill_mode": "constant", "cval": 7.0,
        "horizontal_flip": True, "vertical_flip": True, "interpolation_order": 0,
        "rescale": 0.5, "samplewise_center": True, "samplewise_std_normalization": True,
    }  # fmt: skip
    flow = flow_from_split(images, "train", image_size=SIZE, batch_size=24, seed=3, **arguments)
    x, _ = flow[0]
    generator = ImageDataGenerator(**arguments)
    expected = []
    for index in flow.index_array:
        pixels = read_pixels(flow.manifest, index, (SIZE, SIZE), 3)
        moved = random_transform(generator, pixels, np.array([3, index]))
        expected.append(generator.standardize(moved))
    np.testing.assert_array_equal(x, np.stack(expected))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_statistics_of_the_set_are_those_of_the_training_images(
    images: Manifest, split: str
) -> None:
    options = {"rescale": 1 / 255, "featurewise_center": True}
    options["featurewise_std_normalization"] = True
    flow = flow_from_split(images, split, image_size=SIZE, batch_size=64, **options)
    generator = ImageDataGenerator(**options)
    files = images.split("train").files()
    generator.fit(np.stack([np.asarray(Image.open(file), np.float32) for file in files]))
    x, _ = flow[0]
    for row, index in enumerate(flow.index_array):
        pixels = read_pixels(flow.manifest, index, (SIZE, SIZE), 3)
        np.testing.assert_allclose(x[row], generator.standardize(pixels), atol=1e-4)


def test_whitening_is_fitted_on_the_training_images(tmp_path: Path) -> None:
    images = scan_folder(make_split_folder(tmp_path, 8, 2, 4))
    flow = flow_from_split(
        images, "train", image_size=4, batch_size=24, zca_whitening=True, featurewise_center=True
    )
    x, _ = flow[0]
    flat = x.reshape(24, -1)
    covariance = flat.T @ flat / 24
    eigenvalues = np.linalg.eigvalsh(covariance)[-20:]
    np.testing.assert_allclose(eigenvalues, 1, atol=0.05)


def test_sixteen_bit_images_count_as_0_to_255(tmp_path: Path) -> None:
    import tifffile

    for name, level in (("bright", 65535), ("dark", 0)):
        (tmp_path / "train" / name).mkdir(parents=True)
        pixels = np.full((SIZE, SIZE), level, np.uint16)
        tifffile.imwrite(tmp_path / "train" / name / "0.tif", pixels)
    x, y = flow_from_split(scan_folder(tmp_path), "train", image_size=SIZE)[0]
    assert x.shape == (2, SIZE, SIZE, 1)
    for image, label in zip(x, y.argmax(1), strict=True):
        np.testing.assert_array_equal(image, 255.0 if label == 0 else 0.0)


def test_inside_tf_data_the_same_pictures_are_made(images: Manifest) -> None:
    arguments = {"rotation_range": 30.0, "zoom_range": 0.2}
    flow = flow_from_split(images, "train", image_size=SIZE, batch_size=24, seed=5, **arguments)
    x, _ = flow[0]
    augment = augment_with_generator(arguments)
    decoded = np.stack([
        read_pixels(flow.manifest, i, (SIZE, SIZE), 3).astype(np.uint8) for i in flow.index_array
    ])  # fmt: skip
    seeds = np.array([[5, i] for i in flow.index_array], np.int64)
    data = tf.data.Dataset.from_tensor_slices((decoded, seeds))
    for parallel in (1, 4):
        made = list(data.map(augment, num_parallel_calls=parallel).as_numpy_iterator())
        np.testing.assert_allclose(np.stack(made) * 255, x, atol=1e-4)
