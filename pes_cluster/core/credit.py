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

import jax
import jax.numpy as jnp

from pes_cluster.core import trees
from pes_cluster.core.pairs import Credit
from pes_cluster.core.perturbations import Perturbations
from pes_cluster.core.task import Theta
from pes_cluster.core.timeline import Timeline, Window, timeline
from pes_cluster.core.unroll import Unrolled

SIGNS = (1.0, -1.0)


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

    def directions(self, pair_id: jax.Array, theta: Theta, credit: Credit) -> Theta:
        """The direction that credits the window's last step, leaves [P, M, ...]."""
        if credit.accumulator is not None:
            return credit.accumulator
        z = self.perturbations.sample(pair_id, credit.draw, theta)
        return self.perturbations.per_variance(z, credit.draw)

    def start(
        self,
        pair_id: jax.Array,
        theta: Theta,
        credit: Credit,
        line: tuple[jax.Array, ...],
    ) -> tuple[Theta, jax.Array]:
        """The perturbation of the window's first step.

        Args:
            pair_id: [P].
            theta: Gives shapes.
            credit: At the window's start.
            line: (inner_step [P, M], outer_step).

        Returns:
            z, leaves [P, M, ...], and its name, [P, M, 2].
        """
        inner_step, outer_step = line
        changed = self.window.changes(inner_step, jnp.int32(0))
        draw = renamed(credit.draw, changed, outer_step, jnp.zeros_like(inner_step))
        if self.window.noise_period == "window":
            draw = draw[
                :, :1
            ]  # Both members share the draw, whenever their episodes end.
        return self.perturbations.sample(pair_id, draw, theta), draw

    def assign(
        self,
        pair_id: jax.Array,
        active: jax.Array,
        theta: Theta,
        credit: Credit,
        clocks: tuple[jax.Array, jax.Array],
        unrolled: Unrolled,
        first: tuple[Theta, jax.Array],
    ) -> tuple[Theta, Credit]:
        """Credits the losses of one window.

        Args:
            pair_id: [P].
            active: False for padding, [P].
            theta: Gives shapes.
            credit: At the window's start.
            clocks: (inner_step at the window's start [P, M], outer_step).
            unrolled: Losses and ends, [P, 2, K].
            first: What `start` returned.

        Returns:
            The gradient summed over members and active pairs (not yet divided by N),
            and the credit at the window's end.
        """
        inner_step, outer_step = clocks
        line = timeline(
            self.window, inner_step, unrolled.ended[:, : self.members].astype(bool)
        )
        losses = jnp.where(active[:, None, None], unrolled.losses, 0)
        gradient = jax.tree.map(jnp.zeros_like, theta)
        state = (gradient, credit)
        state = self._segment(0, state, line, losses, theta, pair_id, outer_step, first)
        if self.window.one_segment:
            return state

        def more(carry: tuple[jax.Array, tuple[Theta, Credit]]) -> jax.Array:
            return carry[0] <= jnp.max(line.segment)

        def next_segment(carry: tuple[jax.Array, tuple[Theta, Credit]]):
            index, inner = carry
            inner = self._segment(
                index, inner, line, losses, theta, pair_id, outer_step, None
            )
            return index + 1, inner

        first_inside = jnp.asarray(1, line.segment.dtype)
        return jax.lax.while_loop(more, next_segment, (first_inside, state))[1]

    def _segment(
        self,
        index: jax.Array | int,
        state: tuple[Theta, Credit],
        line: Timeline,
        losses: jax.Array,
        theta: Theta,
        pair_id: jax.Array,
        outer_step: jax.Array,
        first: tuple[Theta, jax.Array] | None,
    ) -> tuple[Theta, Credit]:
        gradient, credit = state
        inside = line.segment == index
        exists = jnp.any(inside, axis=-1)
        at = jnp.argmax(inside, axis=-1)[..., None]
        begins, changes, ordinal = (
            jnp.take_along_axis(x, at, axis=-1)[..., 0]
            for x in (line.begins, line.changes, line.ordinal)
        )
        changed = changes & exists
        draw = renamed(credit.draw, changed, outer_step, ordinal)
        z = first[0] if first else self.perturbations.sample(pair_id, draw, theta)
        name = first[1] if first else draw
        fresh = self.perturbations.per_variance(z, name)
        direction = self._accumulate(credit, fresh, begins & exists, changed, exists)
        sums = jnp.sum(jnp.where(inside, losses, 0), axis=-1)
        signed = sums * jnp.asarray(SIGNS, sums.dtype)
        if not self.apart:
            signed = jnp.sum(signed, axis=1, keepdims=True)
        part = trees.weighted_sum(signed, direction)
        accumulator = direction if self.accumulate else None
        return jax.tree.map(jnp.add, gradient, part), Credit(draw, accumulator)

    def _accumulate(
        self,
        credit: Credit,
        fresh: Theta,
        begins: jax.Array,
        changed: jax.Array,
        exists: jax.Array,
    ) -> Theta:
        """The accumulator in force during a segment, leaves [P, M, ...]."""
        lead = begins.shape
        fresh = jax.tree.map(
            lambda x: jnp.broadcast_to(x, (*lead, *x.shape[2:])), fresh
        )
        if not self.accumulate:
            return fresh
        before = credit.accumulator
        grown = jax.tree.map(jnp.add, before, fresh)
        inside = trees.select(changed, grown, before)
        return trees.select(exists, trees.select(begins, fresh, inside), before)


def renamed(
    draw: jax.Array, changed: jax.Array, outer_step: jax.Array, ordinal: jax.Array
) -> jax.Array:
    """Names a new draw where it changed, [P, M, 2]."""
    new = jnp.stack(jnp.broadcast_arrays(outer_step, ordinal), axis=-1)
    return jnp.where(changed[..., None], new.astype(draw.dtype), draw)
