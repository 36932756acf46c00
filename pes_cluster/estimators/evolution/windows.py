"""One window of one block of pairs: perturb, unroll, judge, credit, report."""

import dataclasses
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from pes_cluster.core import trees
from pes_cluster.core.blocks import BlockProgram, Report, ScoredSteps
from pes_cluster.core.credit import CreditRule, Draw, renamed, telescope
from pes_cluster.core.divergence import DivergenceRule, restart
from pes_cluster.core.host_unroll import host_unroll
from pes_cluster.core.keys import DataKeys
from pes_cluster.core.pairs import Credit, Pairs, Trajectories
from pes_cluster.core.task import Task, Theta, traits
from pes_cluster.core.timeline import Window
from pes_cluster.core.unroll import Identity, ThetaSource, Unrolled, constant, unroll
from pes_cluster.estimators.evolution.shaping import Shape

Carry = Literal["own", "mean"]
Block = TypeVar("Block", bound=Pairs)


class Seen(NamedTuple):
    """A window's losses as they count, and whom the policy judged; see `Judged`."""

    unrolled: Unrolled
    diverged: jax.Array
    counted: jax.Array
    nonfinite: jax.Array


class Perturbed(NamedTuple):
    """A window of perturbed pairs, before its credit.

    Attributes:
        who: Of the pairs.
        clock: At the window's start, [P, M].
        first: The perturbation of the window's first step.
        after: The trajectories after it.
        seen: What they lost.
    """

    who: Identity
    clock: jax.Array
    first: Draw
    after: Trajectories
    seen: Seen


@dataclasses.dataclass(frozen=True)
class Windows:
    """The windows of a run's blocks; static.

    Attributes:
        task: The inner problem.
        window: The static shape of a window.
        rule: How credit is assigned.
        divergence: What becomes of a pair whose losses are not finite.
        data: Who shares initial states and minibatches.
        carry: Who carries the state over the window's border.
        one_mean: One mean state stands for the block: its pairs see the same data.
        num_pairs: Of the run.
        began_with: Pairs that the run began with; those beyond joined it under way.
        block_size: Pairs of a block.
        shapes: Of one inner state.
        shaping: What the driver makes of the scores.
    """

    task: Task[Any]
    window: Window
    rule: CreditRule
    divergence: DivergenceRule
    data: DataKeys
    carry: Carry
    one_mean: bool
    num_pairs: int
    began_with: int
    block_size: int
    shapes: Any
    shaping: Shape | None

    def program(self) -> BlockProgram:
        """Returns the run's pure functions."""
        scored = None
        if self.shaping is not None:
            scored = ScoredSteps(self.score, self.weighted_sum, self.shaping.weights)
        return BlockProgram(
            num_blocks=-(-self.num_pairs // self.block_size),
            init=self.init,
            advance=self.advance,
            scored=scored,
            jittable=not traits(self.task).host,
            resized=self.resized,
        )

    def init(self, theta: Theta, block: Any) -> Pairs:
        """A block before its first window."""
        first = jnp.asarray(block, jnp.int32) * self.block_size
        pair_id = first + jnp.arange(self.block_size, dtype=jnp.int32)
        return self._fresh(theta, block, pair_id, pair_id >= self.began_with)

    def resized(self, theta: Theta, pairs: Block) -> Block:
        """A block of the run as it was with another number of pairs.

        Pairs that are new join afresh, removed ones become padding, the others keep
        every bit.
        """
        active = pairs.pair_id < self.num_pairs
        new = active & ~jnp.asarray(pairs.active)
        fresh = self._fresh(theta, pairs.block, pairs.pair_id, new)
        rows = new[:1] & False if self.one_mean else new
        return dataclasses.replace(
            pairs,
            active=active,
            trajectories=trees.select(rows, fresh.trajectories, pairs.trajectories),
            credit=trees.select(new, fresh.credit, pairs.credit),
        )

    def _fresh(
        self, theta: Theta, block: Any, pair_id: jax.Array, joins: jax.Array
    ) -> Pairs:
        """Pairs before their first window; those that join a run under way say so."""
        size, kept = self.block_size, self.rule.members
        members = 1 if self.carry == "mean" else 2
        rows = 1 if self.one_mean else size
        clock = jnp.zeros((rows, members), jnp.int32)
        episode = clock
        if self.window.joined:
            episode = clock - joins[:, None]
        accumulator = None
        if self.rule.accumulate:
            accumulator = self.rule.perturbations.nothing(theta, size, kept)
        return Pairs(
            block=jnp.asarray(block, jnp.int32),
            pair_id=pair_id,
            active=pair_id < self.num_pairs,
            trajectories=Trajectories(
                state=trees.zeros(self.shapes, rows, members),
                inner_step=clock,
                episode=episode,
                objective=jnp.zeros((rows, members), jnp.float32),
            ),
            credit=Credit(jnp.zeros((size, kept, 2), jnp.int32), accumulator),
        )

    def advance(
        self, theta: Theta, pairs: Pairs, outer_step: Any
    ) -> tuple[Pairs, Report]:
        """One window at one theta."""
        who, clock, first, after, seen = self.perturbed(theta, pairs, outer_step)
        restarted = self.divergence.restarted(seen.diverged)
        if self.carry == "mean":
            after, restarted = self._carry_mean(theta, pairs, who)
        gradient, credit = self.rule.assign(
            who, theta, pairs.credit, clock, seen.unrolled, first
        )
        after = restart(after, restarted)
        pairs = dataclasses.replace(pairs, trajectories=after, credit=credit)
        return pairs, self.report(pairs, seen, restarted, gradient)

    def perturbed(self, theta: Theta, pairs: Pairs, outer_step: Any) -> Perturbed:
        """Unrolls both signs of every pair."""
        who = Identity(pairs.block, pairs.pair_id, jnp.asarray(outer_step, jnp.int32))
        both = self._members(pairs.trajectories)
        clock = both.inner_step[:, : self.rule.members]
        if self.window.single_episode:
            clock = jnp.zeros_like(clock)
        first = self.rule.start(who, theta, pairs.credit, clock)
        source = self._source(theta, who, clock, first)
        after, seen = self._unroll(source, both, who, pairs.active)
        return Perturbed(who, clock, first, after, seen)

    def score(
        self, theta: Theta, pairs: Pairs, outer_step: Any
    ) -> tuple[Pairs, jax.Array, Report]:
        """One window; its scores are NaN where a pair does not count."""
        pairs, report = self.advance(theta, pairs, outer_step)
        scores = report.sums.pop("scores")
        return pairs, scores, dataclasses.replace(report, gradient=None)

    def weighted_sum(self, theta: Theta, pairs: Pairs, weights: jax.Array) -> Theta:
        """``sum_p (w+ - w-) direction_p``, the gradient of shaped scores."""
        direction = self.rule.directions(pairs.pair_id, theta, pairs.credit)
        signed = jnp.where(pairs.active[:, None], weights, 0) * jnp.array([1.0, -1.0])
        if not self.rule.apart:
            signed = jnp.sum(signed, axis=1, keepdims=True)
        total = self.rule.perturbations.total(signed, direction)
        return trees.narrowed(total, theta)

    def _unroll(
        self, source: ThetaSource, start: Trajectories, who: Identity, active: jax.Array
    ) -> tuple[Trajectories, Seen]:
        """K steps, with the losses of the objective asked for, by the policy."""
        steps = host_unroll if traits(self.task).host else unroll
        after, raw = steps(self.task, self.window, source, start, who, self.data)
        losses, diverged, counted = self.divergence.judge(raw.losses, active)
        seen = Unrolled(losses, jnp.asarray(raw.ended))
        if self.window.objective == "final":
            seen, previous = telescope(seen, start.objective)
            after = dataclasses.replace(after, objective=previous)
        losses = jnp.where(counted[:, None, None], seen.losses, 0)
        broken = ~jnp.isfinite(jnp.sum(raw.losses, axis=-1)) & active[:, None]
        seen = dataclasses.replace(seen, losses=losses)
        return after, Seen(seen, diverged, counted, jnp.sum(broken))

    def _members(self, carried: Trajectories) -> Trajectories:
        """Both members' trajectories at the start: own, or forked from the mean."""
        shape = (self.block_size, 2)
        return jax.tree.map(
            lambda x: jnp.broadcast_to(x, (*shape, *x.shape[2:])), carried
        )

    def _carry_mean(
        self, theta: Theta, pairs: Pairs, who: Identity
    ) -> tuple[Trajectories, jax.Array]:
        """Advances the mean state by the unperturbed theta (Algorithm 1).

        Returns it, and which mean states diverged and begin a new episode.
        """
        active = pairs.active
        if self.one_mean:
            who, active = who._replace(pair_id=who.pair_id[:1]), active[:1]
        source = constant(jax.tree.map(lambda x: jnp.asarray(x)[None, None], theta))
        after, seen = self._unroll(source, pairs.trajectories, who, active)
        return after, self.divergence.restarted(seen.diverged)

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

    def report(
        self, pairs: Pairs, seen: Seen, restarted: jax.Array, gradient: Theta
    ) -> Report:
        """What the driver is told of a window."""
        active = jnp.sum(jnp.where(pairs.active, 1, 0))
        scores = jnp.sum(seen.unrolled.losses, axis=-1)
        unrolls = 2 * active
        if self.carry == "mean":
            unrolls = unrolls + (1 if self.one_mean else active)
        sums = {
            "loss": jnp.sum(scores).astype(jnp.float32),
            "accumulator_norm": self._accumulator_norm(pairs, seen.counted),
        }
        if self.shaping is not None:
            sums["scores"] = jnp.where(seen.counted[:, None], scores, jnp.nan)
        counts = {
            "inner_steps": unrolls * self.window.length,
            "nonfinite": seen.nonfinite,
            "pairs": active,
            "diverged_pairs": jnp.sum(seen.diverged),
            "restarted_pairs": jnp.sum(pairs.active & restarted),
        }
        return Report(
            gradient=gradient,
            weight=(2 * jnp.sum(seen.counted)).astype(jnp.float32),
            sums=sums,
            counts={name: count.astype(jnp.int32) for name, count in counts.items()},
            diverged=jnp.where(seen.diverged, pairs.pair_id, -1),
        )

    def _accumulator_norm(self, pairs: Pairs, counted: jax.Array) -> jax.Array:
        """Sum over the particles that count of |xi| / sigma^2; 0 without one."""
        if pairs.credit.accumulator is None:
            return jnp.zeros((), jnp.float32)
        norms = self.rule.perturbations.norms(pairs.credit.accumulator)
        lengths = jnp.mean(norms, axis=1)
        return (2 * jnp.sum(jnp.where(counted, lengths, 0))).astype(jnp.float32)
