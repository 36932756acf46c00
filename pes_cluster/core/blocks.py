"""Blocks: the unit of compute, of movement between shards, and of reduction.

A block is a fixed set of pairs (or of replicas, or of whole learners). Every block of a
run is advanced by the same compiled function of the same shapes, and the driver adds
the blocks' reports in block order; so the result of a run does not depend on which
shard owns which block. Blocks are never vmapped together: that changes bits.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from pes_cluster.core.task import Theta

BlockState = Any  # A pytree of arrays: everything that persists between windows.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Report:
    """What a block tells the driver after one window.

    Attributes:
        gradient: The weighted sum over the block's particles, shaped like theta (not
            yet divided by `weight`); None from a learner block.
        weight: Scalar, how many particles stand behind the sums.
        sums: Scalars that the driver adds and divides by the total weight ("loss",
            ...).
        counts: Integer scalars that the driver adds ("inner_steps", "nonfinite", ...).
        diverged: The id of every pair whose losses were not finite, -1 in the place of
            the others, [pairs]; None where nobody looks.
    """

    gradient: Theta | None
    weight: jax.Array
    sums: dict[str, jax.Array]
    counts: dict[str, jax.Array]
    diverged: jax.Array | None = None


class ScoredSteps(NamedTuple):
    """The two-step form of `advance`, for shaping that must see all scores at once.

    Attributes:
        score: ``(theta, block, outer_step) -> (block, scores[pairs, 2], Report)``; the
            report's gradient is None.
        weighted_sum: ``(theta, block, weights[pairs, 2]) -> gradient sum``.
        shape: ``(scores[all_pairs, 2], mask[all_pairs]) -> weights[all_pairs, 2]``;
            pure numpy, run by the driver.
    """

    score: Callable[[Theta, BlockState, Any], tuple[BlockState, jax.Array, Report]]
    weighted_sum: Callable[[Theta, BlockState, Any], Theta]
    shape: Callable[[Any, Any], Any]


class BlockProgram(NamedTuple):
    """A run's inner loop as pure functions, built from a task and an estimator.

    Attributes:
        num_blocks: How many blocks the run has; depends on the configuration alone.
        init: ``(theta, block_index) -> block``; a block before its first window.
        advance: ``(theta, block, outer_step) -> (block, Report)``; one window at one
            theta.
        scored: The two-step form, or None where shaping is the identity.
        resized: ``(theta, block) -> block``; a block of the same run with another
            number of particles, as this run has it. None: the number cannot change.
        jittable: False for host tasks, whose `advance` compiles its own numerical
            parts.
    """

    num_blocks: int
    init: Callable[[Theta, Any], BlockState]
    advance: Callable[[Theta, BlockState, Any], tuple[BlockState, Report]]
    scored: ScoredSteps | None = None
    jittable: bool = True
    resized: Callable[[Theta, BlockState], BlockState] | None = None


def block_size(num_pairs: int, chosen: int | None) -> int:
    """How many pairs a block has: those chosen, or the default."""
    return min(chosen or pairs_per_block(num_pairs), num_pairs)


def pairs_per_block(num_pairs: int) -> int:
    """The default block size: about eight blocks, of at most 16 pairs each.

    It depends on N alone, never on cores or shards, so that the sums of a run group the
    same pairs whatever the cluster.
    """
    return min(max(-(-num_pairs // 8), 1), 16)
