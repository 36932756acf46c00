"""One outer step over a pool: gather the reports, add them in order, update theta."""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from pes_cluster import outer
from pes_cluster.cluster.checkpoint import Part
from pes_cluster.cluster.leaves import Arrays
from pes_cluster.cluster.pool import Lost, Pool
from pes_cluster.cluster.settings import RunSettings
from pes_cluster.cluster.work import Work
from pes_cluster.core.blocks import Report
from pes_cluster.core.task import Theta
from pes_cluster.outer import OuterState


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one outer step showed; see `metrics.record.StepRecord` for the fields."""

    loss: float
    eval_loss: float | None
    gradient_norm: float | None
    particles: int
    inner_steps: int
    extra: dict[str, float]


Advanced = tuple[OuterState, list[Measured]]


class Engine(Protocol):
    """Makes outer steps; one at a time over a pool, or many in one compiled loop."""

    shards: int

    def restore(self, blocks: dict[int, Arrays] | None, next_step: int) -> Lost | None:
        """Hands out the blocks."""
        ...

    def advance(
        self, state: OuterState, outer_step: int, limit: int
    ) -> Advanced | Lost:
        """Makes at least one and at most `limit` outer steps."""
        ...

    def save(self, folder: str) -> list[Part] | Lost:
        """Writes the blocks' parts of a checkpoint."""
        ...

    def close(self) -> None:
        """Ends the shards."""
        ...


class PoolEngine:
    """One outer step at a time, over shards wherever they are."""

    def __init__(
        self, pool: Pool, work: Work, optimizer: outer.Optimizer, run: RunSettings
    ) -> None:
        self._pool, self._run = pool, run
        self.shards = pool.shards
        program = work.program()
        self._shape: Callable[..., Any] | None = None
        if program.scored is not None:
            self._shape = program.scored.shape
        self._evaluates = work.task is not None
        self._update = jax.jit(outer.update(optimizer))

    def restore(self, blocks: dict[int, Arrays] | None, next_step: int) -> Lost | None:
        """See `Engine`."""
        return self._pool.restore(blocks, next_step)

    def advance(
        self, state: OuterState, outer_step: int, limit: int
    ) -> Advanced | Lost:
        """See `Engine`."""
        del limit
        theta = jax.tree.map(np.asarray, state.theta)
        reports = self._reports(outer_step, theta)
        if isinstance(reports, Lost):
            return reports
        weight = added([report.weight for report in reports])
        gradient_norm = None
        if reports[0].gradient is not None:
            gradient = added([report.gradient for report in reports])
            state, norm = self._update(state, gradient, weight)
            gradient_norm = float(norm)
        eval_loss = self._evaluate(state, outer_step + 1)
        if isinstance(eval_loss, Lost):
            return eval_loss
        return state, [measured(reports, float(weight), eval_loss, gradient_norm)]

    def save(self, folder: str) -> list[Part] | Lost:
        """See `Engine`."""
        return self._pool.save(folder)

    def close(self) -> None:
        """See `Engine`."""
        self._pool.close()

    def _reports(self, outer_step: int, theta: Theta) -> list[Report] | Lost:
        if self._shape is None:
            return self._pool.step(outer_step, theta)
        scored = self._pool.score(outer_step, theta)
        if isinstance(scored, Lost):
            return scored
        weights = self._shape(
            np.concatenate([block.scores for block in scored]),
            np.concatenate([block.active for block in scored]),
        )
        by_block = np.split(weights, len(scored))
        gradients = self._pool.weighted_sum(theta, by_block)
        if isinstance(gradients, Lost):
            return gradients
        return [
            dataclasses.replace(block.report, gradient=gradient)
            for block, gradient in zip(scored, gradients, strict=True)
        ]

    def _evaluate(self, state: OuterState, done: int) -> float | None | Lost:
        if not (self._evaluates and evaluation_due(self._run, done)):
            return None
        theta = jax.tree.map(np.asarray, state.theta)
        losses = self._pool.evaluate(theta, done, self._run.eval_episodes)
        return losses if isinstance(losses, Lost) else float(np.mean(losses))


def evaluation_due(run: RunSettings, done: int) -> bool:
    """Whether theta is evaluated once so many updates are done."""
    every = run.eval_every
    return done == run.outer_steps or (every > 0 and done % every == 0)


def added(trees: list[Any]) -> Any:
    """Adds in the given order, from zero: the one order in which sums are formed."""
    total = jax.tree.map(lambda leaf: np.zeros_like(leaf), trees[0])
    for tree in trees:
        total = jax.tree.map(np.add, total, tree)
    return total


def measured(
    reports: list[Report],
    weight: float,
    eval_loss: float | None,
    gradient_norm: float | None,
) -> Measured:
    """Averages the reports' sums by weight and adds their counts."""
    sums = added([report.sums for report in reports])
    means = {name: float(value) / weight for name, value in sums.items()}
    counts = {
        name: sum(int(report.counts[name]) for report in reports)
        for name in reports[0].counts
    }
    return Measured(
        loss=means.pop("loss"),
        eval_loss=eval_loss,
        gradient_norm=gradient_norm,
        particles=round(weight),
        inner_steps=counts.pop("inner_steps"),
        extra=means | counts,
    )
