"""The one evolution strategy behind all named variants.

A window of K steps, a noise period, an accumulator or none, and a state that is carried
on by each particle (`own`) or by the unperturbed theta (`mean`). With eps' = the
accumulated perturbation xi where `accumulate`, else the perturbation in force::

    g = 1/(N sigma^2) sum_i eps'_i L_i          over the N = 2 x pairs particles

| variant      | noise_period | accumulate | carry | window          |
|--------------|--------------|------------|-------|-----------------|
| PES          | window       | yes        | own   | K               |
| truncated ES | window       | no         | mean  | K               |
| full ES      | episode      | no         | own   | T, one episode  |
| NRES         | episode      | no         | own   | K               |
| GPES         | c steps      | yes        | own   | K               |
"""

import dataclasses
from typing import Any, Literal

import jax

from pes_cluster.core.blocks import BlockProgram, block_size
from pes_cluster.core.credit import CreditRule
from pes_cluster.core.divergence import Divergence, DivergenceRule
from pes_cluster.core.keys import DataKeys, DataSharing
from pes_cluster.core.low_rank import LowRankPerturbations, is_matrix
from pes_cluster.core.perturbations import Perturbations, Sigma
from pes_cluster.core.task import (
    Task,
    TaskError,
    check_task,
    state_shapes,
    theta_shapes,
    traits,
)
from pes_cluster.core.timeline import NoisePeriod, Window
from pes_cluster.estimators.evolution.shaping import Shape
from pes_cluster.estimators.evolution.windows import Carry, Windows


@dataclasses.dataclass(frozen=True)
class GeneralizedES:
    """The fields that tell the variants apart, and those that they share.

    Attributes:
        num_particles: N, both signs counted; even.
        truncation_length: K; None means one whole episode (full ES).
        sigma: Noise scale as a function of the outer step.
        noise_period: How long a perturbation lasts: see `core.timeline.Window`.
        accumulate: Credit with the sum of an episode's perturbations.
        carry: Who carries the state over the window's border.
        data: Who shares initial states and minibatches.
        start: Whether the pairs' phases are equal or spread.
        objective: Sum of the step losses, or the final loss by telescoping.
        pairs_per_block: Size of a block; None chooses by N alone.
        shaping: What the driver makes of the scores; the identity is unbiased.
        divergence: What becomes of a pair whose losses are not finite; see
            `core.divergence`.
        loss_cap: The most that the loss of a step may count as, under `cap`; None: as
            much as the worst of the block's other members, for diverged ones alone.
        rank: Of the perturbations of theta's matrices; None: full. See `core.low_rank`.
        grown_from: N that the run began with, where it has been changed since: it keeps
            the size of a block. Pairs that joined since begin with an episode that is
            cut short, so that their phases are spread.
    """

    num_particles: int
    truncation_length: int | None
    sigma: Sigma
    noise_period: NoisePeriod
    accumulate: bool
    carry: Carry = "own"
    data: DataSharing = "pair"
    start: Literal["lockstep", "staggered"] = "lockstep"
    objective: Literal["sum", "final"] = "sum"
    pairs_per_block: int | None = None
    shaping: Shape | None = None
    divergence: Divergence = "cap"
    loss_cap: float | None = None
    rank: int | None = None
    grown_from: int | None = None

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the block program of a run; see `core.estimator.Estimator`."""
        return self.windows(task, seed).program()

    def windows(self, task: Task[Any], seed: int) -> Windows:
        """Returns the windows of a run; raises as `build`."""
        check_task(task)
        window = self._window(task)
        if self.shaping is not None and not window.one_segment:
            raise ValueError(
                "shaping: scores can be shaped only where every window lies within one "
                "episode and one perturbation (truncation_length divides "
                "episode_length, or full episodes)"
            )
        began_with = (self.grown_from or self.num_particles) // 2
        perturbations = self._perturbations(task, window, seed)
        apart = window.terminates and self.carry == "own"
        return Windows(
            task=task,
            window=window,
            rule=CreditRule(window, perturbations, self.accumulate, apart),
            divergence=DivergenceRule(
                self.divergence, self.loss_cap, endless=task.episode_length is None
            ),
            data=DataKeys(seed, self.data),
            carry=self.carry,
            one_mean=self._one_mean,
            num_pairs=self.num_particles // 2,
            began_with=began_with,
            block_size=block_size(began_with, self.pairs_per_block),
            shapes=state_shapes(task),
            shaping=self.shaping,
        )

    def _perturbations(
        self, task: Task[Any], window: Window, seed: int
    ) -> Perturbations:
        if self.rank is None:
            return Perturbations(seed, self.sigma)
        if not any(map(is_matrix, jax.tree.leaves(theta_shapes(task)))):
            raise ValueError(
                f"rank: {self.rank}, but theta of task {type(task).__name__} has no "
                "matrix; leave it out"
            )
        return LowRankPerturbations(seed, self.sigma, self.rank, window.draws)

    def _window(self, task: Task[Any]) -> Window:
        length = self.truncation_length or task.episode_length
        if length is None:
            raise TaskError(
                f"task {type(task).__name__} never ends (episode_length: None), so "
                "full episodes cannot be unrolled; choose an estimator with a "
                "truncation_length"
            )
        if task.episode_length is not None and length > task.episode_length:
            raise ValueError(
                f"truncation_length: {length} is longer than the task's episode_length "
                f"{task.episode_length}"
            )
        return Window(
            length=length,
            episode_length=task.episode_length,
            noise_period=self.noise_period,
            terminates=traits(task).terminates,
            staggered=self.start == "staggered",
            single_episode=self.truncation_length is None,
            objective=self.objective,
            joined=self._joiners_are_spread,
        )

    @property
    def _joiners_are_spread(self) -> bool:
        """Whether pairs that join need another first episode than the others had.

        In a staggered run all first episodes are cut short; whole episodes have no
        phase; and pairs that share a mean state have its phase.
        """
        lockstep = self.start == "lockstep" and self.truncation_length is not None
        return self.grown_from is not None and lockstep and not self._one_mean

    @property
    def _one_mean(self) -> bool:
        """Whether one mean state stands for a block: its pairs see the same data."""
        shared = self.data != "pair" and self.start == "lockstep"
        return self.carry == "mean" and shared
