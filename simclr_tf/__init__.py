"""SimCLRv2 for scientists with many images and few labels.

    import simclr_tf as st

    images = st.images("images")
    run = st.pretrain(images, "runs/pretrained")
    classifier = st.finetune(run, "runs/classifier")
    classifier.predict("new").to_pandas()

Every name below is imported when it is first used: `import simclr_tf` itself takes no time.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

PLACES = {
    "finetune.api.functions": (
        "synthesize", "pretrain", "run", "finetune", "transfer", "distill", "evaluate", "embed",
        "compare", "folds", "sweep", "predict", "export", "depth_train", "depth_predict", "convert",
        "load_encoder", "list_methods", "list_backbones", "list_checkpoints",
    ),
    "finetune.api.images": ("ImageSet", "images", "read_image"),
    "finetune.api.results": (
        "Classifier", "Comparison", "DepthMaps", "DepthModel", "Embedding", "Folds", "Predictions",
        "Run", "Sweep", "load",
    ),
    "data_prep.errors": ("UserError",),
    "data_prep.augment.views": ("ViewConfig", "device_views", "evaluation_image", "host_views"),
    "data_prep.augment.draws": ("example_seed",),
    "data_prep.reading.formats.arrays": ("register_format",),
    "simclr_tf.methods.registry": ("register_method",),
    "simclr_tf.models.registry": ("register_backbone",),
    "simclr_tf.models.simclr": ("SimCLREncoder", "SimCLRModel"),
    "simclr_tf.losses.nt_xent": ("nt_xent",),
    "simclr_tf.losses.barlow_twins": ("barlow_twins_loss",),
    "simclr_tf.losses.vicreg": ("vicreg_terms",),
    "simclr_tf.optim.lars": ("LARS",),
    "simclr_tf.optim.schedules": ("WarmUpAndCosineDecay",),
}  # fmt: skip
_MODULE = {name: module for module, names in PLACES.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE)]  # noqa: PLE0604 (names are strings)

try:
    __version__ = version("simclr-tf")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0"


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module 'simclr_tf' has no attribute {name!r}")
    return getattr(import_module(_MODULE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
