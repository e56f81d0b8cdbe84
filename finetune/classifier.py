"""The model that fine-tuning and transfer learning make: backbone, head, probabilities."""

import math
import os
from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from finetune.heads import ClassifierHead
from simclr_tf.checkpoints.keras_file import open_keras_file
from simclr_tf.models.trainability import set_trainability, trainability_of

Pooling = Literal["average", "flatten"]


@keras.saving.register_keras_serializable(package="finetune")
class Classifier(keras.Model):
    """A backbone with a head on its features.

    Call: images [B, H, W, C] in [0, 1] -> probabilities [B, K], float32. An ordinary Keras model,
    to be compiled with a cross entropy of probabilities; `logits` gives what comes before.

    A backbone none of whose weights trains runs in inference mode: its normalisation keeps its
    statistics, its dropout drops nothing.

    Args:
        backbone: images in [0, 1] -> features [B, D] or maps [B, h, w, c].
        num_classes: K.
        image_shape: (H, W, C) of the images that it is trained on.
        hidden: widths of the head's hidden layers.
        dropout: see `ClassifierHead`.
        pooling: what becomes of maps: their `average` over all places, or `flatten`.
        facts: what a user must know to prepare images, class names included; JSON values.
        trainability: which layers train, see `trainability_of`; None = all of them.
        feature_scaling: see `ClassifierHead`.
        **kwargs: of `keras.Model`.
    """

    built: bool

    def __init__(
        self,
        backbone: keras.Model,
        num_classes: int,
        image_shape: Sequence[int],
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        pooling: Pooling = "average",
        facts: dict[str, Any] | None = None,
        trainability: dict[str, bool] | None = None,
        feature_scaling: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": backbone.dtype_policy, **kwargs})
        self.backbone = backbone
        self.pooling = pooling
        self.image_shape = tuple(image_shape)
        self.head = ClassifierHead(
            num_classes,
            hidden,
            dropout,
            feature_scaling,
            name="classifier_head",
            dtype=self.dtype_policy,
        )
        self._facts = dict(facts or {})
        self._trainability = dict(trainability or {})

    @property
    def facts(self) -> dict[str, Any]:
        """How images are prepared and what the classes are called; kept in the `.keras` file."""
        return dict(self._facts)

    @facts.setter
    def facts(self, facts: dict[str, Any]) -> None:
        self._facts = dict(facts)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities; numbers if none are known."""
        names = tuple(self._facts.get("class_names", ()))
        return names or tuple(str(i) for i in range(self.head.num_classes))

    def build(self, input_shape: Any = None) -> None:
        """Creates all weights."""
        if self.built:
            return
        shape = (None, *self.image_shape)
        if not self.backbone.built:
            self.backbone.build(shape)
        self.head.build((None, self._feature_dim(self.backbone.compute_output_shape(shape))))
        set_trainability(self, self._trainability)
        self.built = True

    def _feature_dim(self, shape: tuple[int | None, ...]) -> int | None:
        """Length of the features, given the shape of the backbone's output."""
        places = shape[1:-1] if self.pooling == "flatten" else ()
        return math.prod(n or 0 for n in (*places, shape[-1]))

    def features(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The features [B, D] of images [B, H, W, C] in [0, 1]."""
        # A Python value: which layers train is decided before anything is traced.
        learns = training and bool(self.backbone.trainable_variables)
        x = self.backbone(images, training=learns)
        if len(x.shape) == 2:
            return x
        if self.pooling == "flatten":
            return tf.reshape(x, [-1, math.prod(x.shape[1:])])
        # A half-precision average over many places would lose what the float32 head can use.
        return tf.reduce_mean(tf.cast(x, self.variable_dtype), [1, 2])

    def logits(
        self, images: tf.Tensor, training: bool = False, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Logits [B, K]; `seed` int [2] decides what dropout drops, see `ClassifierHead`."""
        return self.head(self.features(images, training), training=training, seed=seed)

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images [B, H, W, C] in [0, 1] -> probabilities [B, K]."""
        return tf.nn.softmax(self.logits(inputs, training))

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, int]:
        """[B, K]."""
        return (input_shape[0], self.head.num_classes)

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "trainable": self.trainable,
            "trainability": trainability_of(self),
            "dtype": serialize(self.dtype_policy),
            "backbone": serialize(self.backbone),
            "pooling": self.pooling,
            "num_classes": self.head.num_classes,
            "image_shape": list(self.image_shape),
            "hidden": list(self.head.hidden),
            "dropout": self.head.dropout,
            "facts": self.facts,
            "feature_scaling": self.head.scaling is not None,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "Classifier":
        """The model of a `get_config()`, with new weights."""
        config = dict(config)
        for name in ("backbone", "dtype"):
            if isinstance(config[name], dict):
                config[name] = keras.saving.deserialize_keras_object(
                    config[name], custom_objects=custom_objects
                )
        return cls(**config)


def load_classifier(path: str | os.PathLike[str]) -> Classifier:
    """Reads the `model.keras` that a run leaves.

    Args:
        path: The file.

    Raises:
        UserError: The file is missing, damaged, or cannot be read.
        ValueError: It holds another kind of model.
    """
    # Importing them makes the backbones' classes known to Keras.

    model = open_keras_file(path)
    if not isinstance(model, Classifier):
        raise ValueError(f"{path} holds a {type(model).__name__}, not a Classifier")
    return model
