"""Settings of published works, as mappings that explicit flags win over."""

from typing import Any

from data_prep.errors import UserError
from finetune.former_settings import published

# github.com/HIM003/simclr_core_disturbance, fine_tune/TF2_finetuning*.py: a dense layer on the
# `final_avg_pool` of a SavedModel that stays as it is; LARS of rate 0.1 and momentum 0.9, which the
# layer's name ("head_supervised_new") excludes from adaptation and decay; batches of 64; every
# image, of training too, cropped as in evaluation (the central 0.875). The scripts report every
# epoch; the best is the one with the highest validation accuracy.
_HIM003: dict[str, Any] = published(
    {
        "head_only": True,
        "head": "",
        "ft_proj_selector": 0,
        "augment": "none",
        "optimizer": "lars",
        "learning_rate": 0.1,
        "schedule": "constant",
        "warmup_epochs": 0.0,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "train_batch_size": 64,
        "train_epochs": 25,
        "monitor": "accuracy",
    }
)

PRESETS: dict[str, dict[str, Any]] = {
    "him003": _HIM003,
    "him003_binary": {**_HIM003, "train_epochs": 15},
}


def preset(name: str) -> dict[str, Any]:
    """The values of a preset; none for an empty name.

    Raises:
        UserError: There is no such preset.
    """
    if name and name not in PRESETS:
        raise UserError(f"--preset={name}: there are {', '.join(PRESETS)}")
    return PRESETS[name] if name else {}
