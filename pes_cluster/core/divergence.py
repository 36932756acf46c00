"""What becomes of a pair whose losses are no longer numbers. Pure, block by block.

A member has *diverged* in a window where the sum of its losses is not finite, a pair
where one of its members has. Its neighbours never see that: it is bounded or left out
before anything is added up.

=================  =================================================================
``cap``            a diverged member's losses count at most as much as the worst loss
                   of the block's other members in the window, and what is not finite
                   counts exactly that; where all have diverged, the block counts
                   nothing. The pair lives on to the end of its episode (where
                   episodes never end, it begins a new one).
``restart_pair``   the pair counts nothing in this window, neither in the sum nor in
                   its weight, and both members begin a new episode, hence with a new
                   accumulator.
``fail``           the run ends; the pair counts nothing, so that theta stays finite.
=================  =================================================================

No policy is free of bias, since divergence depends on the perturbation: pairs that are
left out say nothing about what diverges, and a cap bounds what they say. But it keeps
the sign: a direction that diverges counts as no better than any other. A `loss_cap`
states the bound instead; then no loss of any pair counts as more, finite or not, and
the estimate is unbiased for the capped loss.
"""

import dataclasses
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from pes_cluster.core.pairs import Trajectories

Divergence = Literal["cap", "restart_pair", "fail"]


class Judged(NamedTuple):
    """What a policy made of the losses of one window.

    Attributes:
        losses: [P, M, K]; finite for every pair that counts.
        diverged: Active pairs with a sum of losses that was not finite, [P].
        counted: Active pairs that stand behind the estimate, [P].
    """

    losses: jax.Array
    diverged: jax.Array
    counted: jax.Array


@dataclasses.dataclass(frozen=True)
class DivergenceRule:
    """The policy of an estimator; static.

    Attributes:
        policy: See the module.
        loss_cap: The most that a loss may count as, or None; with `cap` alone.
        endless: Episodes never end, so that a diverged pair would never come back.
    """

    policy: Divergence
    loss_cap: float | None
    endless: bool

    def judge(self, losses: jax.Array, active: jax.Array) -> Judged:
        """Bounds or leaves out the pairs that diverged.

        Args:
            losses: Of a window (values, for a final-loss objective), [P, M, K].
            active: False for padding, [P].
        """
        finite = jnp.isfinite(jnp.sum(losses, axis=-1))
        diverged = active & ~jnp.all(finite, axis=-1)
        if self.policy != "cap":
            return Judged(losses, diverged, active & ~diverged)
        if self.loss_cap is not None:
            bounded = _at_most(losses, jnp.asarray(self.loss_cap, losses.dtype))
            return Judged(bounded, diverged, active)
        # Behind a condition, so that where nothing diverges not a bit can change.
        bounded = jax.lax.cond(
            jnp.any(diverged),
            _as_bad_as_the_worst,
            lambda losses, *_: losses,
            *(losses, finite, active),
        )
        return Judged(bounded, diverged, active)

    def restarted(self, diverged: jax.Array) -> jax.Array:
        """Which pairs begin a new episode, [P]."""
        restarts = self.policy == "restart_pair" or self.endless
        return diverged if restarts else jnp.zeros_like(diverged)


def restart(trajectories: Trajectories, which: jax.Array) -> Trajectories:
    """Has the chosen pairs begin a new episode with their next step, all members.

    The state is replaced, and the accumulator cleared, when that step begins it.
    """
    fresh = which[:, None]
    return dataclasses.replace(
        trajectories,
        inner_step=jnp.where(fresh, 0, trajectories.inner_step),
        episode=trajectories.episode + fresh,
        objective=jnp.where(fresh, 0, trajectories.objective),
    )


def _at_most(losses: jax.Array, cap: jax.Array) -> jax.Array:
    """What is above the cap, or no number (of either sign), counts as the cap."""
    return jnp.where(jnp.isfinite(losses) & (losses < cap), losses, cap)


def _as_bad_as_the_worst(
    losses: jax.Array, finite: jax.Array, active: jax.Array
) -> jax.Array:
    healthy = (finite & active[:, None])[..., None]
    worst = jnp.max(jnp.where(healthy, losses, -jnp.inf))
    capped = jnp.where(jnp.any(healthy), _at_most(losses, worst), 0)
    return jnp.where(finite[..., None], losses, capped)
