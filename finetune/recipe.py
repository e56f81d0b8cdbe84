"""What the engine has to be told by a command: how the classifier is built and described."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from data_prep.page import Section
from finetune.classifier import Classifier
from finetune.data import LabelledData
from finetune.inputs import ImageSteps
from finetune.run_folder import ClassifierDir

if TYPE_CHECKING:
    from finetune.session import ClassifierSession


@dataclass(frozen=True)
class Recipe:
    """The part of a run that commands differ in.

    Attributes:
        build: (channels, classes) -> the classifier, built, and frozen where it is to be. Called
            under the strategy and the precision of the run, and once more without them for the
            export.
        start: Sets the starting weights of a new run, if `build` does not.
        parts: The backbone's layers by part, from the input to the output: what layer-wise rates
            and the account of what moved go by. Names are words.
        keys: All variables of a classifier by their checkpoint keys.
        images: channels -> what becomes of images.
        record: (data, steps) -> what a user must know to prepare images: `preprocessing.json`.
        program: Name of the command.
        title: Of the report.
        about: What was trained, sentences for the report.
        settings: Settings for the report, beside those that differ from their defaults.
        folder: Kind of run folder.
        look: Looks at the data before anything is written: what a reader of the numbers must know.
        pretrained: Whether the backbone begins with weights that know something.
        fresh: (channels, classes) -> the classifier with weights drawn at random; None = `build`
            gives that, before `start`.
        new_head: Whether the head of a new run begins anew; else `start` has set it.
        sections: (the run, its classifier as handed out) -> more sections of the report.
    """

    build: Callable[[int, int], Classifier]
    parts: Callable[[Classifier], Mapping[str, Sequence[keras.layers.Layer]]]
    keys: Callable[[Classifier], dict[str, tf.Variable]]
    images: Callable[[int], ImageSteps]
    record: Callable[[LabelledData, ImageSteps], dict[str, Any]]
    program: str
    title: str
    about: Callable[[Classifier], tuple[str, ...]]
    settings: Mapping[str, str] = field(default_factory=dict)
    folder: type[ClassifierDir] = ClassifierDir
    start: Callable[[Classifier], None] = lambda model: None
    look: Callable[[LabelledData], tuple[str, ...]] = lambda data: ()
    pretrained: bool = True
    fresh: Callable[[int, int], Classifier] | None = None
    new_head: bool = True
    sections: Callable[["ClassifierSession", Classifier], tuple[Section, ...]] = (
        lambda session, model: ()
    )


def plain_keys(model: Classifier) -> dict[str, tf.Variable]:
    """Checkpoint keys for a backbone that has no names of its own: variables by number."""
    return {f"classifier/variables/{i}": v.value for i, v in enumerate(model.variables)}
