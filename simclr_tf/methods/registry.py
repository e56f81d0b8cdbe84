"""The methods of pretraining by the names that `--method` takes."""

from collections.abc import Callable
from dataclasses import dataclass

from simclr_tf.config.run_config import RunConfig
from simclr_tf.config.sections import ADDED_METHODS
from simclr_tf.methods.barlow_twins import BarlowTwins
from simclr_tf.methods.base import Method
from simclr_tf.methods.byol import BYOL
from simclr_tf.methods.moco import MoCo
from simclr_tf.methods.momentum import MomentumNetwork
from simclr_tf.methods.simclr import SimCLR
from simclr_tf.methods.simsiam import SimSiam
from simclr_tf.methods.swav import SwAV
from simclr_tf.methods.vicreg import VICReg
from simclr_tf.models.heads import Predictor, Prototypes
from simclr_tf.models.simclr import SimCLRModel
from simclr_tf.optim.schedules import steps_per_epoch


@dataclass(frozen=True)
class Recipe:
    """Everything that a method is built from.

    Attributes:
        config: All settings of the run.
        model: The network, built and frozen.
        twin: Builds another network of the same architecture, frozen alike, without a head.
        num_examples: Training images.
        total_steps: Steps of the schedule.
    """

    config: RunConfig
    model: SimCLRModel
    twin: Callable[[], SimCLRModel]
    num_examples: int
    total_steps: int

    def momentum_network(self, momentum: float, cosine: bool) -> MomentumNetwork:
        """A momentum network as set, or with these values where the settings leave them open."""
        m = self.config.method
        if m.momentum_schedule != "auto":
            cosine = m.momentum_schedule == "cosine"
        return MomentumNetwork(
            self.model.encoder,
            self.twin(),
            m.target_momentum or momentum,
            self.total_steps,
            cosine,
        )

    def predictor(self, hidden_per_output: float) -> Predictor:
        """A predictor as wide as set, or this many times the projection."""
        dim, settings = self.model.encoder.projection_dim, self.config.model
        hidden = self.config.method.predictor_dim or max(round(hidden_per_output * dim), 1)
        decay, sync = settings.batch_norm_decay, settings.global_bn
        return Predictor(dim, hidden, decay, sync, name="predictor")


def _simclr(recipe: Recipe) -> Method:
    m = recipe.config.model
    return SimCLR(recipe.model, m.temperature, m.hidden_norm, recipe.config.method.decoupled)


def _moco(recipe: Recipe) -> Method:
    config = recipe.config
    network = recipe.momentum_network(0.999, cosine=False)
    return MoCo(recipe.model, network, config.model.temperature, config.method.queue_size)


def _byol(recipe: Recipe) -> Method:
    # The paper's predictor is 4096 wide on 256 outputs.
    momentum = recipe.momentum_network(0.996, cosine=True)
    return BYOL(recipe.model, momentum, recipe.predictor(16), recipe.config.method.predictor_rate)


def _simsiam(recipe: Recipe) -> Method:
    # 512 on 2048.
    return SimSiam(recipe.model, recipe.predictor(0.25), recipe.config.method.predictor_rate)


def _barlow_twins(recipe: Recipe) -> Method:
    return BarlowTwins(recipe.model, recipe.config.method.barlow_lambda)


def _vicreg(recipe: Recipe) -> Method:
    m = recipe.config.method
    return VICReg(recipe.model, m.vicreg_invariance, m.vicreg_variance, m.vicreg_covariance)


def _swav(recipe: Recipe) -> Method:
    config, m = recipe.config, recipe.config.method
    epoch = steps_per_epoch(recipe.num_examples, config.train.train_batch_size)
    dim = recipe.model.encoder.projection_dim
    return SwAV(
        recipe.model,
        Prototypes(m.prototypes, dim, name="prototypes", dtype=recipe.model.variable_dtype),
        config.model.temperature,
        m.assignment_epsilon,
        m.sinkhorn_iterations,
        m.frozen_prototype_steps,
        m.assignment_queue,
        round(m.assignment_queue_epochs * epoch),
    )


METHODS: dict[str, Callable[[Recipe], Method]] = {
    "simclr": _simclr,
    "moco": _moco,
    "byol": _byol,
    "simsiam": _simsiam,
    "barlow_twins": _barlow_twins,
    "vicreg": _vicreg,
    "swav": _swav,
}


def register_method(name: str, build: Callable[[Recipe], Method]) -> None:
    """Adds a method, which `--method=name` takes from then on: docs/extend.md.

    Args:
        name: Its name.
        build: Makes it from what a run has; see `Recipe`.

    Raises:
        ValueError: There is such a method.
    """
    if name in METHODS:
        raise ValueError(f"there is a method {name!r}")
    METHODS[name] = build
    ADDED_METHODS.append(name)
