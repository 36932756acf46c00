"""PES with the window's own gradient taken analytically.

Vicol et al. 2021, the appendix' PES+Analytic. A mean state is carried on by the
unperturbed theta beside each pair. The gradient p of the window's loss from there, the
incoming state constant, replaces what PES would estimate of it; what the earlier
perturbations did is estimated, less what p explains::

    p = d/dtheta sum_{K steps from the mean state} L_t
    g = p + 1/(N sigma^2) sum_i xi_i (L_i - eps_i . p),     then xi_i += eps_i

so xi is the sum before this window's perturbation. With it the direct gradient would
count twice. Where an episode ends inside the window, xi is credited with the steps up
to its end alone, and p in the bracket is theirs.

Letters: as in PES. Where a block's pairs see the same data and keep step (lockstep, and
`data: block` or `run`) one mean state stands for the block.

Bias: none for a quadratic loss, with far less variance than PES. Else p, which is
unsmoothed and taken at the mean state, is neither the smoothed loss's gradient nor the
loss's. Cost per step: N K inner steps and, for each mean state, K forward and backward
steps; memory N (|s| + |theta| / 2), and K |s| a mean state within a window. The task
must be differentiable, and its episodes end by the clock.
"""

import dataclasses
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from pes_cluster.core import trees
from pes_cluster.core.blocks import BlockProgram, Report
from pes_cluster.core.divergence import restart
from pes_cluster.core.pairs import Pairs, Trajectories
from pes_cluster.core.task import Task, TaskError, Theta, check_differentiable
from pes_cluster.core.unroll import Identity, constant, unroll
from pes_cluster.estimators.evolution.fields import ExponentialDecay
from pes_cluster.estimators.evolution.generalized_es import GeneralizedES
from pes_cluster.estimators.evolution.recipe import EvolutionStrategy, member
from pes_cluster.estimators.evolution.windows import Perturbed, Windows


@dataclasses.dataclass(frozen=True)
class PESAnalytic(EvolutionStrategy):
    """PES with the window's own gradient analytic. Fields: see `GeneralizedES`."""

    truncation_length: int
    sigma: float | ExponentialDecay
    start: Literal["lockstep", "staggered"] = dataclasses.field(
        default="lockstep", kw_only=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective == "final":
            raise ValueError(
                "objective: pes_analytic takes the sum of the losses alone"
            )

    def generalized(self) -> GeneralizedES:
        """Returns PES with the same fields."""
        return member(self, "window", accumulate=True)

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the block program of a run; see `core.estimator.Estimator`."""
        check_differentiable(task)
        windows = self.generalized().windows(task, seed)
        if windows.window.terminates:
            raise TaskError(
                f"task {type(task).__name__} ends its episodes by itself, so a mean "
                "state would not keep step with its pair; choose pes"
            )
        one_mean = self.data != "pair" and self._in_step(task)
        if one_mean and self.grown_from is not None:
            raise ValueError(
                f"data: {self.data} shares one mean state, which a joining pair cannot "
                "take up; its number of particles cannot change"
            )
        return _AnalyticWindows(windows, one_mean).program()

    def _in_step(self, task: Task[Any]) -> bool:
        """Whether all pairs of a block always are at the same inner step."""
        restarts = self.divergence != "cap" or task.episode_length is None
        return self.start == "lockstep" and not restarts


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AnalyticPairs(Pairs):
    """Pairs, and the mean states beside them.

    Attributes:
        mean: One for each pair, or one for the block; one member (M = 1).
    """

    mean: Trajectories


class _Direct(NamedTuple):
    """The gradients p of each pair, leaves [P, 1, ...]; 0 where they are not finite.

    Attributes:
        whole: Of all the window's losses.
        first: Of those of the episode that was under way at its start.
        finite: [P].
    """

    whole: Theta
    first: Theta
    finite: jax.Array

    @classmethod
    def of(cls, whole: Theta, first: Theta, finite: jax.Array, size: int) -> "_Direct":
        """For `size` pairs, of as many rows or of one."""

        def spread(leaf: jax.Array) -> jax.Array:
            return jnp.broadcast_to(leaf, (size, *leaf.shape[1:]))

        def kept(tree: Theta) -> Theta:
            nothing = jax.tree.map(jnp.zeros_like, tree)
            return jax.tree.map(spread, trees.select(finite, tree, nothing))

        return cls(kept(whole), kept(first), spread(finite)[:, 0])


@dataclasses.dataclass(frozen=True)
class _AnalyticWindows:
    windows: Windows
    one_mean: bool

    def program(self) -> BlockProgram:
        return self.windows.program()._replace(
            init=self.init, advance=self.advance, resized=self.resized
        )

    def init(self, theta: Theta, block: Any) -> AnalyticPairs:
        pairs = self.windows.init(theta, block)
        rows = 1 if self.one_mean else self.windows.block_size
        # One member of each; both are at their first step.
        mean = jax.tree.map(lambda x: x[:rows, :1], pairs.trajectories)
        fields = {f.name: getattr(pairs, f.name) for f in dataclasses.fields(pairs)}
        return AnalyticPairs(**fields, mean=mean)

    def resized(self, theta: Theta, pairs: AnalyticPairs) -> AnalyticPairs:
        resized = self.windows.resized(theta, pairs)
        new = resized.active & ~jnp.asarray(pairs.active)
        fresh = jax.tree.map(lambda x: x[:, :1], resized.trajectories)
        mean = trees.select(new, fresh, pairs.mean)
        return dataclasses.replace(resized, mean=mean)

    def advance(
        self, theta: Theta, pairs: AnalyticPairs, outer_step: Any
    ) -> tuple[AnalyticPairs, Report]:
        """One window at one theta."""
        windows = self.windows
        made = windows.perturbed(theta, pairs, outer_step)
        direct, mean = self._direct(theta, pairs.mean, made.who)
        made = _without(made, pairs.active & ~direct.finite)
        gradient = self._gradient(pairs, made, direct)
        _, credit = windows.rule.assign(
            made.who, theta, pairs.credit, made.clock, made.seen.unrolled, made.first
        )
        restarted = windows.divergence.restarted(made.seen.diverged)
        after = restart(made.after, restarted)
        if not self.one_mean:
            mean = restart(mean, restarted)
        pairs = dataclasses.replace(pairs, trajectories=after, credit=credit, mean=mean)
        report = windows.report(pairs, made.seen, restarted, gradient)
        return pairs, self._charged(report)

    def _charged(self, report: Report) -> Report:
        """The report with the steps of the mean states."""
        means = 1 if self.one_mean else report.counts["pairs"]
        steps = report.counts["inner_steps"] + means * self.windows.window.length
        return dataclasses.replace(
            report, counts=report.counts | {"inner_steps": steps}
        )

    def _direct(
        self, theta: Theta, mean: Trajectories, who: Identity
    ) -> tuple[_Direct, Trajectories]:
        """Each pair's p, and the mean states after the window."""
        rows = mean.inner_step.shape[0]
        who = who._replace(pair_id=who.pair_id[:rows])
        thetas = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (rows, 1, *x.shape)),
            jax.tree.map(jnp.asarray, theta),
        )

        windows = self.windows

        def window(thetas: Theta) -> tuple[jax.Array, Any]:
            source = constant(thetas)
            after, seen = unroll(
                windows.task, windows.window, source, mean, who, windows.data
            )
            return seen.losses, (after, seen.ended)

        losses, pull, (after, ended) = jax.vjp(window, thetas, has_aux=True)
        (whole,) = pull(jnp.ones_like(losses))
        first = whole
        if not windows.window.one_segment:
            (first,) = pull(_first_episode(ended).astype(losses.dtype))
        finite = jnp.isfinite(trees.norms(whole, 2) + trees.norms(first, 2))
        return _Direct.of(whole, first, finite, windows.block_size), after

    def _gradient(self, pairs: Pairs, made: Perturbed, direct: _Direct) -> Theta:
        """Summed over particles: both signs of a pair have the same p."""
        before = pairs.credit.accumulator
        nothing = jax.tree.map(jnp.zeros_like, before)
        before = trees.select(made.clock == 0, nothing, before)
        seen = made.seen.unrolled
        losses = jnp.sum(jnp.where(_first_episode(seen.ended), seen.losses, 0), axis=-1)
        noise = self.windows.rule.perturbations
        sigma = noise.sigma(made.first.name[..., 0])
        explained = 2 * sigma * _inner(noise.dense(made.first.z), direct.first)
        rest = losses[:, :1] - losses[:, 1:] - explained
        counted = made.seen.counted[:, None]
        known = trees.weighted_sum(jnp.where(counted, 2.0, 0.0), direct.whole)
        estimated = noise.total(jnp.where(counted, rest, 0), before)
        return trees.narrowed(jax.tree.map(jnp.add, known, estimated), direct.whole)


def _first_episode(ended: jax.Array) -> jax.Array:
    """Which steps belong to the episode of the window's first step, [P, M, K]."""
    before = jnp.cumsum(ended, axis=-1) - ended
    return before == 0


def _without(made: Perturbed, broken: jax.Array) -> Perturbed:
    """Leaves out the pairs beside which the mean state diverged."""
    seen, counted = made.seen, made.seen.counted & ~broken
    losses = jnp.where(counted[:, None, None], seen.unrolled.losses, 0)
    seen = seen._replace(
        unrolled=dataclasses.replace(seen.unrolled, losses=losses),
        diverged=seen.diverged | broken,
        counted=counted,
    )
    return made._replace(seen=seen)


def _inner(one: Theta, other: Theta) -> jax.Array:
    """The inner products over all leaves, [P, 1]."""
    products = [
        jnp.sum(a * b, axis=tuple(range(2, a.ndim)))
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    ]
    return sum(products[1:], products[0])
