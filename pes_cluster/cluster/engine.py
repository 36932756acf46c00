"""One outer step over a pool: gather the reports, add them in order, update theta."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from pes_cluster import outer
from pes_cluster.cluster.checkpoint import Part
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.leaves import Arrays
from pes_cluster.cluster.pool import Lost, Pool
from pes_cluster.cluster.settings import RunSettings
from pes_cluster.cluster.work import Work
from pes_cluster.core.blocks import Report
from pes_cluster.core.task import Theta
from pes_cluster.outer import OuterState


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one outer step showed; see `metrics.record.StepRecord` for the fields.

    Beyond them: how many pairs there are, and the ids of those that diverged.
    """

    loss: float
    eval_loss: float | None
    gradient_norm: float | None
    particles: int
    inner_steps: int
    extra: dict[str, float]
    pairs: int = 0
    diverged: tuple[int, ...] = ()


CHUNK = 8  # Steps with delayed theta between two moments at which nothing is under way.

Advanced = tuple[OuterState, list[Measured]]


class Engine(Protocol):
    """Makes outer steps; one at a time over a pool, or many in one compiled loop."""

    @property
    def shards(self) -> int:
        """How many shards own blocks now."""
        ...

    @property
    def shards_target(self) -> int:
        """How many are aimed at, the lost ones included."""
        ...

    def restore(self, blocks: dict[int, Arrays] | None, next_step: int) -> Lost | None:
        """Hands out the blocks; again, where the run falls back to a checkpoint."""
        ...

    def advance(
        self, state: OuterState, outer_step: int, limit: int
    ) -> Advanced | Lost:
        """Makes at least one and at most `limit` outer steps."""
        ...

    def save(self, folder: str) -> list[Part] | Lost:
        """Writes the blocks' parts of a checkpoint."""
        ...

    def saved(self) -> None:
        """Takes note that the checkpoint stands."""
        ...

    def scale(
        self, *, particles: int | None, shards: int | None, outer_step: int
    ) -> Lost | None:
        """Changes the number of particles, of shards or both between two steps.

        Before the blocks are handed out, only the numbers are taken.

        Raises:
            ValueError: Refused, in one line; nothing has changed.
        """
        ...

    def events(self) -> list[Event]:
        """What befell the shards since this was last asked."""
        ...

    def notice(self) -> str | None:
        """Why a durable checkpoint should be written now: this node will go, say."""
        ...

    def close(self) -> None:
        """Ends the shards."""
        ...


class PoolEngine:
    """One outer step at a time, over shards wherever they are.

    With delayed theta, window k+1 is already under way while the reports of window k
    are added up: its theta is known. Such steps are made in chunks, at whose ends
    nothing is under way.
    """

    def __init__(
        self, pool: Pool, work: Work, optimizer: outer.Optimizer, run: RunSettings
    ) -> None:
        self._pool, self._run = pool, run
        self._update = jax.jit(outer.update(optimizer))
        self._take_up(work)

    @property
    def shards(self) -> int:
        """How many shards own blocks now."""
        return self._pool.shards

    @property
    def shards_target(self) -> int:
        """See `Engine`."""
        return self._pool.shards_target

    def restore(self, blocks: dict[int, Arrays] | None, next_step: int) -> Lost | None:
        """See `Engine`."""
        return self._pool.restore(blocks, next_step)

    def advance(
        self, state: OuterState, outer_step: int, limit: int
    ) -> Advanced | Lost:
        """See `Engine`."""
        end = outer_step + (1 if state.delayed is None else min(limit, CHUNK))
        seen = []
        for step in range(outer_step, end):
            advanced = self._step(state, step, ahead=step + 1 < end)
            if isinstance(advanced, Lost):
                return advanced
            state, measurement = advanced
            seen.append(measurement)
            if not _finite(state.theta):
                break
        return state, seen

    def save(self, folder: str) -> list[Part] | Lost:
        """See `Engine`."""
        return self._pool.save(folder)

    def saved(self) -> None:
        """See `Engine`."""
        self._pool.saved()

    def scale(
        self, *, particles: int | None, shards: int | None, outer_step: int
    ) -> Lost | None:
        """See `Engine`."""
        del outer_step
        if particles is not None:
            work = scaled(self._work, particles)
            lost = self._pool.rescale(work)
            if lost is not None:
                return lost
            self._take_up(work)
        if shards is not None:
            self._pool.resize(shards)
        return None

    def events(self) -> list[Event]:
        """See `Engine`."""
        return self._pool.events()

    def notice(self) -> str | None:
        """See `Engine`."""
        return self._pool.notice()

    def close(self) -> None:
        """See `Engine`."""
        self._pool.close()

    def _take_up(self, work: Work) -> None:
        program = work.program()
        self._work = work
        self._shape: Callable[..., Any] | None = None
        if program.scored is not None:
            self._shape = program.scored.shape
        self._evaluates = work.task is not None

    def _step(
        self, state: OuterState, step: int, ahead: bool
    ) -> tuple[OuterState, Measured] | Lost:
        """One update; `ahead`: another follows at once."""
        due = self._evaluates and evaluation_due(self._run, step + 1)
        fresh = self._fresh(state, step) if due else None
        theta = jax.tree.map(np.asarray, state.window_theta)
        reports = fresh if isinstance(fresh, Lost) else self._reports(step, theta)
        if isinstance(reports, Lost):
            return reports
        if ahead and self._shape is None and not evaluation_due(self._run, step + 2):
            self._pool.submit(step + 1, jax.tree.map(np.asarray, state.theta))
        weight = added([report.weight for report in reports])
        extra: dict[str, float] = {}
        gradient, gradient_norm = None, None
        if reports[0].gradient is not None:
            gradient = added([report.gradient for report in reports])
            if fresh is not None:
                extra["cosine_to_fresh"] = cosine(gradient, fresh)
            state, norm = self._update(state, gradient, np.maximum(weight, 1))
            gradient_norm = float(norm)
        eval_loss = self._evaluate(state, step + 1) if due else None
        if isinstance(eval_loss, Lost):
            return eval_loss
        seen = measured(reports, float(weight), eval_loss, gradient_norm)
        return state, dataclasses.replace(seen, extra=seen.extra | extra)

    def _fresh(self, state: OuterState, step: int) -> Theta | None | Lost:
        """The gradient sum without delay, to compare with; None where none is delayed.

        Also None where scores are shaped: that would take another two round trips.
        """
        if state.delayed is None or self._shape is not None:
            return None
        reports = self._pool.probe(step, jax.tree.map(np.asarray, state.theta))
        if isinstance(reports, Lost):
            return reports
        return added([report.gradient for report in reports])

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

    def _evaluate(self, state: OuterState, done: int) -> float | Lost:
        theta = jax.tree.map(np.asarray, state.theta)
        losses = self._pool.evaluate(theta, done, self._run.eval_episodes)
        return losses if isinstance(losses, Lost) else float(np.mean(losses))


def scaled(work: Work, num_particles: int) -> Work:
    """Returns the work with another number of particles.

    Raises:
        ValueError: The method has no particles, or not so many.
    """
    scale = getattr(work.method, "scaled", None)
    if scale is None:
        name = type(work.method).__name__
        raise ValueError(f"particles: {name} cannot change their number")
    return dataclasses.replace(work, method=scale(num_particles))


def cosine(one: Theta, other: Theta) -> float:
    """The cosine of the angle between two gradients; 0 where one of them vanishes."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))

    def inner(left: int, right: int) -> float:
        return sum(
            float(np.vdot(np.float64(pair[left]), np.float64(pair[right])))
            for pair in pairs
        )

    norms = float(np.sqrt(inner(0, 0) * inner(1, 1)))
    return inner(0, 1) / norms if norms > 0 else 0.0


def _finite(theta: Theta) -> bool:
    return all(bool(np.all(np.isfinite(leaf))) for leaf in jax.tree.leaves(theta))


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
    # Without any weight (every pair left out) the means are 0, and the run ends.
    means = {name: float(value) / max(weight, 1) for name, value in sums.items()}
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
        pairs=counts.pop("pairs", 0),
        diverged=diverged([report.diverged for report in reports]),
        extra=means | counts,
    )


def diverged(by_block: Sequence[Any]) -> tuple[int, ...]:
    """The ids of the pairs that diverged, from the blocks' reports."""
    ids = [ids for ids in by_block if ids is not None]
    return tuple(int(pair) for pair in np.concatenate([[], *ids]) if pair >= 0)
