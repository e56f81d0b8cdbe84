"""Settings that belong together, by the names that `--preset` takes; flags that are given win.

`rheed_...`: self-supervised learning on reflection high-energy electron diffraction, with the
settings of Hippoangel/Self_Supervised_Learning_with_RHEED (PyTorch, lightly). What they left to
lightly's defaults is as there; the learning rates are those of the stated batch.

`..._views`: a method with the views of its paper, see `data_prep.augment.recipes`.
"""

from typing import Any

from data_prep.augment.recipes import PAPER_VIEWS

_RHEED: dict[str, Any] = {
    "resnet_depth": 18,
    "image_size": 128,
    "train_epochs": 50,
    "optimizer": "momentum",
    "learning_rate": 0.06,
    "train_batch_size": 256,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "warmup_epochs": 0.0,
    "horizontal_flip": False,
    "vertical_flip": True,
    "right_angle_rotation": True,
    "color_jitter_strength": 0.5,
    "gray_probability": 0.5,
    "use_blur": False,
}

PRESETS: dict[str, dict[str, Any]] = {
    "rheed_simclr": {**_RHEED, "method": "simclr", "temperature": 0.5},
    "rheed_moco": {
        **_RHEED,
        "method": "moco",
        "queue_size": 4096,
        "target_momentum": 0.99,
        "temperature": 0.1,
    },
    "rheed_swav": {
        **_RHEED,
        "method": "swav",
        "prototypes": 512,
        "optimizer": "adam",
        "train_batch_size": 128,
        "learning_rate": 0.002,  # 1e-3 at a batch of 128
        "weight_decay": 0.0,
        "temperature": 0.1,
    },
    "rheed_byol": {
        **_RHEED,
        "method": "byol",
        "target_momentum": 0.99,
        "momentum_schedule": "constant",
    },
    **{f"{method}_views": {"method": method, **views} for method, views in PAPER_VIEWS.items()},
}
