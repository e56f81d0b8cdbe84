"""The classifier of fine-tuning and transfer learning: backbone, head, and loss."""

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from finetune.config import LossSettings
from simclr_tf.checkpoints.keras_file import open_keras_file
from simclr_tf.checkpoints.store import model_keys
from simclr_tf.evaluation.linear_probe import LinearProbe
from simclr_tf.losses.supervised import accuracy, classification_loss
from simclr_tf.methods.base import StepOutputs
from simclr_tf.models.backbone import set_trainability, trainability_of
from simclr_tf.models.simclr import SimCLREncoder, SimCLRModel
from simclr_tf.models.weights import freeze

_UNSEEN = 3.0  # below the least bias of the seen classes, in nats


@keras.saving.register_keras_serializable(package="finetune")
class FeatureScaling(keras.layers.Normalization):
    """Standardization of features by their mean and deviation over the training images.

    Keras' layer, but for two things. It reads its weights at every call, so that a restored or
    copied network needs no further step; and features that do not vary over the training images are
    only centered, where Keras would divide by nearly nothing.

    Call: features [B, D] -> the same, standardized. Before `set_statistics` it changes nothing.
    """

    def set_statistics(self, features: np.ndarray) -> None:
        """Takes mean and variance of features float [n, D]; the layer must be built."""
        mean = features.mean(axis=0, dtype=np.float64)
        deviation = features.std(axis=0, dtype=np.float64)
        varies = deviation > 1e-8 * (1 + np.abs(mean))
        self.adapt_mean.assign(mean.astype(np.float32))
        self.adapt_variance.assign(np.where(varies, deviation**2, 1.0).astype(np.float32))
        self.count.assign(len(features))
        self.finalize_state()

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """The standardized features."""
        return (inputs - self.adapt_mean) / tf.sqrt(tf.convert_to_tensor(self.adapt_variance))


@keras.saving.register_keras_serializable(package="finetune")
class ClassifierHead(keras.layers.Layer):
    """Linear classifier, or one with hidden layers.

    Call: features [B, D] -> logits [B, num_classes], never in half precision. Hidden layers are
    dense with ReLU, each followed by dropout.

    Args:
        num_classes: number of classes.
        hidden: widths of the hidden layers; empty = linear.
        dropout: share of hidden units (of the features, if there are none) dropped in training.
        feature_scaling: begin with `FeatureScaling`.
        **kwargs: of `keras.layers.Layer`.
    """

    def __init__(
        self,
        num_classes: int,
        hidden: Sequence[int] = (),
        dropout: float = 0.0,
        feature_scaling: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.hidden = tuple(hidden)
        self.dropout = dropout
        dtype = self.variable_dtype
        self.scaling = FeatureScaling(name="scaling", dtype=dtype) if feature_scaling else None
        self.hidden_layers = [
            keras.layers.Dense(units, "relu", name=f"hidden_{i}", dtype=dtype)
            for i, units in enumerate(self.hidden)
        ]
        self.output_layer = keras.layers.Dense(num_classes, name="logits", dtype=dtype)

    @property
    def layers(self) -> list[keras.layers.Dense]:
        """All dense layers, from the input on."""
        return [*self.hidden_layers, self.output_layer]

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates all weights."""
        shape = tuple(input_shape)
        if self.scaling is not None:
            self.scaling.build(shape)
        for layer in self.layers:
            layer.build(shape)
            shape = (*shape[:-1], layer.units)
        self.built = True

    def call(
        self, inputs: tf.Tensor, training: bool = False, seed: tf.Tensor | None = None
    ) -> tf.Tensor:
        """The logits.

        Args:
            inputs: [B, D].
            training: drop units.
            seed: int [2] that decides which; None = drawn from TensorFlow's own generator.
        """
        x = tf.cast(inputs, self.variable_dtype)
        if self.scaling is not None:
            x = self.scaling(x)
        if not self.hidden_layers:
            x = self._drop(x, training, seed, 0)
        for i, layer in enumerate(self.hidden_layers):
            x = self._drop(layer(x), training, seed, i)
        return self.output_layer(x)

    def start_from(self, probe: LinearProbe) -> None:
        """Sets the weights of a linear head so that it says what a linear probe says.

        Args:
            probe: Of the features as they come, before any scaling.
        """
        kernel = probe.weights / probe.scale[:, np.newaxis]
        bias = probe.bias - probe.mean @ kernel
        seen = np.isfinite(bias)
        # A class without training images is unlikely, not impossible.
        bias = np.where(seen, bias, bias[seen].min() - _UNSEEN)
        if self.scaling is not None:
            bias = bias + self.scaling.adapt_mean.numpy().astype(np.float64) @ kernel
            deviation = np.sqrt(self.scaling.adapt_variance.numpy().astype(np.float64))
            kernel = kernel * deviation[:, np.newaxis]
        self.output_layer.kernel.assign(kernel.astype(np.float32))
        self.output_layer.bias.assign(bias.astype(np.float32))

    def _drop(self, x: tf.Tensor, training: bool, seed: tf.Tensor | None, number: int) -> tf.Tensor:
        if not training or not self.dropout:
            return x
        if seed is None:
            return tf.nn.dropout(x, self.dropout)
        own = seed + tf.constant([0, number], seed.dtype)
        return tf.nn.experimental.stateless_dropout(x, self.dropout, own)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """[B, num_classes]."""
        return (*input_shape[:-1], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "hidden": list(self.hidden),
            "dropout": self.dropout,
            "feature_scaling": self.scaling is not None,
        }


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
        """The preparation of images and the names of classes, as kept in the `.keras` file."""
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

    def features_and_logits(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Gives `features` [B, D] and `logits` [B, K] of images, both as in scoring."""
        features = self.features(images)
        return {"features": features, "logits": self.head(features)}

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


@keras.saving.register_keras_serializable(package="finetune")
class SimCLRBackbone(keras.Model):
    """The encoder up to the layer that the classifier sits on.

    Call: images [B, H, W, C] in [0, 1] -> [B, D]: the representation, or the output of a layer of
    the projection head ("fine-tuning from a middle layer", SimCLRv2, section 3).

    Args:
        encoder: backbone and projection head; all of it is kept, whatever runs.
        ft_proj_selector: 0 = the representation, 1 = the projection head's first layer, ...;
            negative counts from the end.
        **kwargs: of `keras.Model`; the dtype is the encoder's unless given.

    Raises:
        UserError: if `ft_proj_selector` points past the projection head.
    """

    built: bool

    def __init__(self, encoder: SimCLREncoder, ft_proj_selector: int = 0, **kwargs: Any) -> None:
        super().__init__(**{"dtype": encoder.dtype_policy, **kwargs})
        head = encoder.projection_head.architecture
        self.selected_layer = head.selector_index(ft_proj_selector)
        self.encoder = encoder
        self.ft_proj_selector = ft_proj_selector

    def build(self, input_shape: Any = None) -> None:
        """Creates all weights."""
        if not self.built:
            self.encoder.build()
            self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """The features."""
        _, hiddens = self.encoder.hiddens(inputs, training, self.selected_layer)
        return hiddens[self.selected_layer]

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        """[B, D]."""
        head = self.encoder.projection_head.architecture
        return (input_shape[0], head.hidden_dim(self.selected_layer, self.encoder.feature_dim))

    def freeze_but(self, parts: Collection[str | int] | None) -> None:
        """Lets only some parts train; layers of the projection head that do not run never do.

        Args:
            parts: see `simclr_tf.models.weights.freeze`; None = all.
        """
        model = SimCLRModel(self.encoder, None, self.ft_proj_selector)
        freeze(model, train_blocks=parts, unused_projection_head=False)

    def parts(self) -> dict[str, list[keras.layers.Layer]]:
        """The layers by part, from the input to the output."""
        stages = {
            f"block group {i}" if i else "stem": [stage]
            for i, stage in self.encoder.backbone().stages.items()
        }
        head = self.encoder.projection_head.projection_layers
        return stages | ({"projection head": list(head)} if head else {})

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "dtype": serialize(self.dtype_policy),
            "encoder": serialize(self.encoder),
            "ft_proj_selector": self.ft_proj_selector,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "SimCLRBackbone":
        """The model of a `get_config()`, with new weights."""
        config = dict(config)
        for name in ("encoder", "dtype"):
            if isinstance(config[name], dict):
                config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


def simclr_keys(model: Classifier) -> dict[str, tf.Variable]:
    """The variables of a classifier on a SimCLR encoder by their checkpoint keys.

    The encoder lies under the reference's keys, and so does a linear head: whatever reads SimCLR
    checkpoints reads these.
    """
    backbone = model.backbone
    if not isinstance(backbone, SimCLRBackbone):
        raise ValueError(f"{type(backbone).__name__} is no SimCLR encoder")
    keys = model_keys(backbone.encoder)
    scope = "classifier/layer_{}" if model.head.hidden else "model/supervised_head/linear_layer"
    for i, layer in enumerate(model.head.layers):
        for name in ("kernel", "bias"):
            keys[f"{scope.format(i)}/dense/{name}"] = getattr(layer, name).value
    return keys


@dataclass(frozen=True)
class Classification:
    """The loss that the settings ask for, on one view of each image.

    Attributes:
        model: The classifier.
        settings: Of the loss.
        class_weights: One per class; None = all 1.
        iterations: The optimizer's count of steps, which with `seed` decides what dropout drops: a
            run that goes on drops what it would have dropped.
        seed: The run's seed.
        from_features: Whether the method gets features, computed before, in place of images.
    """

    model: Classifier
    settings: LossSettings
    class_weights: Sequence[float] | None
    iterations: keras.Variable
    seed: int = 0
    from_features: bool = False

    def __call__(self, images: tf.Tensor, labels: tf.Tensor) -> StepOutputs:
        """Losses of one view [1, b, H, W, C] (or features [1, b, D]) and labels [b]."""
        seed = self._dropout_seed()
        if self.from_features:
            logits = self.model.head(images[0], training=True, seed=seed)
        else:
            logits = self.model.logits(images[0], training=True, seed=seed)
        loss = classification_loss(
            logits,
            labels,
            label_smoothing=self.settings.label_smoothing,
            focal_gamma=self.settings.focal_gamma,
            class_weights=self.class_weights,
        )
        metrics = {"supervised_loss": loss, "supervised_acc": accuracy(logits, labels)}
        return StepOutputs(loss, metrics)

    def _dropout_seed(self) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        replica = context.replica_id_in_sync_group if context else 0
        step = tf.cast(tf.convert_to_tensor(self.iterations), tf.int64)
        # Room for the layers of a head below, and for replicas above.
        position = tf.cast(replica, tf.int64) * 2**48 + step * 256
        return tf.stack([tf.constant(self.seed, tf.int64), position])
