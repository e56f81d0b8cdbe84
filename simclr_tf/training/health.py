"""The watch over a run: says, with numbers, when it learns nothing or falls apart.

Chance level of NT-Xent over N image pairs is ln(2N-1) a side (SimCLR, section 2.1), and ln(2N-2)
without the positive in its denominator; the effective rank is the exponential of the entropy of
the normalised singular values (Roy and Vetterli, 2007).
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from data_prep.errors import UserError
from data_prep.phrases import counted
from data_prep.statistics import FEW_UPDATES
from simclr_tf.evaluation.metrics import effective_rank
from simclr_tf.methods.base import HealthCheck
from simclr_tf.training.run_warnings import RunWarning, warn

log = logging.getLogger(__name__)

AT_CHANCE, COLLAPSED, NO_BETTER = "chance", "rank", "knn"
"""Kinds of warnings: loss at chance, collapsed features, k-NN no better than before training."""

_NEAR_CHANCE = 0.985
_PATIENCE = 100  # steps
_COLLAPSED_RANK = 2.0
_LARGE_LOSS, _LARGE_RATIO = 1e6, 1e3
_ERRORS = frozenset({"loss", "rmse", "mae"})


class DivergedError(UserError):
    """Loss or weights became NaN or infinite."""


def nt_xent_at_chance(batch_size: int, decoupled: bool = False) -> float:
    """NT-Xent, summed over both sides, of a network that tells nothing apart."""
    return 2 * math.log(2 * batch_size - 1 - decoupled) if batch_size > 1 else 0.0


def warnings_before_start(
    num_examples: int, batch_size: int, steps: int, train_mode: str
) -> list[str]:
    """Problems that can be foreseen before the first step.

    Args:
        num_examples: Training images.
        batch_size: Images of a global batch.
        steps: Updates planned.
        train_mode: `pretrain` or `finetune`.

    Returns:
        One sentence a problem.
    """
    found, images = [], counted(num_examples, "image")
    if steps < FEW_UPDATES:
        found.append(
            f"only {counted(steps, 'update')} in all ({images}, batch {batch_size}): too few to "
            f"learn much; take a smaller batch or more epochs ({FEW_UPDATES} updates at least)"
        )
    if batch_size > num_examples:
        pretrain = train_mode == "pretrain"
        harm = "images meet themselves as negatives" if pretrain else "it repeats images"
        found.append(
            f"the batch ({batch_size}) is larger than the data ({images}): {harm}; "
            "take a smaller batch"
        )
    return found


def check_metrics(
    metrics: dict[str, np.ndarray],
    first_step: int,
    last_checkpoint: str,
    beginning: Mapping[str, float] | None = None,
) -> None:
    """Stops a run whose numbers are no longer numbers, or whose loss is out of all bounds.

    A loss may stay a number for long after the weights have grown beyond use.

    Args:
        metrics: Values per step.
        first_step: Step of the first value.
        last_checkpoint: What is still good.
        beginning: The metrics of the first step, by name; a loss above a million and a thousand
            times above its beginning has diverged.

    Raises:
        DivergedError: Some value is NaN, infinite or out of bounds.
    """
    for name, values in metrics.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            step = first_step + int(bad[0])
            raise diverged(f"{name} is {values[bad[0]]} at step {step}", last_checkpoint)
    for name, begun in (beginning or {}).items():
        if not name.endswith("loss") or name not in metrics:
            continue
        large = np.flatnonzero(np.abs(metrics[name]) > max(_LARGE_LOSS, _LARGE_RATIO * abs(begun)))
        if large.size:
            value, step = metrics[name][large[0]], first_step + int(large[0])
            how = "finite but out of all bounds"
            raise diverged(f"{name} is {value:g} at step {step}, {how}", last_checkpoint)


def diverged(what: str, last_checkpoint: str) -> DivergedError:
    """The error that ends a run whose numbers are no longer numbers.

    Args:
        what: The numbers, and when they were seen.
        last_checkpoint: What is still good; empty if nothing is.
    """
    return DivergedError(
        f"{what}: the run stops, {last_checkpoint or 'no checkpoint'} is kept; try a lower "
        "--learning_rate or --precision=float32"
    )


def check_scores(scores: Mapping[str, Any]) -> None:
    """Refuses a validation whose loss or error is no number; other scores may be undefined.

    Args:
        scores: By name, such as `validation/loss`.

    Raises:
        DivergedError: Such a number is NaN or infinite.
    """
    for name, value in scores.items():
        if name.rpartition("/")[2] in _ERRORS and not math.isfinite(value):
            raise DivergedError(f"{name} is {value:g}")


def check_outputs(name: str, values: np.ndarray) -> None:
    """Refuses what a network gives for images, [n, ...], if some of it is no number.

    Raises:
        DivergedError: Some value is NaN or infinite.
    """
    broken = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if broken.any():
        raise DivergedError(
            f"the network's {name} are NaN or infinite for {broken.sum()} of {len(values)} images"
        )


class HealthWatch(keras.callbacks.Callback):
    """Warns of a contrastive loss at chance and of collapsed features.

    Args:
        chance: The loss of a network that tells nothing apart; 0 if the method has none.
        features: Gives features [n, d] of some training images.
        total_steps: Updates planned.
        signs: What the method itself takes for bad signs.
        start_scores: k-NN scores of the network before the first step, if they were measured, by
            the names that validations give them.
        said: Steps of the last warnings of each kind, where a run goes on.
    """

    def __init__(
        self,
        chance: float,
        features: Callable[[], np.ndarray],
        total_steps: int,
        signs: Sequence[HealthCheck] = (),
        start_scores: Mapping[str, float] | None = None,
        said: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        self._signs = signs
        self._chance = chance
        self._features = features
        self._start = dict(start_scores or {})
        self._total = total_steps
        # The end of a short run is no time for patience: then it is said, or never.
        self._patience = min(max(_PATIENCE, total_steps // 10), total_steps)
        self._knn_patience = min(max(_PATIENCE, total_steps // 4), total_steps)
        self.messages: list[str] = []
        self._said = dict(said or {})

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at the numbers of the interval that ends."""
        logs = logs or {}
        loss, step = logs.get("contrast_loss"), int(logs.get("step", 0))
        if loss and self._chance and step >= self._patience and loss > _NEAR_CHANCE * self._chance:
            self._say(
                AT_CHANCE,
                step,
                f"the contrastive loss {loss:.3f} is at chance "
                f"({self._chance:.3f} for this batch): nothing is learnt; train longer, and check "
                "the learning rate, the temperature and whether crops still show the object",
            )
        if step >= self._knn_patience:
            self._look_at_neighbors(step, logs)
        for sign in self._signs if step >= self._patience else ():
            if sign.metric in logs and sign.seen(logs[sign.metric]):
                value = logs[sign.metric]
                self._say(sign.metric, step, f"{sign.metric} is {value:.3f}: {sign.meaning}")
        rank = effective_rank(self._features())
        logs["effective_rank"] = rank
        if rank < _COLLAPSED_RANK:
            self._say(
                COLLAPSED,
                step,
                f"the features have effective rank {rank:.2f}: they collapse; lower the learning "
                "rate or look at the images",
            )

    def _look_at_neighbors(self, step: int, logs: dict[str, Any]) -> None:
        """Warns if k-NN is no better than before the first step."""
        for name, before in self._start.items():
            now, low = logs.get(name), logs.get(f"{name}_low")
            if now is None or low is None or low > before:
                continue
            split, high = name.split("/")[0], logs[f"{name}_high"]
            self._say(
                NO_BETTER,
                step,
                f"k-NN accuracy on {split} is {now:.3f} [{low:.3f}, {high:.3f}], not above that of"
                f" the network before training ({before:.3f}): nothing useful for these labels is "
                "learnt so far, however the loss falls; train longer, and check whether the views "
                "keep what tells the classes apart",
            )

    def _say(self, kind: str, step: int, message: str) -> None:
        """Warns, but not of the same kind again before another tenth of the run, or its end."""
        due = self._said.get(kind, -self._patience) + self._patience
        if step < due and step < self._total:
            return
        self._said[kind] = step
        warning = RunWarning(step, kind, message)
        self.messages.append(str(warning))
        warn(log, warning)
