"""Credit: which perturbations answer for which losses. One pure function for all tasks.

With eps constant within a segment of a window, every step of the segment is credited
with the accumulator in force::

    accumulator <- eps / sigma^2                where an episode begins
    accumulator <- accumulator + eps / sigma^2  where eps is drawn inside an episode
    gradient    += sum_members sign * accumulator * sum_{steps of the segment} loss

So the terminal step is still credited to the old accumulator and what follows it in the
window only to the perturbation it saw (PES; Vicol et al. 2021, Algorithm 2, extended to
episodes that end inside a window). Estimators without an accumulator use eps / sigma^2.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pes_cluster.core import trees
from pes_cluster.core.pairs import Credit
from pes_cluster.core.perturbations import Direction, Perturbations
from pes_cluster.core.task import Theta
from pes_cluster.core.timeline import Timeline, Window, timeline
from pes_cluster.core.unroll import Identity, Unrolled

SIGNS = (1.0, -1.0)


class Draw(NamedTuple):
    """Perturbations in force: z, leaves [P, M, ...], and their names, [P, M, 2]."""

    z: Direction
    name: jax.Array


class _Seen(NamedTuple):
    """What a window showed, for all its segments."""

    identity: Identity
    theta: Theta
    timeline: Timeline
    losses: jax.Array


_Running = tuple[Theta, Credit]


def telescope(unrolled: Unrolled, previous: jax.Array) -> tuple[Unrolled, jax.Array]:
    """Turns values p of a final-loss objective into increments p_k - p_{k-1}.

    The increments of an episode add up to its final loss, so crediting each with the
    accumulator is unbiased for the final loss and has about half the variance of
    ``p_k xi_k - p_{k-1} xi_{k-1}``.

    Args:
        unrolled: Values at the window's last step and wherever an episode ended, [P, M,
            K].
        previous: p_{k-1}, [P, M]; 0 at the begin of an episode.

    Returns:
        The increments, and the new `previous` (0 where the last step was terminal).
    """
    length = unrolled.losses.shape[-1]

    def tick(last: jax.Array, x: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        position, value, ended = x
        due = ended | (position == length - 1)
        increment = jnp.where(due, value - last, 0)
        return jnp.where(ended, 0, jnp.where(due, value, last)), increment

    by_step = [jnp.moveaxis(x, -1, 0) for x in (unrolled.losses, unrolled.ended)]
    last, increments = jax.lax.scan(tick, previous, (jnp.arange(length), *by_step))
    losses = jnp.moveaxis(increments, 0, -1)
    return dataclasses.replace(unrolled, losses=losses), last


@dataclasses.dataclass(frozen=True)
class CreditRule:
    """How one estimator of the family assigns credit; static.

    Attributes:
        window: The static shape of a window.
        perturbations: How draws are made.
        accumulate: Sum the draws of an episode (PES, GPES) or use the last (NRES, ES).
        apart: The members of a pair keep clocks and accumulators of their own, because
            their episodes may end apart (rule 3.5).
    """

    window: Window
    perturbations: Perturbations
    accumulate: bool
    apart: bool

    @property
    def members(self) -> int:
        """How many members keep a clock and an accumulator of their own."""
        return 2 if self.apart else 1

    def directions(self, pair_id: jax.Array, theta: Theta, credit: Credit) -> Direction:
        """The direction that credits the window's last step, leaves [P, M, ...]."""
        if credit.accumulator is not None:
            return credit.accumulator
        z = self.perturbations.sample(pair_id, credit.draw, theta)
        return self.perturbations.per_variance(z, credit.draw)

    def start(
        self, identity: Identity, theta: Theta, credit: Credit, inner_step: jax.Array
    ) -> Draw:
        """The perturbation of the window's first step; `inner_step` is [P, M]."""
        changed = self.window.changes(inner_step, jnp.int32(0))
        first = jnp.zeros_like(inner_step)
        name = renamed(credit.draw, changed, identity.outer_step, first)
        if self.window.noise_period == "window":
            name = name[:, :1]  # Both members share it, whenever their episodes end.
        return Draw(self.perturbations.sample(identity.pair_id, name, theta), name)

    def assign(
        self,
        identity: Identity,
        theta: Theta,
        credit: Credit,
        inner_step: jax.Array,
        unrolled: Unrolled,
        first: Draw,
    ) -> tuple[Theta, Credit]:
        """Credits the losses of one window.

        Args:
            identity: Of the pairs.
            theta: Gives shapes.
            credit: At the window's start.
            inner_step: Clocks at the window's start, [P, M].
            unrolled: Losses (0 for inactive pairs) and ends, [P, 2, K].
            first: What `start` returned.

        Returns:
            The gradient summed over members and pairs (not yet divided by N), and the
            credit at the window's end.
        """
        line = timeline(self.window, inner_step, unrolled.ended[:, : self.members])
        seen = _Seen(identity, theta, line, unrolled.losses)
        nothing = jax.tree.map(jnp.zeros_like, trees.widened(theta))
        after = self._segment(0, (nothing, credit), seen, first)
        if not self.window.one_segment:
            after = self._further(after, seen)
        return trees.narrowed(after[0], theta), after[1]

    def _further(self, after: _Running, seen: _Seen) -> _Running:
        """The segments behind the first."""
        last = jnp.max(seen.timeline.segment)

        def more(carry: tuple[jax.Array, _Running]) -> jax.Array:
            return carry[0] <= last

        def next_segment(carry: tuple[jax.Array, _Running]) -> tuple[Any, _Running]:
            return carry[0] + 1, self._segment(carry[0], carry[1], seen, None)

        second = jnp.asarray(1, last.dtype)
        return jax.lax.while_loop(more, next_segment, (second, after))[1]

    def _segment(
        self, index: jax.Array | int, running: _Running, seen: _Seen, first: Draw | None
    ) -> _Running:
        """Adds one segment's credit; a pair that has no such segment adds nothing."""
        gradient, credit = running
        line = seen.timeline
        inside = line.segment == index
        exists = jnp.any(inside, axis=-1)
        at = jnp.argmax(inside, axis=-1)[..., None]
        begins, changes, ordinal = (
            jnp.take_along_axis(x, at, axis=-1)[..., 0]
            for x in (line.begins, line.changes, line.ordinal)
        )
        changed = changes & exists
        name = renamed(credit.draw, changed, seen.identity.outer_step, ordinal)
        draw = first or Draw(
            self.perturbations.sample(seen.identity.pair_id, name, seen.theta), name
        )
        fresh = self.perturbations.per_variance(*draw)
        direction = self._accumulate(credit, fresh, begins & exists, changed, exists)
        sums = jnp.sum(jnp.where(inside, seen.losses, 0), axis=-1)
        signed = sums * jnp.asarray(SIGNS, sums.dtype)
        if not self.apart:
            signed = jnp.sum(signed, axis=1, keepdims=True)
        gradient = jax.tree.map(
            jnp.add, gradient, self.perturbations.total(signed, direction)
        )
        return gradient, Credit(name, direction if self.accumulate else None)

    def _accumulate(
        self,
        credit: Credit,
        fresh: Direction,
        begins: jax.Array,
        changed: jax.Array,
        exists: jax.Array,
    ) -> Direction:
        """The accumulator in force during a segment, leaves [P, M, ...]."""
        lead = begins.shape
        fresh = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (*lead, *x.shape[2:])), fresh
        )
        if not self.accumulate:
            return fresh
        before = credit.accumulator
        begun = self.perturbations.begun(fresh)
        inside = trees.select(changed, self.perturbations.added(before, fresh), before)
        return trees.select(exists, trees.select(begins, begun, inside), before)


def renamed(
    draw: jax.Array, changed: jax.Array, outer_step: jax.Array, ordinal: jax.Array
) -> jax.Array:
    """Names a new draw where it changed, [P, M, 2]."""
    new = jnp.stack(jnp.broadcast_arrays(outer_step, ordinal), axis=-1)
    return jnp.where(changed[..., None], new.astype(draw.dtype), draw)
