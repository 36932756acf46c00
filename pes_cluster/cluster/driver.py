"""The driver: theta, the optimiser's state, and the way from one phase to the next."""

import functools
import logging
import time
from typing import Any

import jax
import numpy as np

from pes_cluster import outer
from pes_cluster.cluster.checkpoint import (
    Checkpoint,
    CheckpointStore,
    OtherRunError,
    check_fit,
    write_part,
)
from pes_cluster.cluster.commands import Commands
from pes_cluster.cluster.engine import Engine, Measured
from pes_cluster.cluster.events import Event, Field
from pes_cluster.cluster.leaves import LeavesError, from_arrays, to_arrays
from pes_cluster.cluster.ledger import Ledger, Shards
from pes_cluster.cluster.manifest import MANIFEST, Manifest, Part
from pes_cluster.cluster.phases import (
    Attempt,
    Ended,
    Phase,
    Running,
    Saving,
    Starting,
    after_loss,
    after_lost_scale,
    after_refused_save,
    after_step,
    checkpoint_due,
)
from pes_cluster.cluster.plan import Outcome, Plan
from pes_cluster.cluster.pool import Lost
from pes_cluster.cluster.storage import CheckpointError
from pes_cluster.core.task import Theta

_log = logging.getLogger(__name__)


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
        self._first = functools.partial(outer.start, optimizer, theta, plan.staleness)
        self._state = self._first()
        self._watch = plan.watch
        self._ledger = Ledger()
        self._commands = Commands(plan.commands, engine, plan.on_event)
        self._outer_step = 0
        self._attempt = Attempt(time.monotonic())
        self._falls = 0  # Since the last durable checkpoint.

    def run(self) -> Outcome:
        """Goes from phase to phase, from the newest checkpoint, until the run ends."""
        phase: Phase = Starting()
        while not isinstance(phase, Ended):
            phase = self._next(phase)
        self._commands.end(self._outer_step, phase.error or f"the run {phase.status}")
        self._tell(phase.status, **({"reason": phase.error} if phase.error else {}))
        return Outcome(
            status=phase.status,
            theta=jax.tree.map(np.asarray, self._state.theta),
            outer_step=phase.outer_step,
            inner_steps=self._ledger.inner_steps,
            wall_seconds=self._ledger.seconds(),
            error=phase.error,
            resumable=phase.resumable,
        )

    def _next(self, phase: Phase) -> Phase:
        match phase:
            case Starting():
                return self._start(phase)
            case Running(outer_step):
                return self._step(outer_step)
            case Saving():
                return self._save(phase)
            case Ended():
                return phase

    def _start(self, phase: Starting) -> Phase:
        try:
            checkpoint, refused = self._store.latest(self._check)
        except OtherRunError as error:
            return Ended("failed", self._outer_step, str(error))
        except CheckpointError as error:
            return Ended("failed", self._outer_step, str(error), resumable=True)
        if refused and checkpoint is None:
            return Ended("failed", self._outer_step, f"{refused[0]}; there is no other")
        for reason in refused:
            _log.warning("%s; an older checkpoint is used", reason)
        done = checkpoint.manifest.outer_step if checkpoint else 0
        particles = checkpoint.manifest.num_particles if checkpoint else None
        if particles != self._commands.particles and phase.fell_back is not None:
            error = f"{phase.fell_back}; the newest checkpoint is from before scaling"
            return Ended("failed", self._outer_step, error, resumable=True)
        try:
            lost = self._restore(checkpoint, particles, done)
        except LeavesError as error:
            where = f"{self._store.folder(done)}/{MANIFEST}"
            return Ended("failed", done, f"{where}: cannot be continued: {error}")
        if lost is not None:
            return self._after_loss(lost, done)
        self._go_on_from(checkpoint, phase.fell_back)
        if done >= self._plan.outer_steps:
            return Ended("finished", done)
        return Running(done)

    def _restore(
        self, checkpoint: Checkpoint | None, particles: int | None, done: int
    ) -> Lost | None:
        """Hands out the blocks, to the number of particles that they are of."""
        if particles != self._commands.particles:
            try:
                self._engine.scale(particles=particles, shards=None, outer_step=done)
            except ValueError as error:
                raise LeavesError(str(error)) from None
            self._commands.particles = particles
        return self._engine.restore(checkpoint.blocks if checkpoint else None, done)

    def _check(self, checkpoint: Checkpoint) -> None:
        """Refuses a checkpoint that is whole, but not this run's."""
        if checkpoint.manifest.digest != self._plan.digest:
            raise OtherRunError(
                f"{checkpoint.folder}: is of another run, or of another version's; "
                "choose another checkpoint.path"
            )
        check_fit(checkpoint, self._first(), self._plan.block)

    def _go_on_from(self, checkpoint: Checkpoint | None, fell_back: str | None) -> None:
        """Takes theta and the totals as they were, and says where the run goes on."""
        before, again = self._outer_step, self._ledger.begun
        self._outer_step, self._state = 0, self._first()
        totals: dict[str, float] = {}
        records: tuple[str, ...] = ()
        if checkpoint is not None:
            manifest = checkpoint.manifest
            totals, records = manifest.totals, manifest.records
            self._outer_step = manifest.outer_step
            self._state = from_arrays(self._state, checkpoint.driver)
        self._watch = self._plan.watch.go_on_from(totals)
        self._plan.on_rewind(self._outer_step, records)
        self._ledger.go_on_from(totals)
        if fell_back is not None:
            _log.warning("%s; back to outer step %d", fell_back, self._outer_step)
            dropped = max(before - self._outer_step, 0)
            self._tell("fell_back", reason=fell_back, dropped=dropped)
        if not again:
            kind = "started" if checkpoint is None else "resumed"
            if checkpoint is not None:
                _log.info("continuing after outer step %d", self._outer_step)
            self._tell(kind, shards=self._engine.shards)

    def _step(self, outer_step: int) -> Phase:
        plan = self._plan
        border = (outer_step // plan.checkpoint_every + 1) * plan.checkpoint_every
        limit = min(border, plan.outer_steps) - outer_step
        advanced = self._engine.advance(self._state, outer_step, limit)
        self._relay()
        if isinstance(advanced, Lost):
            return self._after_loss(advanced, outer_step)
        self._state, seen = advanced
        for one in seen:
            self._outer_step += 1
            shards = Shards(self._engine.shards, self._engine.shards_target)
            plan.on_record(self._ledger.record(self._outer_step, one, shards))
        failure = self._diverged(outer_step, seen)
        if failure is None and self._outer_step < plan.outer_steps:
            lost = self._commands.obey(self._outer_step)
            if lost is not None:
                return after_lost_scale(lost, self._outer_step)
        return after_step(
            self._outer_step,
            plan.outer_steps,
            self._commands.unsaved or self._checkpoint_due(),
            self._commands.stop or plan.should_stop(),
            failure,
        )

    def _diverged(self, outer_step: int, seen: list[Measured]) -> str | None:
        """Why steps that followed `outer_step` are the last, if they are."""
        self._watch, failure = self._watch.over(outer_step, seen)
        return failure or not_finite(self._state.theta, outer_step, seen)

    def _checkpoint_due(self) -> bool:
        return checkpoint_due(
            self._outer_step,
            self._plan.checkpoint_every,
            self._plan.checkpoint_minutes,
            self._attempt,
            time.monotonic(),
            self._engine.notice(),
        )

    def _after_loss(self, lost: Lost, outer_step: int) -> Phase:
        phase = after_loss(lost, outer_step, self._falls)
        if isinstance(phase, Starting):
            self._falls += 1
        return phase

    def _save(self, saving: Saving) -> Phase:
        began, notice = time.monotonic(), self._engine.notice()
        try:
            parts = self._engine.save(self._store.folder(saving.outer_step))
            self._relay()
            if isinstance(parts, Lost):
                return self._after_loss(parts, saving.outer_step)
            size = self._commit(saving.outer_step, parts)
        except CheckpointError as error:
            self._attempt = Attempt(time.monotonic(), written=False, notice=notice)
            self._store.discard(saving.outer_step)
            _log.warning("checkpoint failed: %s", error)
            self._tell("checkpoint_failed", reason=str(error))
            if isinstance(saving.then, Running):
                self._commands.keep(f"; no checkpoint holds it yet: {error}")
            return after_refused_save(saving, str(error))
        self._attempt = Attempt(time.monotonic(), notice=notice)
        self._falls = 0
        self._engine.saved()
        self._commands.keep()
        seconds = round(self._attempt.time - began, 4)
        self._tell("checkpoint", seconds=seconds, bytes=size)
        return saving.then

    def _commit(self, outer_step: int, parts: list[Part]) -> int:
        """Makes the parts a checkpoint; returns its size in bytes."""
        folder = self._store.folder(outer_step)
        driver = write_part(folder, "driver", to_arrays(self._state))
        manifest = Manifest(
            outer_step=outer_step,
            digest=self._plan.digest,
            totals=self._ledger.totals() | self._watch.totals(),
            driver=driver,
            parts=tuple(parts),
            num_particles=self._commands.particles,
            records=self._plan.settle(),
        )
        self._store.commit(manifest)
        return sum(part.size for part in (driver, *parts))

    def _tell(self, kind: str, **fields: Field) -> None:
        """Passes on an event of the driver's own, after the shards' that led to it."""
        self._relay()
        self._plan.on_event(Event(kind, self._outer_step, fields))

    def _relay(self) -> None:
        """Passes on what befell the shards."""
        for event in self._engine.events():
            self._ledger.count(event)
            self._plan.on_event(event)


def not_finite(theta: Theta, outer_step: int, seen: list[Measured]) -> str | None:
    """Says since when theta is not finite, after steps that followed `outer_step`."""
    leaves: list[Any] = jax.tree.leaves(theta)
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
