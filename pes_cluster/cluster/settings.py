"""How long a run is, where it runs, and how often it is saved."""

import dataclasses
from typing import Literal

from pes_cluster.cluster.failure import Budgets


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The `run` section.

    Attributes:
        seed: Everything random in a run is keyed from it.
        outer_steps: Updates of theta (windows, for a learner).
        eval_every: Evaluate after every so many outer steps; 0: only after the last.
        eval_episodes: Full episodes of the unperturbed theta in one evaluation.
        tensorboard: Write scalars for TensorBoard as well; needs the extra
            ``[tensorboard]``.
    """

    seed: int = 0
    outer_steps: int = 1000
    eval_every: int = 0
    eval_episodes: int = 1
    tensorboard: bool = False

    def __post_init__(self) -> None:
        _at_least("outer_steps", self.outer_steps, 1)
        _at_least("eval_every", self.eval_every, 0)
        _at_least("eval_episodes", self.eval_episodes, 1)
        _at_least("seed", self.seed, 0)
        if self.seed >= 2**32:  # JAX takes 32 bits of it: two such would be one.
            raise ValueError(f"seed: {self.seed} must be below {2**32}")


@dataclasses.dataclass(frozen=True)
class PerShard:
    """What one shard asks of the cluster.

    Attributes:
        num_cpus: CPU cores, also the size of XLA's thread pool.
        num_gpus: GPUs; with 0 the shard computes on the CPU.
        labels: Node labels that a shard must be placed on.
        env: Environment variables of the shard's process.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    env: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _at_least("num_cpus", self.num_cpus, 0)
        _at_least("num_gpus", self.num_gpus, 0)


@dataclasses.dataclass(frozen=True)
class ClusterSettings:
    """The `cluster` section; but for `fuse`, it never changes a run's result.

    Attributes:
        pool: ``ray``: persistent actors, embedded on this machine unless a cluster is
            named by RAY_ADDRESS. ``local``: in this process, without Ray.
        shards: How many; by default one for each core (ray) or one (local).
        fuse: Outer steps in one compiled loop; local pool only. Whether steps are fused
            (not how many) can change the last place of a float.
        per_shard: Resources of one shard; ray only.
        autoscaling: The cluster adds nodes that are asked for: what it lacks now is no
            reason to refuse a run, which then waits for its first shards.
        step_deadline: Seconds after which a shard that does not answer counts as lost.
        on_loss: ``wait``: a step waits for lost shards to be rebuilt, and the result
            does not change. ``proceed``: it goes on with the particles that reported,
            and lost ones come back later; the result depends on when. Shaped scores
            need all particles, and always wait.
        snapshots: Who keeps the copies from which lost blocks are rebuilt: the driver,
            ``buddies`` on other nodes, or (``auto``) the driver where they are small.
        budgets: How many losses without a checkpoint between them end the run.
    """

    pool: Literal["ray", "local"] = "ray"
    shards: int | None = None
    fuse: int = 1
    per_shard: PerShard = dataclasses.field(default_factory=PerShard)
    autoscaling: bool = False
    step_deadline: float = 600.0
    on_loss: Literal["wait", "proceed"] = "wait"
    snapshots: Literal["auto", "driver", "buddies"] = "auto"
    budgets: Budgets = dataclasses.field(default_factory=Budgets)

    def __post_init__(self) -> None:
        if self.shards is not None:
            _at_least("shards", self.shards, 1)
        _at_least("fuse", self.fuse, 1)
        if self.fuse > 1 and self.pool != "local":
            raise ValueError(
                "fuse: outer steps can be fused in the local pool only; set "
                "cluster.pool=local or cluster.fuse=1"
            )
        if not self.step_deadline > 0:
            raise ValueError(f"step_deadline: {self.step_deadline} must be positive")


@dataclasses.dataclass(frozen=True)
class CheckpointSettings:
    """The `checkpoint` section.

    Attributes:
        every: Outer steps between checkpoints; one is also written at the end.
        every_minutes: One is also due so long after the last; null: by steps alone.
        keep: How many of the newest are kept.
        path: A folder, or a URL that fsspec knows (s3://, gs://); by default
            `checkpoints` in the run's directory. It belongs to one run.
    """

    every: int = 100
    every_minutes: float | None = 10.0
    keep: int = 2
    path: str | None = None

    def __post_init__(self) -> None:
        _at_least("every", self.every, 1)
        _at_least("keep", self.keep, 1)
        if self.every_minutes is not None and not self.every_minutes > 0:
            raise ValueError(f"every_minutes: {self.every_minutes} must be positive")
        if self.path == "":
            raise ValueError("path: empty; name a folder or a URL, or leave it out")


def _at_least(field: str, value: float, least: float) -> None:
    if value < least:
        raise ValueError(f"{field}: {value} must be at least {least}")
