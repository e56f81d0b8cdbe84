"""A converted network is run once: are its numbers sound, and those of the original?"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from data_prep.errors import UserError
from simclr_tf.checkpoints.plain_names import PlainName
from simclr_tf.models.simclr import SimCLRModel

TOLERANCE = 1e-4  # of the largest value
_BATCH = 2


@dataclass(frozen=True)
class InferenceCheck:
    """What one pass over two random images gave.

    Attributes:
        spread: Mean and standard deviation of every endpoint.
        compared: Largest difference from the original at each endpoint, over the original's
            largest value; empty if the original cannot be executed.
    """

    spread: dict[str, tuple[float, float]]
    compared: dict[str, float]

    def table(self) -> str:
        """A line an endpoint."""
        lines = [f"  {'endpoint':18s}{'mean':>12s}{'spread':>12s}  difference from the original"]
        for name, (mean, deviation) in self.spread.items():
            difference = f"{self.compared[name]:.1e}" if name in self.compared else "not executed"
            lines.append(f"  {name:18s}{mean:12.4g}{deviation:12.4g}  {difference}")
        return "\n".join(lines)


def check_inference(model: SimCLRModel, saved_model: str = "") -> InferenceCheck:
    """Runs a converted network, and the SavedModel it comes from if there is one.

    Args:
        model: The network.
        saved_model: Folder of the original with a graph that can be executed; empty for none.

    Raises:
        UserError: An endpoint is not finite, or differs from the original's.
    """
    size = model.encoder.preprocessing.get("image_size", 32)
    rng = np.random.default_rng(0)
    images = tf.constant(rng.random((_BATCH, size, size, model.image_channels), np.float32))
    ours = {n: v.numpy() for n, v in model(images, training=False).items() if n != "proj_hidden"}
    spread = {n: (float(v.mean()), float(v.std())) for n, v in ours.items()}
    broken = [name for name, value in ours.items() if not np.isfinite(value).all()]
    if broken:
        raise UserError(f"the converted network gives no finite numbers at {', '.join(broken)}")
    theirs = _execute(saved_model, images) if saved_model else {}
    compared = {
        name: _difference(ours[name], value) for name, value in theirs.items() if name in ours
    }
    worst = max(compared, key=lambda name: compared[name], default="")
    if worst and not compared[worst] <= TOLERANCE:
        raise UserError(
            f"the converted network differs from {saved_model} at {worst} by {compared[worst]:.2g} "
            f"of the largest value; {TOLERANCE:g} is allowed"
        )
    return InferenceCheck(spread, compared)


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest difference over the largest value; infinite between different shapes."""
    if ours.shape != theirs.shape:
        return np.inf
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12))


def _execute(folder: str, images: tf.Tensor) -> dict[str, np.ndarray]:
    """Endpoints of a SavedModel; none if it is not called like the public TF2 ones."""
    name = PlainName(folder)
    loaded = tf.saved_model.load(name.path)
    if not callable(loaded):
        return {}
    try:
        return {name: value.numpy() for name, value in loaded(images, trainable=False).items()}
    except (ValueError, TypeError, AttributeError):
        return {}
