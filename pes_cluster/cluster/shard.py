"""A shard: one process's blocks, and the compiled functions that advance them.

A plain class without Ray. Every block knows its next window; a shard refuses any other,
so that no window of a block is run twice and none is skipped.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from pes_cluster.cluster.checkpoint import Part, write_part
from pes_cluster.cluster.leaves import Arrays, from_arrays, to_arrays
from pes_cluster.cluster.work import Work
from pes_cluster.core.blocks import Report
from pes_cluster.core.compile import compiled
from pes_cluster.core.task import Theta

Ring = Sequence[tuple[int, Theta]]


class FencedError(RuntimeError):
    """A call for another window than the block's next one."""


class Shard:
    """Owns blocks; advances, scores, evaluates, snapshots and saves them.

    After an exception inside `advance` a donated block may be gone: the shard is then
    to be treated as lost.
    """

    def __init__(self, work: Work, functions: dict[str, Any] | None = None) -> None:
        """Builds the program; `functions` are shared by the shards of one process."""
        self._functions = {} if functions is None else functions
        # A shard that was given up and writes on must not write another's files.
        self._incarnation = uuid.uuid4().hex[:8]
        self._blocks: dict[int, Any] = {}
        self._next_step: dict[int, int] = {}
        self.retool(work)

    def retool(self, work: Work) -> None:
        """Takes up another work, in which the blocks that it owns keep their shapes."""
        self._program = work.program()
        self._theta = work.initial_theta()
        self._work = work
        self._example = jax.eval_shape(
            lambda theta: self._program.init(theta, 0), self._theta
        )
        self._functions.clear()

    def adopt(
        self,
        blocks: Mapping[int, Arrays | None],
        indices: Sequence[int],
        at_step: int,
        ring: Ring = (),
    ) -> dict[int, int]:
        """Takes blocks over as they were before a step, and goes through a ring.

        Args:
            blocks: Their arrays, others among them; None for a fresh block.
            indices: Which blocks to take.
            at_step: The next window of the blocks as they are given.
            ring: The thetas of the windows since, whose reports have been taken.

        Returns:
            The next window of each block.

        Raises:
            LeavesError: Arrays that do not fit the configuration.
        """
        for index in indices:
            self._blocks[index] = self._block(blocks[index], index)
            self._next_step[index] = at_step
        self.replay(indices, ring)
        return {index: self._next_step[index] for index in indices}

    def replay(self, indices: Sequence[int], ring: Ring) -> None:
        """Takes blocks through windows whose reports are not needed any more."""
        for outer_step, theta in ring:
            if self._program.scored is None:
                self.advance(outer_step, theta, indices)
            else:
                self.score(outer_step, theta, indices)

    def release(self, indices: Sequence[int]) -> None:
        """Forgets blocks that now live elsewhere."""
        for index in indices:
            self._blocks.pop(index, None)
            self._next_step.pop(index, None)

    def advance(
        self, outer_step: int, theta: Theta, indices: Sequence[int]
    ) -> dict[int, Report]:
        """Runs one window of the blocks; returns their reports, as numpy."""
        reports = {}
        for index in indices:
            block, report = self._window("advance", outer_step, theta, index)
            self._blocks[index] = block
            reports[index] = report
        return jax.tree.map(np.asarray, reports)

    def score(
        self, outer_step: int, theta: Theta, indices: Sequence[int]
    ) -> dict[int, tuple[np.ndarray, np.ndarray, Report]]:
        """Runs one window; returns (scores, active, report) by block."""
        results = {}
        for index in indices:
            block, scores, report = self._window("score", outer_step, theta, index)
            self._blocks[index] = block
            results[index] = (scores, block.active, report)
        return jax.tree.map(np.asarray, results)

    def weighted_sum(
        self, theta: Theta, weights: dict[int, np.ndarray]
    ) -> dict[int, Theta]:
        """Returns the gradient sums of shaped scores, by block."""
        scored = self._program.scored
        assert scored is not None
        sums = {}
        for index, weight in sorted(weights.items()):
            if "weighted_sum" not in self._functions:
                example = (theta, self._blocks[index], weight)
                self._functions["weighted_sum"] = self._compiled(
                    scored.weighted_sum, example, ()
                )
            function = self._functions["weighted_sum"]
            sums[index] = function(theta, self._blocks[index], weight)
        return jax.tree.map(np.asarray, sums)

    def probe(
        self, outer_step: int, theta: Theta, indices: Sequence[int]
    ) -> dict[int, Report]:
        """What `advance` would report at another theta; the blocks stay as they are."""
        kept = {index: self._blocks[index] for index in indices}
        copies = jax.tree.map(np.array, {i: to_arrays(b) for i, b in kept.items()})
        reports = self.advance(outer_step, theta, indices)
        self.adopt(copies, indices, outer_step)
        return reports

    def evaluate(
        self, theta: Theta, outer_step: int, indices: Sequence[int]
    ) -> dict[int, float]:
        """Returns the loss of the named evaluation episodes."""
        if "evaluate" not in self._functions:
            # On first use: most shards of a small evaluation are never asked.
            self._functions["evaluate"] = self._work.evaluation()
        evaluation = self._functions["evaluate"]
        assert evaluation is not None, "only a task has evaluation episodes"
        return {
            index: float(evaluation(theta, np.int32(outer_step), np.int32(index)))
            for index in indices
        }

    def snapshot(self, indices: Sequence[int]) -> dict[int, Arrays]:
        """Returns blocks as named arrays."""
        return {index: to_arrays(self._blocks[index]) for index in indices}

    def resized(self, work: Work, indices: Sequence[int]) -> dict[int, Arrays]:
        """Returns blocks as another number of particles makes them."""
        resized = work.program().resized
        assert resized is not None
        blocks = {index: resized(self._theta, self._blocks[index]) for index in indices}
        return {index: to_arrays(block) for index, block in blocks.items()}

    def save(self, folder: str, name: str, indices: Sequence[int]) -> dict[int, Part]:
        """Writes a part of a checkpoint; returns it under its first block."""
        name = f"{name}_{self._incarnation}"
        return {min(indices): write_part(folder, name, self.snapshot(indices))}

    def _block(self, arrays: Arrays | None, index: int) -> Any:
        if arrays is not None:
            return from_arrays(self._example, arrays)
        block = self._program.init(self._theta, index)
        # Donated buffers must not be shared between leaves.
        return jax.tree.map(lambda leaf: leaf.copy(), block)

    def _window(self, name: str, outer_step: int, theta: Theta, index: int) -> Any:
        """Calls the compiled `advance` or `score`, with the block's buffers donated."""
        if self._next_step.get(index) != outer_step:
            raise FencedError(
                f"block {index}, whose next window is {self._next_step.get(index)}, "
                f"was asked for window {outer_step}"
            )
        step = np.int32(outer_step)
        if name not in self._functions:
            scored = self._program.scored
            function = self._program.advance if scored is None else scored.score
            example = (theta, self._blocks[index], step)
            self._functions[name] = self._compiled(function, example, (1,))
        result = self._functions[name](theta, self._blocks[index], step)
        self._next_step[index] = outer_step + 1
        return result

    def _compiled(self, function: Any, example: Any, donate: tuple[int, ...]) -> Any:
        if not self._program.jittable:
            return function
        return compiled(function, *example, donate=donate)
