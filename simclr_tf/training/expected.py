"""What people say of a checkpoint, held against what it is."""

from collections.abc import Iterator, Mapping
from typing import Any

from data_prep.errors import UserError
from simclr_tf.checkpoints.identify import Network
from simclr_tf.checkpoints.load import Checkpoint
from simclr_tf.models.architecture import ResNetArchitecture
from simclr_tf.models.architectures import RESNET, spelled


def network_facts(network: Network) -> dict[str, Any]:
    """What a network is, by the names of the flags that say so.

    Returns:
        `backbone` and what goes with it (`resnet_depth`, `width_multiplier`, `sk_ratio`,
        `se_ratio`, `stem` of a ResNet); what the projection head is, if there is one; and
        `num_of_classes`, 0 without a supervised head.
    """
    a, p = network.architecture, network.projection
    facts: dict[str, Any]
    if isinstance(a, ResNetArchitecture):
        facts = {
            "backbone": RESNET,
            "resnet_depth": a.depth,
            "width_multiplier": a.width_multiplier,
            "sk_ratio": a.sk_ratio,
            "se_ratio": a.se_ratio,
            "stem": "cifar" if a.cifar_stem else "imagenet",
        }
    else:
        facts = a.facts()
    facts["num_of_classes"] = network.num_classes or 0
    if p.depth:
        facts |= {
            "proj_head_mode": p.mode,
            "proj_out_dim": p.out_dim,
            "num_proj_layers": p.num_layers,
        }
    return facts


def refuse_contradictions(checkpoint: Checkpoint, given: Mapping[str, Any]) -> None:
    """Refuses flags that contradict the checkpoint.

    Args:
        checkpoint: The opened checkpoint.
        given: Values by flag.

    Raises:
        UserError: Says both what was given and what the checkpoint is.
    """
    wrong = list(_contradictions(network_facts(checkpoint.network), given))
    if wrong:
        raise UserError(
            f"--checkpoint={checkpoint.stored.path}: is {checkpoint.network.name}, but "
            f"{'; '.join(wrong)}; leave the flag out or correct it"
        )


def _contradictions(facts: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[str]:
    for name, asked in given.items():
        value = spelled(asked) if name == "backbone" else asked
        # One ratio of selective kernels is like another where blocks have none (ResNet-18, 34).
        alike = name == "sk_ratio" and bool(value) == bool(facts.get(name)) and (
            facts.get("resnet_depth") in (18, 34)
        )  # fmt: skip
        if name in facts and value != facts[name] and not alike:
            yield f"you asked for --{name}={value} and it has {facts[name]}"
