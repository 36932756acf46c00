"""Many outer steps in one compiled loop, for problems too small for a call a step.

The blocks are stacked and advanced one after another by an inner scan, and sums are
formed in block order: the same arithmetic as unfused. But XLA compiles a block into its
surroundings, so the last place of a float may differ from the unfused run's (measured
on the toy regression after 200 steps). Chunks of any length give the same bits; a
fused run's digest says that it is one, so that the two kinds are never mixed. It is
asked to scale or to stop between two chunks.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster import outer
from pes_cluster.cluster.checkpoint import Part, write_part
from pes_cluster.cluster.engine import (
    Advanced,
    Measured,
    diverged,
    evaluation_due,
    scaled,
)
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.leaves import Arrays, check_blocks, from_arrays, to_arrays
from pes_cluster.cluster.pool import Lost
from pes_cluster.cluster.settings import RunSettings
from pes_cluster.cluster.work import Work
from pes_cluster.core import keys
from pes_cluster.core.blocks import Report
from pes_cluster.core.compile import compiled
from pes_cluster.outer import OuterState


class FusedEngine:
    """Up to `fuse` outer steps in each call; one process, JAX tasks, plain scores.

    Raises:
        ValueError: The run cannot be fused: a host task, or shaped scores.
    """

    @property
    def shards(self) -> int:
        """See `Engine`."""
        return 1

    @property
    def shards_target(self) -> int:
        """See `Engine`."""
        return 1

    def __init__(
        self, work: Work, optimizer: outer.Optimizer, run: RunSettings, fuse: int
    ) -> None:
        self._run, self._fuse = run, fuse
        self._take_up(work)
        if not self._program.jittable or self._program.scored is not None:
            raise ValueError(
                "fuse: host tasks and shaped scores cannot be fused; set cluster.fuse=1"
            )
        self._update = outer.update(optimizer)
        self._theta = work.initial_theta()
        self._blocks: Any = None  # Stacked.

    def restore(self, blocks: dict[int, Arrays] | None, next_step: int) -> Lost | None:
        """See `Engine`."""
        del next_step  # The loop is handed its first step.
        count = self._program.num_blocks
        check_blocks(blocks, count)
        rows: list[Any] = []
        if blocks is not None:
            example = jax.eval_shape(lambda: self._program.init(self._theta, 0))
            rows = [from_arrays(example, blocks[index]) for index in range(count)]
        self._hold(rows)
        return None

    def advance(
        self, state: OuterState, outer_step: int, limit: int
    ) -> Advanced | Lost:
        """See `Engine`."""
        length = min(self._fuse, limit)
        carry = (state, self._blocks)
        start = np.int32(outer_step)
        if length not in self._loops:
            self._loops[length] = compiled(
                self._loop(length), carry, start, donate=(0,)
            )
        # Donated buffers must not be the optimiser state that a caller still holds.
        (state, self._blocks), seen = self._loops[length](carry, start)
        return state, self._measured(jax.tree.map(np.asarray, seen), outer_step)

    def save(self, folder: str) -> list[Part] | Lost:
        """See `Engine`."""
        arrays = {index: to_arrays(row) for index, row in enumerate(self._rows())}
        return [write_part(folder, "shard_0", arrays)]

    def saved(self) -> None:
        """See `Engine`."""

    def scale(
        self, *, particles: int | None, shards: int | None, outer_step: int
    ) -> Lost | None:
        """See `Engine`."""
        del outer_step
        if shards not in (None, 1):
            raise ValueError(
                f"shards: {shards}, but a run with cluster.fuse above 1 has one; start "
                "it with cluster.fuse=1"
            )
        if particles is None:
            return None
        work = scaled(self._work, particles)
        kept, begun = self._rows(), self._blocks is not None
        self._take_up(work)
        if begun:
            resized = self._program.resized
            assert resized is not None
            kept = kept[: self._program.num_blocks]
            self._hold([resized(self._theta, row) for row in kept])
        return None

    def events(self) -> list[Event]:
        """See `Engine`."""
        return []

    def notice(self) -> str | None:
        """See `Engine`."""
        return None

    def close(self) -> None:
        """See `Engine`."""
        self._blocks = None

    def _take_up(self, work: Work) -> None:
        self._work, self._program = work, work.program()
        self._loops: dict[int, Callable[..., Any]] = {}

    def _rows(self) -> list[Any]:
        """The blocks one by one; none where they have not been handed out."""
        if self._blocks is None:
            return []
        return [
            jax.tree.map(lambda leaf, i=index: leaf[i], self._blocks)
            for index in range(self._program.num_blocks)
        ]

    def _hold(self, rows: list[Any]) -> None:
        """Stacks these blocks, and fresh ones for those that are missing."""
        for index in range(len(rows), self._program.num_blocks):
            rows.append(self._program.init(self._theta, index))
        self._blocks = jax.tree.map(lambda *leaves: jnp.stack(leaves), *rows)

    def _loop(self, length: int) -> Callable[..., Any]:
        """``(carry, start) -> (carry, per-step measurements)`` over `length` steps."""

        def step(carry: Any, outer_step: Any) -> tuple[Any, Any]:
            state, blocks = carry

            def block(total: Any, one: Any) -> tuple[Any, Any]:
                one, report = self._program.advance(state.window_theta, one, outer_step)
                added = jax.tree.map(jnp.add, total, _summable(report))
                return added, (one, report.diverged)

            zeros = jax.tree.map(
                lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self._report_shape()
            )
            total, (blocks, ids) = jax.lax.scan(block, zeros, blocks)
            norm = jnp.float32(0)
            if total.gradient is not None:
                weight = jnp.maximum(total.weight, 1)
                state, norm = self._update(state, total.gradient, weight)
            value = self._evaluation(state.theta, outer_step + 1)
            seen = (total.weight, total.sums, total.counts, norm, value, ids)
            return (state, blocks), seen

        def loop(carry: Any, start: Any) -> tuple[Any, Any]:
            steps = start + jnp.arange(length, dtype=jnp.int32)
            return jax.lax.scan(step, carry, steps)

        return loop

    def _report_shape(self) -> Any:
        def one() -> Any:
            block = self._program.init(self._theta, 0)
            _, report = self._program.advance(self._theta, block, jnp.int32(0))
            return _summable(report)

        return jax.eval_shape(one)

    def _evaluation(self, theta: Any, done: Any) -> Any:
        """The mean evaluation loss where it is due, 0 elsewhere."""
        if self._work.task is None:
            return jnp.float32(0)
        episode = self._work.episode()
        every = self._run.eval_every
        due = done == self._run.outer_steps
        if every > 0:
            due |= done % every == 0

        def evaluate() -> Any:
            def one(index: Any) -> Any:
                return episode(theta, keys.evaluation_key(self._work.seed, done, index))

            losses = jax.lax.map(one, jnp.arange(self._run.eval_episodes))
            return jnp.mean(losses).astype(jnp.float32)

        return jax.lax.cond(due, evaluate, lambda: jnp.float32(0))

    def _measured(self, seen: Any, outer_step: int) -> list[Measured]:
        weight, sums, counts, norm, value, ids = seen
        learns = self._report_shape().gradient is None
        result = []
        for row in range(len(weight)):
            divisor = max(float(weight[row]), 1)
            means = {k: float(v[row]) / divisor for k, v in sums.items()}
            numbers = {k: int(v[row]) for k, v in counts.items()}
            evaluated = self._work.task is not None and evaluation_due(
                self._run, outer_step + row + 1
            )
            result.append(
                Measured(
                    loss=means.pop("loss"),
                    eval_loss=float(value[row]) if evaluated else None,
                    gradient_norm=None if learns else float(norm[row]),
                    particles=round(float(weight[row])),
                    inner_steps=numbers.pop("inner_steps"),
                    pairs=numbers.pop("pairs", 0),
                    diverged=diverged([] if ids is None else list(ids[row])),
                    extra=means | numbers,
                )
            )
        return result


def _summable(report: Report) -> Report:
    """The report without what is told block by block."""
    return dataclasses.replace(report, diverged=None)
