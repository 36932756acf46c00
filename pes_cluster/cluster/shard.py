"""A shard: one process's blocks, and the compiled functions that advance them.

A plain class without Ray. Every call carries the outer step; a shard refuses any but
its own next one, so that a window is never run twice and never skipped.
"""

from typing import Any

import jax
import numpy as np

from pes_cluster.cluster.checkpoint import Part, write_part
from pes_cluster.cluster.leaves import Arrays, from_arrays, to_arrays
from pes_cluster.cluster.work import Work
from pes_cluster.core.blocks import Report
from pes_cluster.core.compile import compiled
from pes_cluster.core.task import Theta


class FencedError(RuntimeError):
    """A call for another step than the shard's next one."""


class Shard:
    """Owns blocks; advances, scores, evaluates, snapshots and saves them.

    After an exception inside `advance` a donated block may be gone: the shard is then
    to be treated as lost.
    """

    def __init__(self, work: Work, functions: dict[str, Any] | None = None) -> None:
        """Builds the program; `functions` are shared by the shards of one process."""
        self._program = work.program()
        self._theta = work.initial_theta()
        self._work = work
        self._example = jax.eval_shape(
            lambda theta: self._program.init(theta, 0), self._theta
        )
        self._blocks: dict[int, Any] = {}
        self._next_step = 0
        self._functions = {} if functions is None else functions

    def adopt(self, blocks: dict[int, Arrays | None], next_step: int) -> None:
        """Takes over blocks: from their arrays, or (None) before their first window.

        Raises:
            LeavesError: Arrays that do not fit the configuration.
        """
        for index, arrays in sorted(blocks.items()):
            if arrays is None:
                block = self._program.init(self._theta, index)
                # Donated buffers must not be shared between leaves.
                self._blocks[index] = jax.tree.map(lambda leaf: leaf.copy(), block)
            else:
                self._blocks[index] = from_arrays(self._example, arrays)
        self._next_step = next_step

    def advance(self, outer_step: int, theta: Theta) -> dict[int, Report]:
        """Runs one window of every block; returns the reports by block, as numpy."""
        self._fence(outer_step)
        reports = {}
        for index in sorted(self._blocks):
            advance = self._function("advance", outer_step, theta, index)
            block, report = advance(theta, self._blocks[index], np.int32(outer_step))
            self._blocks[index] = block
            reports[index] = report
        self._next_step += 1
        return jax.tree.map(np.asarray, reports)

    def score(
        self, outer_step: int, theta: Theta
    ) -> dict[int, tuple[np.ndarray, np.ndarray, Report]]:
        """Runs one window; returns (scores, active, report) by block."""
        self._fence(outer_step)
        results = {}
        for index in sorted(self._blocks):
            score = self._function("score", outer_step, theta, index)
            block, scores, report = score(
                theta, self._blocks[index], np.int32(outer_step)
            )
            self._blocks[index] = block
            results[index] = (scores, block.active, report)
        self._next_step += 1
        return jax.tree.map(np.asarray, results)

    def replay(self, steps: list[tuple[int, Theta]]) -> None:
        """Goes through windows whose reports have been taken already."""
        for outer_step, theta in steps:
            if self._program.scored is None:
                self.advance(outer_step, theta)
            else:
                self.score(outer_step, theta)

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

    def evaluate(
        self, theta: Theta, outer_step: int, indices: list[int]
    ) -> dict[int, float]:
        """Returns the loss of the named evaluation episodes."""
        if not indices:
            return {}
        if "evaluate" not in self._functions:
            # On first use: most shards of a small evaluation are never asked.
            self._functions["evaluate"] = self._work.evaluation()
        evaluation = self._functions["evaluate"]
        assert evaluation is not None, "only a task has evaluation episodes"
        return {
            index: float(evaluation(theta, np.int32(outer_step), np.int32(index)))
            for index in indices
        }

    def snapshot(self) -> dict[int, Arrays]:
        """Returns every block as named arrays."""
        return {index: to_arrays(block) for index, block in self._blocks.items()}

    def save(self, folder: str, name: str) -> Part:
        """Writes the shard's part of a checkpoint."""
        return write_part(folder, name, self.snapshot())

    def _fence(self, outer_step: int) -> None:
        if outer_step != self._next_step:
            raise FencedError(
                f"a shard whose next step is {self._next_step} was asked for step "
                f"{outer_step}"
            )

    def _function(self, name: str, outer_step: int, theta: Theta, index: int) -> Any:
        """The compiled `advance` or `score`, with the block's buffers donated."""
        if name not in self._functions:
            scored = self._program.scored
            function = self._program.advance if scored is None else scored.score
            example = (theta, self._blocks[index], np.int32(outer_step))
            self._functions[name] = self._compiled(function, example, (1,))
        return self._functions[name]

    def _compiled(self, function: Any, example: Any, donate: tuple[int, ...]) -> Any:
        if not self._program.jittable:
            return function
        return compiled(function, *example, donate=donate)
