"""What a checkpoint says of its network, where names and shapes of the weights do not tell.

ResNets are recognised by their weights, as the public checkpoints must be. Other backbones write
down what they are, beside the weights and in the same file: JSON, as a vector of bytes, because
readers of checkpoints look for numbers.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from simclr_tf.models.architectures import FEATURE_DIM
from simclr_tf.models.resnet import ResNet
from simclr_tf.models.simclr import SimCLREncoder, SimCLRModel

NETWORK = "network"
NETWORK_KEY = f"model/{NETWORK}"  # in object graphs


def describe(model: SimCLRModel | SimCLREncoder) -> np.ndarray | None:
    """The bytes that go into a checkpoint, uint8 [n]; None for a ResNet."""
    encoder = model.encoder if isinstance(model, SimCLRModel) else model
    backbone = encoder.backbone()
    if isinstance(backbone, ResNet):
        return None
    facts = {**backbone.architecture.config(), FEATURE_DIM: backbone.feature_dim}
    return np.frombuffer(json.dumps(facts, sort_keys=True).encode(), np.uint8).copy()


def read_description(content: np.ndarray) -> Mapping[str, Any]:
    """What `describe` has written: fields of the architecture, and `feature_dim`."""
    facts: dict[str, Any] = json.loads(content.tobytes().decode())
    return facts
