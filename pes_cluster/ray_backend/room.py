"""What a cluster's nodes can hold of what a run asks for. Pure."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from pes_cluster.cluster.settings import ClusterSettings, PerShard
from pes_cluster.ray_backend.environment import DRIVER


@dataclasses.dataclass(frozen=True)
class Offer:
    """A node that lives, by what it offers.

    Attributes:
        name: For people.
        resources: In all, whoever uses them now.
        labels: Its Ray labels.
        head: Whether it leads the cluster.
    """

    name: str
    resources: Mapping[str, float]
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    head: bool = False


def slots(
    resources: Mapping[str, float], labels: Mapping[str, str], per_shard: PerShard
) -> int:
    """How many shards a node could hold if nothing else ran there."""
    if any(labels.get(name) != value for name, value in per_shard.labels.items()):
        return 0
    fits = [
        math.floor(resources.get(name, 0.0) / amount + 1e-9)
        for name, amount in _each(per_shard).items()
    ]
    # Shards that ask for nothing: one on every node.
    return min(fits, default=1)


def total(offers: Sequence[Offer]) -> dict[str, float]:
    """The resources of all nodes together."""
    names = {name for offer in offers for name in offer.resources}
    return {n: sum(offer.resources.get(n, 0.0) for offer in offers) for n in names}


def lacking(cluster: ClusterSettings, offers: Sequence[Offer]) -> str | None:
    """What a run asks for and the nodes have not, in one line.

    None also where nodes are added on demand: it is what they have to be asked for.
    """
    if cluster.autoscaling:
        return None
    per_shard, there = cluster.per_shard, total(offers)
    # A local pool computes in its driver, which takes the room of one shard.
    shards = 1 if cluster.pool == "local" else cluster.shards or 1
    for name, each in _each(per_shard).items():
        if shards * each > there.get(name, 0.0) + 1e-9:
            return (
                f"shards: {shards} with {each:g} {name} each need {shards * each:g} "
                f"{name}, the cluster has {there.get(name, 0.0):g}; lower "
                f"cluster.shards or cluster.per_shard.num_{name.lower()}s, or set "
                "cluster.autoscaling=true where nodes are added on demand"
            )
    held = sum(slots(one.resources, one.labels, per_shard) for one in offers)
    if held < shards and _each(per_shard):
        return (
            f"per_shard: a shard has to fit on a node; {shards} with "
            f"{_described(per_shard)} do not fit on nodes with {_nodes(offers)}"
        )
    return None


def placed(offers: Sequence[Offer]) -> str | None:
    """Where drivers go, in one line, if no node is meant for them."""
    if len(offers) < 2 or total(offers).get(DRIVER):
        return None
    head = "".join(f", {offer.name}" for offer in offers if offer.head)
    return (
        f"no node has the resource {DRIVER!r}: drivers run on the head{head}, and end "
        f"with it; start other nodes with --resources='{{\"{DRIVER}\": 64}}'"
    )


def _each(per_shard: PerShard) -> dict[str, float]:
    each = {"CPU": per_shard.num_cpus, "GPU": per_shard.num_gpus}
    return {name: amount for name, amount in each.items() if amount > 0}


def _described(per_shard: PerShard) -> str:
    asked = ", ".join(f"{a:g} {name}" for name, a in _each(per_shard).items())
    labels = ", ".join(f"{n}={value}" for n, value in per_shard.labels.items())
    return f"{asked} each and labels {labels}" if labels else f"{asked} each"


def _nodes(offers: Sequence[Offer]) -> str:
    """What nodes offer: ``4 CPU, 1 GPU (w1); 0 CPU (head)``."""
    return "; ".join(
        ", ".join(f"{offer.resources.get(name, 0.0):g} {name}" for name in _KINDS)
        + f" ({offer.name})"
        for offer in offers[:8]
    )


_KINDS = ("CPU", "GPU")
