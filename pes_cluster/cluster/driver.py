"""The driver: theta, the optimiser's state, and the way from one phase to the next."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from pes_cluster import outer
from pes_cluster.cluster.checkpoint import (
    Checkpoint,
    CheckpointError,
    CheckpointStore,
    Manifest,
    write_part,
)
from pes_cluster.cluster.divergence import Watch
from pes_cluster.cluster.engine import Engine, Measured
from pes_cluster.cluster.leaves import LeavesError, from_arrays, to_arrays
from pes_cluster.cluster.phases import (
    Ended,
    Phase,
    Running,
    Saving,
    Starting,
    Status,
    after_step,
)
from pes_cluster.cluster.pool import Lost
from pes_cluster.core.task import Theta
from pes_cluster.metrics.record import StepRecord
from pes_cluster.outer import OuterState


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the driver is to do.

    Attributes:
        outer_steps: Updates asked for.
        checkpoint_every: Updates between checkpoints.
        digest: Of the configuration that determines the result.
        on_record: Called for every outer step, in order.
        should_stop: Asked at every step boundary.
        staleness: By how many updates the windows' theta is behind.
        watch: What is to be thought of diverged pairs.
    """

    outer_steps: int
    checkpoint_every: int
    digest: str
    on_record: Callable[[StepRecord], None]
    should_stop: Callable[[], bool] = lambda: False
    staleness: int = 0
    watch: Watch = Watch()


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: finished, stopped (asked to, resumable) or failed.
        theta: As numpy.
        outer_step: Updates done.
        inner_steps: Inner steps charged, all particles counted.
        wall_seconds: Over all sittings.
        error: Why it failed, one line.
    """

    status: Status
    theta: Theta
    outer_step: int
    inner_steps: int
    wall_seconds: float
    error: str | None


class Driver:
    """Owns theta; asks the engine for steps, and the store for durability."""

    def __init__(
        self,
        plan: Plan,
        engine: Engine,
        store: CheckpointStore,
        optimizer: outer.Optimizer,
        theta: Theta,
    ) -> None:
        self._plan, self._engine, self._store = plan, engine, store
        self._state: OuterState = outer.start(optimizer, theta, plan.staleness)
        self._watch = plan.watch
        self._inner_steps = 0
        self._seconds_before = 0.0
        self._began = time.monotonic()

    def run(self, checkpoint: Checkpoint | None = None) -> Outcome:
        """Goes from phase to phase until the run has ended."""
        phase: Phase = Starting()
        while not isinstance(phase, Ended):
            phase = self._next(phase, checkpoint)
        return Outcome(
            status=phase.status,
            theta=jax.tree.map(np.asarray, self._state.theta),
            outer_step=phase.outer_step,
            inner_steps=self._inner_steps,
            wall_seconds=self._seconds(),
            error=phase.error,
        )

    def _next(self, phase: Phase, checkpoint: Checkpoint | None) -> Phase:
        match phase:
            case Starting():
                return self._start(checkpoint)
            case Running(outer_step):
                return self._step(outer_step)
            case Saving(outer_step, then):
                return self._save(outer_step, then)
            case Ended():
                return phase

    def _start(self, checkpoint: Checkpoint | None) -> Phase:
        done = 0
        if checkpoint is not None:
            manifest = checkpoint.manifest
            done = manifest.outer_step
            self._inner_steps = int(manifest.totals["inner_steps"])
            self._seconds_before = manifest.totals["wall_seconds"]
        try:
            if checkpoint is not None:
                self._state = from_arrays(self._state, checkpoint.driver)
            lost = self._engine.restore(checkpoint.blocks if checkpoint else None, done)
        except LeavesError as error:
            where = self._store.folder(done)
            return Ended("failed", done, f"{where}: cannot be continued: {error}")
        if lost is not None:
            return Ended("failed", done, f"no shards to start with: {lost.reason}")
        if done >= self._plan.outer_steps:
            return Ended("finished", done)
        return Running(done)

    def _step(self, outer_step: int) -> Phase:
        plan = self._plan
        border = (outer_step // plan.checkpoint_every + 1) * plan.checkpoint_every
        limit = min(border, plan.outer_steps) - outer_step
        advanced = self._engine.advance(self._state, outer_step, limit)
        if isinstance(advanced, Lost):
            return Ended("failed", outer_step, self._lost(advanced, outer_step))
        self._state, seen = advanced
        failure = self._diverged(outer_step, seen)
        for measurement in seen:
            outer_step += 1
            plan.on_record(self._record(measurement, outer_step))
        return after_step(
            outer_step,
            plan.outer_steps,
            plan.checkpoint_every,
            plan.should_stop(),
            failure,
        )

    def _save(self, outer_step: int, then: Running | Ended) -> Phase:
        folder = self._store.folder(outer_step)
        try:
            parts = self._engine.save(folder)
            if isinstance(parts, Lost):
                return Ended("failed", outer_step, self._lost(parts, outer_step))
            driver = write_part(folder, "driver", to_arrays(self._state))
            totals = {
                "inner_steps": float(self._inner_steps),
                "wall_seconds": self._seconds(),
            }
            manifest = Manifest(
                outer_step, self._plan.digest, totals, driver, tuple(parts)
            )
            self._store.commit(manifest)
        except CheckpointError as error:
            return Ended("failed", outer_step, str(error))
        return then

    def _record(self, seen: Measured, outer_step: int) -> StepRecord:
        self._inner_steps += seen.inner_steps
        return StepRecord(
            outer_step=outer_step,
            inner_steps=self._inner_steps,
            wall_seconds=self._seconds(),
            loss=seen.loss,
            eval_loss=seen.eval_loss,
            gradient_norm=seen.gradient_norm,
            particles=seen.particles,
            extra=seen.extra | {"shards": self._engine.shards},
        )

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._began

    def _diverged(self, outer_step: int, seen: list[Measured]) -> str | None:
        for step, one in enumerate(seen, start=outer_step + 1):
            self._watch = self._watch.after(step, one.diverged)
            failure = self._watch.failure(step, one.diverged, one.pairs)
            if failure is not None:
                return failure
        leaves: list[Any] = jax.tree.leaves(self._state.theta)
        if all(np.all(np.isfinite(np.asarray(leaf))) for leaf in leaves):
            return None
        # In fused steps the first estimate that was not finite tells which it was.
        norms = [one.gradient_norm for one in seen]
        bad = [i for i, norm in enumerate(norms) if norm and not np.isfinite(norm)]
        since = outer_step + 1 + (bad[0] if bad else len(seen) - 1)
        return (
            f"theta is not finite since outer step {since}; lower "
            "outer.optimizer.learning_rate, or set outer.optimizer.clip_norm"
        )

    def _lost(self, lost: Lost, outer_step: int) -> str:
        where = f"shard {lost.shard} at outer step {outer_step + 1}: {lost.reason}"
        return where if lost.user_error else f"{where}; `pes resume` continues the run"
