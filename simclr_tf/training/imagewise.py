"""Outputs for images of any kind, in which nothing of an image depends on those beside it."""

from dataclasses import replace

import numpy as np
import tensorflow as tf

from data_prep.manifest.manifest import Manifest
from data_prep.manifest.scan import image_facts
from data_prep.sources.manifest_source import ManifestSource
from data_prep.sources.source import PARALLEL_CALLS
from simclr_tf.training.batches import Batch
from simclr_tf.training.evaluator import Evaluator, Outputs


class Imagewise:
    """A network over images, however they are dealt out into calls.

    Images of 8 bits are resized in 8 bits and others in floating point, so each kind is taken for
    itself. Labels are not looked at.

    Args:
        evaluator: Runs the network.
        channels: Of its input.
        batch_size: Images of a pass.
    """

    def __init__(self, evaluator: Evaluator, channels: int, batch_size: int) -> None:
        self._evaluator, self._channels, self._batch_size = evaluator, channels, batch_size

    def outputs(self, images: Manifest) -> Outputs:
        """Outputs for n images, in their order; labels are -1.

        Raises:
            UserError: A header cannot be read.
            tf.errors.OpError: An image cannot be decoded.
        """
        source = self._source(images)
        eight = None
        if source.image_dtype != tf.uint8:
            eight = image_facts(images).survey.bits == 8
        if eight is None or not eight.any():
            return self._evaluator.outputs(source)
        rows = [np.flatnonzero(eight), np.flatnonzero(~eight)]
        parts = [
            self._evaluator.outputs(self._source(images.subset(images.records[r] for r in part)))
            for part in rows
        ]
        back = np.argsort(np.concatenate(rows))
        logits = [part.logits for part in parts if part.logits is not None]
        return Outputs(
            np.arange(len(images)),
            np.concatenate([part.label for part in parts])[back],
            np.concatenate([part.features for part in parts])[back],
            np.concatenate(logits)[back] if logits else None,
        )

    def undecodable(self, images: Manifest) -> dict[int, str]:
        """Positions of images that cannot be decoded, and why."""
        source = self._source(images)
        elements = source.elements(seed=0, shuffle=False, start=0, batch_size=self._batch_size)

        def index(element: Batch) -> tuple[tf.Tensor, tf.Tensor]:
            # A pixel goes along, or the decoding would be optimised away.
            return element["index"], source.decode(element)[0, 0, 0]

        pairs = elements.map(index, num_parallel_calls=PARALLEL_CALLS).ignore_errors()
        decoded = {int(position) for position, _ in pairs.as_numpy_iterator()}
        bad = sorted(set(range(len(images))).difference(decoded))
        return {i: _why(self._source(images.subset([images.records[i]]))) for i in bad}

    def _source(self, images: Manifest) -> ManifestSource:
        bare = images.subset(replace(record, label="", split="") for record in images.records)
        return ManifestSource(bare, (), channels=self._channels, cache="false")


def _why(source: ManifestSource) -> str:
    """What is wrong with the one image of a source."""
    error = source.diagnose()
    text = str(error) if error else "cannot be decoded"
    return text.partition(" (")[2].partition("). Mend")[0] or text
