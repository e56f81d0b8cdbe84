"""The two models of the toolkit: the encoder that is handed out, and what SimCLR trains."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import keras
import tensorflow as tf

from simclr_tf.models.backbone import StagedBackbone, set_trainability, trainability_of
from simclr_tf.models.blocks import Shape
from simclr_tf.models.heads import ProjectionHead, SupervisedHead
from simclr_tf.models.registry import build_backbone
from simclr_tf.models.resnet import ResNet

Endpoints = dict[str, tf.Tensor]
ProjectionPart = Literal["all", "used", "unnormalised"]


class ForwardOutputs(NamedTuple):
    """Everything one pass of `SimCLRModel.forward` gives.

    Attributes:
        hiddens: the projection head's input and the outputs of its layers that ran, each [B, d].
        projection: output of the whole projection head [B, out_dim]; None if only a part ran.
        logits: [B, num_classes]; None without a supervised head.
        endpoints: the backbone's, see `StagedBackbone.endpoints`.
    """

    hiddens: list[tf.Tensor]
    projection: tf.Tensor | None
    logits: tf.Tensor | None
    endpoints: Endpoints


@keras.saving.register_keras_serializable(package="simclr_tf")
class SimCLREncoder(keras.Model):
    """A backbone, SimCLRv2's ResNet unless another is named, with its projection head.

    Call: images [B, H, W, image_channels] in [0, 1] -> representation [B, D] (`final_avg_pool`).
    The projection head keeps its weights in the file but runs only in `endpoints` and `hiddens`.
    To train the representation alone, set `encoder.projection_head.trainable = False`, or Keras
    warns of weights without gradients.

    Args:
        depth: of the ResNet, see there, also for the next four and `sk_min_dim`.
        width_multiplier: factor on all widths.
        sk_ratio: selective kernels and ResNet-D.
        se_ratio: squeeze-and-excitation.
        cifar_stem: stem for small images.
        image_channels: channels of the images.
        batch_norm_decay: weight of the old moving statistics.
        global_bn: normalise over the batch of all replicas.
        sk_min_dim: smallest gating width of selective kernels.
        backbone: another backbone instead of the ResNet: the `options` of its architecture, see
            `simclr_tf.models.architectures`, such as `{"backbone": "vit_tiny", "patch_size": 8}`.
        proj_head_mode: `nonlinear`, `linear` or `none`.
        proj_out_dim: length of the projection.
        num_proj_layers: layers of the nonlinear head.
        preprocessing: facts a user needs to prepare images (size, value range, ...); JSON values.
        trainability: which layers train, see `trainability_of`; None = all of them.
        **kwargs: of `keras.Model` (`name`, `dtype`, `trainable`).

    Raises:
        UserError: if the network cannot be built from these numbers.
    """

    built: bool

    def __init__(
        self,
        depth: int = 50,
        *,
        width_multiplier: float = 1.0,
        sk_ratio: float = 0.0,
        se_ratio: float = 0.0,
        cifar_stem: bool = False,
        image_channels: int = 3,
        batch_norm_decay: float = 0.9,
        global_bn: bool = True,
        sk_min_dim: int = 32,
        backbone: Mapping[str, Any] | None = None,
        proj_head_mode: str = "nonlinear",
        proj_out_dim: int = 128,
        num_proj_layers: int = 3,
        preprocessing: dict[str, Any] | None = None,
        trainability: dict[str, bool] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if backbone is None:
            self.resnet = ResNet(
                depth,
                width_multiplier=width_multiplier,
                sk_ratio=sk_ratio,
                se_ratio=se_ratio,
                cifar_stem=cifar_stem,
                image_channels=image_channels,
                batch_norm_decay=batch_norm_decay,
                global_bn=global_bn,
                sk_min_dim=sk_min_dim,
                name="resnet",
                dtype=self.dtype_policy,
            )
        else:
            self.network = build_backbone(
                backbone,
                image_channels,
                batch_norm_decay=batch_norm_decay,
                global_bn=global_bn,
                name="network",
                dtype=self.dtype_policy,
            )
        self.projection_head = ProjectionHead(
            proj_head_mode,
            proj_out_dim,
            num_proj_layers,
            batch_norm_decay,
            global_bn,
            name="projection_head",
            dtype=self.dtype_policy,
        )
        self._preprocessing = dict(preprocessing or {})
        self._trainability = dict(trainability or {})

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Record of how images were prepared in training; kept in the `.keras` file."""
        return dict(self._preprocessing)

    @preprocessing.setter
    def preprocessing(self, facts: dict[str, Any]) -> None:
        self._preprocessing = dict(facts)

    def backbone(self) -> StagedBackbone:
        """The network that makes the representation of images.

        A method, because Keras files walk through attributes and properties, and name the backbone
        after the first that leads to it: `resnet` for a ResNet.
        """
        return self.resnet if hasattr(self, "resnet") else self.network

    @property
    def feature_dim(self) -> int:
        """Length D of the representation."""
        return self.backbone().feature_dim

    @property
    def projection_dim(self) -> int:
        """Length of the projection."""
        head = self.projection_head.architecture
        return head.layer_dim(head.depth - 1, self.feature_dim) if head.depth else self.feature_dim

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return self.backbone().image_channels

    def build(self, input_shape: Shape | None = None) -> None:
        """Creates all weights, the projection head's too; they fit every image size."""
        if self.built:
            return
        self.backbone().build(input_shape)
        self.projection_head.build((None, self.feature_dim))
        set_trainability(self, self._trainability)
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images [B, H, W, C] -> representation [B, D], float32 (float64 under float64)."""
        return self.backbone()(inputs, training=training)

    def endpoints(self, inputs: tf.Tensor, training: bool = False) -> Endpoints:
        """The backbone's endpoints, and `proj_head_input` and `proj_head_output`."""
        endpoints, hiddens = self.hiddens(inputs, training=training)
        return {**endpoints, "proj_head_input": hiddens[0], "proj_head_output": hiddens[-1]}

    def hiddens(
        self,
        inputs: tf.Tensor,
        training: bool = False,
        num_layers: int | None = None,
        first_stage: int = 0,
        normalize_output: bool = True,
    ) -> tuple[Endpoints, list[tf.Tensor]]:
        """Backbone endpoints, and input and outputs of the projection head's first layers.

        Args:
            inputs: images [B, H, W, C] in [0, 1].
            training: normalise by batch statistics (where not frozen).
            num_layers: layers of the projection head to run; None = all.
            first_stage: where the backbone begins, see `StagedBackbone.endpoints`.
            normalize_output: see `ProjectionHead.call`.
        """
        if not self.built:
            self.build()
        endpoints = self.backbone().endpoints(inputs, training, first_stage)
        features = endpoints["final_avg_pool"]
        layers = self.projection_head(
            features,
            training=training,
            num_layers=num_layers,
            normalize_output=normalize_output,
        )
        return endpoints, [features, *layers[1:]]

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """[B, D]."""
        return (input_shape[0], self.feature_dim)

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments."""
        head = self.projection_head.architecture
        return {
            **self._backbone_config(),
            "name": self.name,
            "trainable": self.trainable,
            "trainability": trainability_of(self),
            "proj_head_mode": head.mode,
            "proj_out_dim": head.out_dim,
            "num_proj_layers": head.num_layers,
            "preprocessing": self.preprocessing,
        }

    def _backbone_config(self) -> dict[str, Any]:
        backbone = self.backbone()
        if isinstance(backbone, ResNet):
            return backbone.get_config()
        return {
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "backbone": backbone.architecture.options(),
            "image_channels": self.image_channels,
            "batch_norm_decay": self.projection_head.batch_norm_decay,
            "global_bn": self.projection_head.global_bn,
        }


@keras.saving.register_keras_serializable(package="simclr_tf")
class SimCLRModel(keras.Model):
    """Encoder and, if there are classes, a linear classifier on it.

    Call: images [B, H, W, C] in [0, 1] -> dict of endpoints, named as in the public SavedModels:
    `initial_conv`, `initial_max_pool`, `block_group1` to `block_group4`, `final_avg_pool`,
    `proj_head_input`, `proj_head_output`, `logits_sup` (if there are classes), and `proj_hidden`,
    the layer [B, d] of the projection head that `ft_proj_selector` picks as classifier's input.

    Args:
        encoder: backbone and projection head.
        num_classes: classes of the supervised head; None for no such head.
        ft_proj_selector: layer of the projection head that the classifier sees: 0 = its input,
            1 = its first layer's output, ...; negative counts from the end.
        trainability: which layers train, see `trainability_of`; None = all of them.
        **kwargs: of `keras.Model`; the dtype is the encoder's unless given.

    Raises:
        UserError: if `ft_proj_selector` points past the projection head.
    """

    built: bool

    def __init__(
        self,
        encoder: SimCLREncoder,
        num_classes: int | None = None,
        ft_proj_selector: int = 0,
        trainability: dict[str, bool] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{"dtype": encoder.dtype_policy, **kwargs})
        encoder.projection_head.architecture.selector_index(ft_proj_selector)
        self.encoder = encoder
        self.num_classes = num_classes
        self.ft_proj_selector = ft_proj_selector
        self._trainability = dict(trainability or {})
        self.supervised_head = None
        if num_classes:
            self.supervised_head = SupervisedHead(
                num_classes, name="supervised_head", dtype=self.dtype_policy
            )

    @property
    def image_channels(self) -> int:
        """Channels of the images."""
        return self.encoder.image_channels

    @property
    def selected_layer(self) -> int:
        """Number of projection layers below the supervised head."""
        return self.encoder.projection_head.architecture.selector_index(self.ft_proj_selector)

    def build(self, input_shape: Shape | None = None) -> None:
        """Creates all weights; they fit every image size."""
        if self.built:
            return
        self.encoder.build(input_shape)
        if self.supervised_head is not None:
            head = self.encoder.projection_head.architecture
            dim = head.hidden_dim(self.selected_layer, self.encoder.feature_dim)
            self.supervised_head.build((None, dim))
        set_trainability(self, self._trainability)
        self.built = True

    def call(self, inputs: tf.Tensor, training: bool = False) -> Endpoints:
        """Images [B, H, W, C] -> endpoints."""
        outputs = self.forward(inputs, training=training)
        endpoints = {
            **outputs.endpoints,
            "proj_head_input": outputs.hiddens[0],
            "proj_head_output": outputs.hiddens[-1],
            "proj_hidden": outputs.hiddens[self.selected_layer],
        }
        if outputs.logits is not None:
            endpoints["logits_sup"] = outputs.logits
        return endpoints

    def forward(
        self,
        inputs: tf.Tensor,
        training: bool = False,
        *,
        stop_head_gradient: bool = False,
        projection_layers: ProjectionPart = "all",
        first_stage: int = 0,
    ) -> ForwardOutputs:
        """The pass that losses are computed from.

        Args:
            inputs: images [B, H, W, C] in [0, 1].
            training: normalise by batch statistics (where not frozen) and move the stored ones.
            stop_head_gradient: let the supervised head learn without teaching the encoder, as in
                pretraining.
            projection_layers: `all`, or `used` for those up to `ft_proj_selector` only, which is
                what fine-tuning needs. (The SimCLR TF2 code runs all of them in fine-tuning too.)
                `unnormalised`: all, but without the normalisation of the output, as methods other
                than SimCLR have it.
            first_stage: where the backbone begins, see `StagedBackbone.endpoints`.

        Returns:
            Hidden layers, projection, logits and endpoints.
        """
        if not self.built:
            self.build()
        num_layers = self.selected_layer if projection_layers == "used" else None
        endpoints, hiddens = self.encoder.hiddens(
            inputs, training, num_layers, first_stage, projection_layers != "unnormalised"
        )
        complete = len(hiddens) == self.encoder.projection_head.architecture.depth + 1
        logits = None
        if self.supervised_head is not None:
            selected = hiddens[self.selected_layer]
            if stop_head_gradient:
                selected = tf.stop_gradient(selected)
            logits = self.supervised_head(selected)
        return ForwardOutputs(hiddens, hiddens[-1] if complete else None, logits, endpoints)

    def get_config(self) -> dict[str, Any]:
        """All constructor arguments; this model's dtype and trainability are the encoder's too."""
        encoder = self.encoder.get_config()
        del encoder["dtype"], encoder["trainability"]
        return {
            "name": self.name,
            "trainable": self.trainable,
            "trainability": trainability_of(self),
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "encoder": encoder,
            "num_classes": self.num_classes,
            "ft_proj_selector": self.ft_proj_selector,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "SimCLRModel":
        """The model of a `get_config()`, with new weights."""
        config = dict(config)
        dtype = config["dtype"]
        if isinstance(dtype, dict):
            dtype = keras.saving.deserialize_keras_object(dtype)
        encoder = SimCLREncoder(**{**config.pop("encoder"), "dtype": dtype})
        return cls(encoder, **{**config, "dtype": dtype})
