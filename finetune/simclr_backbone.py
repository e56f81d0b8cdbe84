"""A SimCLR encoder as a classifier's backbone."""

from collections.abc import Collection
from typing import Any

import keras
import tensorflow as tf

from finetune.classifier import Classifier
from simclr_tf.checkpoints.store import model_keys
from simclr_tf.models.simclr import SimCLREncoder, SimCLRModel
from simclr_tf.models.weights import freeze


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
