"""The small checkpoints recorded from the reference, and the numbers that they must give."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tests import golden

CHECKPOINTS = golden.REFERENCE / "checkpoints"

# Folder of each layout, the checkpoint whose forward pass was recorded, its layout in words.
LAYOUTS = {
    "tf1_tiny_r18_w8_cifar_pretrain": ("tf1_tiny_r18_w8_cifar_pretrain", "TF1 checkpoint"),
    "tf1_tiny_r18_w8_cifar_pretrain/model.ckpt-3": (
        "tf1_tiny_r18_w8_cifar_pretrain",
        "TF1 checkpoint",
    ),
    "tf1_tiny_r18_w8_cifar_pretrain/hub": ("tf1_tiny_r18_w8_cifar_pretrain", "TF1 checkpoint"),
    "tf1_tiny_r18_w8_img64_finetune": ("tf1_tiny_r18_w8_img64_finetune", "TF1 checkpoint"),
    "tf1_tiny_r50_w16_sk_img64_finetune": ("tf1_tiny_r50_w16_sk_img64_finetune", "TF1 checkpoint"),
    "him_converted_tf1_tiny_r18_w8_cifar_pretrain": (
        "tf1_tiny_r18_w8_cifar_pretrain",
        "map of names",
    ),
    "tf2_tiny_r18_w8_cifar_pretrain/tf2_checkpoint": (
        "tf2_tiny_r18_w8_cifar_pretrain",
        "TF2 object graph",
    ),
    "tf2_tiny_r18_w8_cifar_pretrain/saved_model": ("tf2_tiny_r18_w8_cifar_pretrain", "SavedModel"),
    "tf2_tiny_r18_w8_sk_img64_finetune_momentum/tf2_checkpoint": (
        "tf2_tiny_r18_w8_sk_img64_finetune_momentum",
        "TF2 object graph",
    ),
    "tf2_tiny_r18_w8_sk_img64_finetune_momentum/saved_model": (
        "tf2_tiny_r18_w8_sk_img64_finetune_momentum",
        "SavedModel",
    ),
}


@dataclass(frozen=True)
class Recorded:
    """A recorded checkpoint."""

    name: str

    @cached_property
    def meta(self) -> dict[str, Any]:
        return golden.load_json(f"checkpoints/{self.name}/meta")

    @cached_property
    def outputs(self) -> dict[str, np.ndarray]:
        """Endpoints of the reference code, by name."""
        arrays = golden.load_arrays(f"checkpoints/{self.name}/forward")
        return {k.removeprefix("eval/"): v for k, v in arrays.items() if k.startswith("eval/")}

    @property
    def images(self) -> np.ndarray:
        """What the endpoints were computed from, [3, S, S, 3]."""
        kind = "ckpt1" if self.name.startswith("tf1") else "ckpt"
        size = self.meta["case"]["size"]
        return golden.images(f"{golden.SALT}:{kind}/{self.name}/eval", 3, size, 3)


def path_of(layout: str) -> Path:
    return CHECKPOINTS / layout
