"""What the recipes of the family share; a variant adds what tells it apart."""

import dataclasses
from typing import Any, Literal, Self

from pes_cluster.core.blocks import BlockProgram, block_size
from pes_cluster.core.divergence import Divergence
from pes_cluster.core.keys import DataSharing
from pes_cluster.core.task import Task
from pes_cluster.core.timeline import NoisePeriod
from pes_cluster.estimators.evolution.fields import (
    ExponentialDecay,
    check_evolution,
    sigma_function,
)
from pes_cluster.estimators.evolution.generalized_es import GeneralizedES
from pes_cluster.estimators.evolution.shaping import Shaping


def member(recipe: Any, noise_period: NoisePeriod, **traits: Any) -> GeneralizedES:
    """Returns the member of the family with these traits and the recipe's fields."""
    known = {field.name for field in dataclasses.fields(GeneralizedES)}
    names = [field.name for field in dataclasses.fields(recipe) if field.name in known]
    fields: dict[str, Any] = {name: getattr(recipe, name) for name in names}
    fields.setdefault("truncation_length", None)  # Full ES: one whole episode.
    fields |= {"sigma": sigma_function(recipe.sigma), "noise_period": noise_period}
    return GeneralizedES(**fields | traits)


@dataclasses.dataclass(frozen=True)
class EvolutionStrategy:
    """What every variant has, whatever it unrolls.

    See `GeneralizedES` for what the fields mean.
    """

    num_particles: int
    _: dataclasses.KW_ONLY
    data: DataSharing = "pair"
    objective: Literal["sum", "final"] = "sum"
    pairs_per_block: int | None = None
    divergence: Divergence = "cap"
    loss_cap: float | None = None
    rank: int | None = None
    grown_from: int | None = None

    def __post_init__(self) -> None:
        check_evolution(self)

    def generalized(self) -> GeneralizedES:
        """Returns the member of the family that this variant is."""
        raise NotImplementedError(f"{type(self).__name__}.generalized")

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the block program of a run; see `core.estimator.Estimator`."""
        return self.generalized().build(task, seed)

    def scaled(self, num_particles: int) -> Self:
        """Returns the recipe of the same run with another number of particles.

        Its blocks keep their size, so that each pair stays where it is.

        Raises:
            ValueError: The number is not allowed.
        """
        began_with = self.grown_from or self.num_particles
        return dataclasses.replace(
            self,
            num_particles=num_particles,
            grown_from=began_with,
            pairs_per_block=block_size(began_with // 2, self.pairs_per_block),
        )


@dataclasses.dataclass(frozen=True)
class OnlineES(EvolutionStrategy):
    """What the variants add that unroll an episode window by window."""

    truncation_length: int
    sigma: float | ExponentialDecay
    start: Literal["lockstep", "staggered"] = dataclasses.field(
        default="lockstep", kw_only=True
    )
    shaping: Shaping | None = dataclasses.field(default=None, kw_only=True)
