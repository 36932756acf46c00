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
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from pes_cluster.core import trees
from pes_cluster.core.blocks import BlockProgram, Report, ScoredSteps, pairs_per_block
from pes_cluster.core.credit import CreditRule, Draw, renamed, telescope
from pes_cluster.core.host_unroll import host_unroll
from pes_cluster.core.keys import DataKeys, DataSharing
from pes_cluster.core.pairs import Credit, Pairs, Trajectories
from pes_cluster.core.perturbations import Perturbations, Sigma
from pes_cluster.core.task import (
    Task,
    TaskError,
    Theta,
    check_task,
    state_shapes,
    traits,
)
from pes_cluster.core.timeline import NoisePeriod, Window
from pes_cluster.core.unroll import Identity, ThetaSource, Unrolled, constant, unroll
from pes_cluster.estimators.evolution.shaping import Shaping

Carry = Literal["own", "mean"]


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
    shaping: Shaping | None = None

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the block program of a run; see `core.estimator.Estimator`."""
        check_task(task)
        window = self._window(task)
        return _Windows(self, task, window, seed).program()

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
        )


class _Windows:
    """One window of one block, in the steps: perturb, unroll, credit, report."""

    def __init__(
        self, es: GeneralizedES, task: Task[Any], window: Window, seed: int
    ) -> None:
        self.es, self.task, self.window = es, task, window
        pairs = es.num_particles // 2
        self.num_pairs = pairs
        self.block_size = min(es.pairs_per_block or pairs_per_block(pairs), pairs)
        self.data = DataKeys(seed, es.data)
        perturbations = Perturbations(seed, es.sigma)
        apart = window.terminates and es.carry == "own"
        self.rule = CreditRule(window, perturbations, es.accumulate, apart)
        self.unroll: Callable[..., tuple[Trajectories, Unrolled]] = (
            host_unroll if traits(task).host else unroll
        )
        self.shapes = state_shapes(task)
        if es.shaping is not None and not window.one_segment:
            raise ValueError(
                "shaping: scores can be shaped only where every window lies within one "
                "episode and one perturbation (truncation_length divides "
                "episode_length, or full episodes)"
            )

    def program(self) -> BlockProgram:
        scored = None
        if self.es.shaping is not None:
            scored = ScoredSteps(self.score, self.weighted_sum, self.es.shaping.weights)
        return BlockProgram(
            num_blocks=-(-self.num_pairs // self.block_size),
            init=self.init,
            advance=self.advance,
            scored=scored,
            jittable=not traits(self.task).host,
        )

    def init(self, theta: Theta, block: Any) -> Pairs:
        size, members = self.block_size, 1 if self.es.carry == "mean" else 2
        rows = 1 if self._one_mean else size
        pair_id = jnp.asarray(block, jnp.int32) * size + jnp.arange(
            size, dtype=jnp.int32
        )
        clock = jnp.zeros((rows, members), jnp.int32)
        kept = self.rule.members
        accumulator = (
            trees.zeros(jax.tree.map(jnp.asarray, theta), size, kept)
            if self.es.accumulate
            else None
        )
        return Pairs(
            block=jnp.asarray(block, jnp.int32),
            pair_id=pair_id,
            active=pair_id < self.num_pairs,
            trajectories=Trajectories(
                state=trees.zeros(self.shapes, rows, members),
                inner_step=clock,
                episode=clock,
                objective=jnp.zeros((rows, members), jnp.float32),
            ),
            credit=Credit(jnp.zeros((size, kept, 2), jnp.int32), accumulator),
        )

    @property
    def _one_mean(self) -> bool:
        """Whether one mean state stands for the block: its pairs see the same data."""
        shared = self.es.data != "pair" and self.es.start == "lockstep"
        return self.es.carry == "mean" and shared

    def advance(
        self, theta: Theta, pairs: Pairs, outer_step: Any
    ) -> tuple[Pairs, Report]:
        who = Identity(pairs.block, pairs.pair_id, jnp.asarray(outer_step, jnp.int32))
        both = self._members(pairs.trajectories)
        clock = both.inner_step[:, : self.rule.members]
        if self.window.single_episode:
            clock = jnp.zeros_like(clock)
        first = self.rule.start(who, theta, pairs.credit, clock)
        source = self._source(theta, who, clock, first)
        after, seen = self._unroll(source, both, who)
        if self.es.carry == "mean":
            after = self._carry_mean(theta, pairs.trajectories, who)
        losses = jnp.where(pairs.active[:, None, None], seen.losses, 0)
        seen = Unrolled(losses, jnp.asarray(seen.ended))
        gradient, credit = self.rule.assign(
            who, theta, pairs.credit, clock, seen, first
        )
        pairs = dataclasses.replace(pairs, trajectories=after, credit=credit)
        return pairs, self._report(pairs, seen, gradient)

    def score(
        self, theta: Theta, pairs: Pairs, outer_step: Any
    ) -> tuple[Pairs, jax.Array, Report]:
        pairs, report = self.advance(theta, pairs, outer_step)
        scores = report.sums.pop("scores")
        return pairs, scores, dataclasses.replace(report, gradient=None)

    def weighted_sum(self, theta: Theta, pairs: Pairs, weights: jax.Array) -> Theta:
        """``sum_p (w+ - w-) direction_p``, the gradient of shaped scores."""
        direction = self.rule.directions(pairs.pair_id, theta, pairs.credit)
        signed = jnp.where(pairs.active[:, None], weights, 0) * jnp.array([1.0, -1.0])
        if not self.rule.apart:
            signed = jnp.sum(signed, axis=1, keepdims=True)
        return trees.weighted_sum(signed, direction)

    def _unroll(
        self, source: ThetaSource, start: Trajectories, who: Identity
    ) -> tuple[Trajectories, Unrolled]:
        """K steps, with the losses of the objective asked for."""
        after, seen = self.unroll(self.task, self.window, source, start, who, self.data)
        if self.window.objective == "sum":
            return after, seen
        seen, previous = telescope(seen, start.objective)
        return dataclasses.replace(after, objective=previous), seen

    def _members(self, carried: Trajectories) -> Trajectories:
        """Both members' trajectories at the start: own, or forked from the mean."""
        shape = (self.block_size, 2)
        return jax.tree.map(
            lambda x: jnp.broadcast_to(x, (*shape, *x.shape[2:])), carried
        )

    def _carry_mean(
        self, theta: Theta, carried: Trajectories, who: Identity
    ) -> Trajectories:
        """Advances the mean state by the unperturbed theta (Algorithm 1)."""
        if self._one_mean:
            who = who._replace(pair_id=who.pair_id[:1])
        source = constant(jax.tree.map(lambda x: jnp.asarray(x)[None, None], theta))
        return self._unroll(source, carried, who)[0]

    def _source(
        self, theta: Theta, who: Identity, clock: jax.Array, first: Draw
    ) -> ThetaSource:
        """Theta of both members at every step, redrawn inside where that can be."""
        perturbations, kept = self.rule.perturbations, self.rule.members
        if not self.window.changes_inside:
            return constant(perturbations.thetas(theta, *first))

        def at(carry: Any, inner_step: jax.Array, position: jax.Array) -> Any:
            draw, ordinal = carry
            changed = self.window.changes(jnp.asarray(inner_step)[:, :kept], position)
            ordinal = ordinal + changed
            redrawn = changed & (position > 0)
            name = renamed(draw.name, redrawn, who.outer_step, ordinal)
            z = jax.lax.cond(
                jnp.any(redrawn),
                lambda: perturbations.sample(who.pair_id, name, theta),
                lambda: draw.z,
            )
            return (Draw(z, name), ordinal), perturbations.thetas(theta, z, name)

        return ThetaSource((first, jnp.full(clock.shape, -1, jnp.int32)), at)

    def _report(self, pairs: Pairs, unrolled: Unrolled, gradient: Theta) -> Report:
        active = jnp.where(pairs.active, 1, 0)
        count = jnp.sum(active)
        scores = jnp.sum(unrolled.losses, axis=-1)
        unrolls = 2 * count
        if self.es.carry == "mean":
            unrolls = unrolls + (1 if self._one_mean else count)
        sums = {
            "loss": jnp.sum(scores).astype(jnp.float32),
            "accumulator_norm": self._accumulator_norm(pairs).astype(jnp.float32),
        }
        if self.es.shaping is not None:
            sums["scores"] = scores
        return Report(
            gradient=gradient,
            weight=(2 * count).astype(jnp.float32),
            sums=sums,
            counts={
                "inner_steps": (unrolls * self.window.length).astype(jnp.int32),
                "nonfinite": jnp.sum(~jnp.isfinite(scores)).astype(jnp.int32),
            },
        )

    def _accumulator_norm(self, pairs: Pairs) -> jax.Array:
        """Sum over active particles of |xi| / sigma^2; 0 without an accumulator."""
        if pairs.credit.accumulator is None:
            return jnp.zeros(())
        lengths = jnp.mean(trees.norms(pairs.credit.accumulator, 2), axis=1)
        return 2 * jnp.sum(jnp.where(pairs.active, lengths, 0))
