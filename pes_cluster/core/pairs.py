"""The state of the particles of one block, as one value.

Axes: P = pairs of the block, M = members that keep a value of their own.
"""

import dataclasses
from typing import Any

import jax

from pes_cluster.core.perturbations import Direction


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trajectories:
    """Inner states under way, with their clocks.

    Attributes:
        state: The task's inner states, leaves of shape [P, M, ...].
        inner_step: Steps taken in the current episode, [P, M]; 0 means that the episode
            is still to be begun, with the theta of its first step.
        episode: Ordinal of the current episode, [P, M].
        objective: Last value of the final-loss objective, [P, M]; 0 at an episode's
            begin.
    """

    state: Any
    inner_step: jax.Array
    episode: jax.Array
    objective: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Credit:
    """What a pair remembers of its past perturbations.

    Attributes:
        draw: Name (outer_step, ordinal) of the perturbation in force, [P, M, 2].
        accumulator: ``sum eps / sigma^2`` over the draws of the episode (the paper's
            xi / sigma^2), leaves [P, M, ...], or their factors (`core.low_rank`);
            None where the estimator keeps none.
            Stored with the positive member's sign. It is cleared when the next episode
            begins, so that after a window it still is the direction of the window's
            last step.
    """

    draw: jax.Array
    accumulator: Direction | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pairs:
    """All that persists of a block of antithetic pairs: one unit, never split.

    Attributes:
        block: Index of the block, scalar.
        pair_id: Identity of each pair, [P].
        active: False for the padding of the last block, [P].
        trajectories: Both members' states (M = 2), or one mean state (M = 1).
        credit: Perturbations in force and accumulators.
    """

    block: jax.Array
    pair_id: jax.Array
    active: jax.Array
    trajectories: Trajectories
    credit: Credit
