"""Settings of the methods of pretraining, with the papers' values as defaults."""

from dataclasses import dataclass
from typing import Literal

from simclr_tf.config.settings import setting

ADDED_METHODS: list[str] = []  # by `methods.registry.register_method`


@dataclass(frozen=True)
class MethodSettings:
    """Self-supervised method."""

    method: Literal["simclr", "moco", "byol", "simsiam", "barlow_twins", "vicreg", "swav"] = (
        setting(
            "simclr",
            "How pretraining learns. Temperature and projection head are those of the network's "
            "flags; the papers have --temperature=0.2 for MoCo v2, 0.1 for SwAV.",
            added=ADDED_METHODS,
        )
    )
    decoupled: bool = setting(
        False,
        "simclr: leave the positive out of the loss's denominator, as in decoupled contrastive "
        "learning (Yeh et al. 2022, equation 6); meant for small batches.",
    )
    queue_size: int = setting(
        65536,
        "moco: negatives that the queue holds (He et al. 2020, section 4); take fewer than there "
        "are training images.",
        low=1,
    )
    target_momentum: float = setting(
        0.0,
        "moco, byol: weight of the old values in the momentum network; 0 = as in the papers, 0.999 "
        "(He et al. 2020, section 4) and 0.996 (Grill et al. 2020, section 3.2).",
        low=0,
        high=1,
    )
    momentum_schedule: Literal["auto", "constant", "cosine"] = setting(
        "auto",
        "moco, byol: keep that momentum, or let it rise to 1 along a cosine; auto as in the "
        "papers: constant for moco, cosine for byol.",
    )
    predictor_dim: int = setting(
        0,
        "byol, simsiam: width of the predictor; 0 = in the papers' proportion to the projection, "
        "16 times (4096 on 256) and a quarter (512 on 2048).",
        low=0,
    )
    predictor_rate: float = setting(
        1.0,
        "byol, simsiam: factor on the learning rate of the predictor. 10 keeps it close to the "
        "best one, and features from shrinking to a few numbers (Grill et al. 2020, "
        "appendix on a near-optimal predictor).",
        low=0,
    )
    barlow_lambda: float = setting(
        0.005,
        "barlow_twins: weight of the off-diagonal terms (Zbontar et al. 2021, section 2.2).",
        low=0,
    )
    vicreg_invariance: float = setting(
        25.0, "vicreg: weight of the invariance term (Bardes et al. 2022, section 4.2).", low=0
    )
    vicreg_variance: float = setting(
        25.0, "vicreg: weight of the variance term (the same section).", low=0
    )
    vicreg_covariance: float = setting(
        1.0, "vicreg: weight of the covariance term (the same section).", low=0
    )
    prototypes: int = setting(
        3000, "swav: number of prototypes (Caron et al. 2020, section 4).", low=2
    )
    assignment_epsilon: float = setting(
        0.05, "swav: softness of the assignments (appendix A).", low=1e-3
    )
    sinkhorn_iterations: int = setting(3, "swav: iterations of Sinkhorn-Knopp (appendix A).", low=1)
    small_crops: int = setting(
        6, "swav: small crops beside the two views; 0 = none (section 3.2, appendix A).", low=0
    )
    small_crop_size: int = setting(
        0, "swav: their side in pixels; 0 = 3/7 of --image_size (96 of 224).", low=0
    )
    small_crop_area: float = setting(
        0.14,
        "swav: largest share of the image's area that a small crop has, and the smallest that the "
        "two views have (appendix A). Small crops have a tenth of it at least.",
        low=0.1,
        high=1,
    )
    frozen_prototype_steps: int = setting(
        313, "swav: steps at the beginning in which the prototypes stay (the authors' code).", low=0
    )
    assignment_queue: int = setting(
        0,
        "swav: projections of earlier batches that are balanced along when batches are small; 0 = "
        "none. The paper has 3840 for batches of 256 (section 4).",
        low=0,
    )
    assignment_queue_epochs: float = setting(
        15.0, "swav: epochs before the queue counts (the authors' code).", low=0
    )
