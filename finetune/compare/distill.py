"""A student that learns from a fine-tuned network on unlabelled images: SimCLRv2's last step."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from data_prep.manifest.manifest import Manifest
from data_prep.sources.manifest_source import ManifestSource
from finetune.classifier import Classifier
from finetune.compare.images import Division, LabelSet
from finetune.config import ClassifierConfig
from finetune.simclr_backbone import SimCLRBackbone
from simclr_tf.checkpoints.load import load_model
from simclr_tf.checkpoints.write import write_model
from simclr_tf.config.run_config import RunConfig
from simclr_tf.evaluation.metrics import softmax
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.training import distribution
from simclr_tf.training.build import view_config
from simclr_tf.training.evaluator import Evaluator
from simclr_tf.training.from_checkpoint import adopt_checkpoint
from simclr_tf.training.run import execute

FACTOR = 2
"""Updates of a student for each of its teacher's fine-tuning."""

_RATE = 0.004  # of Adam, times batch / 256


def distil(
    teacher: Classifier, fitted: ClassifierConfig, division: Division, drawn: LabelSet, folder: Path
) -> tuple[np.ndarray, int]:
    """Trains a student of the teacher's size, which begins where the teacher's training did.

    Args:
        teacher: On a SimCLR encoder, fine-tuned.
        fitted: How it was.
        division: All images; the labels of the others stay hidden.
        drawn: The labels that the teacher has seen.
        folder: For teacher and student.

    Returns:
        What the student says of the test images, float64 [n, K], and its updates.

    Raises:
        KeyboardInterrupt: A signal asked to stop.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = as_simclr(teacher)
    write_model(model, folder / "teacher", "tf2")
    manifest = folder / "images.csv"
    _with_labels(division, drawn).save(manifest)
    values = fitted.values()
    steps = FACTOR * values["train_steps"]
    own = {name: values[name] for name in (
        "image_size", "min_crop_area", "min_crop_aspect", "vertical_flip", "right_angle_rotation",
        "central_crop", "whole_image", "seed", "train_batch_size", "eval_batch_size",
    )}  # fmt: skip
    asked = {
        **own,
        "train_mode": "distill",
        "teacher": str(folder / "teacher"),
        "checkpoint": "" if values["fresh_weights"] else values["encoder"],
        "manifest": str(manifest),
        "model_dir": str(folder / "student"),
        "train_steps": steps,
        "checkpoint_steps": steps,
        "keep_checkpoint_max": 1,
        "optimizer": "adam",
        "learning_rate": _RATE,
        "warmup_epochs": 0.0,
        "weight_decay": 1e-4,
    }
    config = adopt_checkpoint(RunConfig.from_values(asked), set(asked))
    if execute(config):
        raise KeyboardInterrupt
    student = load_model(folder / "student")
    devices = distribution.connect(config.machine)
    views = view_config(config, student.image_channels)
    source = ManifestSource(division.test, division.class_names, student.image_channels)
    logits = Evaluator(student, views, devices, config.train.eval_batch_size).outputs(source).logits
    assert logits is not None
    return softmax(logits), steps


def as_simclr(classifier: Classifier) -> SimCLRModel:
    """A classifier with a linear head on a SimCLR encoder, as the network of `simclr-run`."""
    backbone = classifier.backbone
    if not isinstance(backbone, SimCLRBackbone) or classifier.head.hidden:
        raise ValueError("only a linear head on a SimCLR encoder can be a teacher")
    model = SimCLRModel(backbone.encoder, classifier.head.num_classes, backbone.ft_proj_selector)
    model.build()
    assert model.supervised_head is not None
    (layer,) = classifier.head.layers
    for target, value in zip(model.supervised_head.variables, layer.variables, strict=True):
        target.assign(value.value.numpy())
    return model


def _with_labels(division: Division, drawn: LabelSet) -> Manifest:
    """What self-supervision sees, with the labels that were drawn and no others."""
    shown = set(drawn.rows.tolist())
    records = division.images.records
    return division.images.subset(
        r if row in shown else replace(r, label="")
        for row, r in enumerate(records)
        if r.split == "train"
    )
