"""What a run has cost and suffered so far, over all its sittings."""

import time
from typing import NamedTuple

from pes_cluster.cluster.engine import Measured
from pes_cluster.cluster.events import Event
from pes_cluster.metrics.record import StepRecord


class Shards(NamedTuple):
    """How many shards own blocks, and how many are aimed at."""

    alive: int
    target: int


class Ledger:
    """Keeps the totals, and makes the records that show them.

    Inner steps belong to theta: a run that goes back has them charged again. Time and
    losses do not go back.

    Attributes:
        inner_steps: Charged so far.
        begun: Whether this sitting has begun to make steps.
    """

    def __init__(self) -> None:
        self.inner_steps, self.begun = 0, False
        self._recovered = self._replayed = 0
        self._seconds_before = 0.0
        self._began = time.monotonic()

    def go_on_from(self, totals: dict[str, float]) -> None:
        """Goes back to a checkpoint's totals; the first time, another sitting's."""
        self.inner_steps = int(totals.get("inner_steps", 0))
        if not self.begun:
            self._recovered += int(totals.get("recovered", 0))
            self._replayed += int(totals.get("replayed", 0))
            self._seconds_before = totals.get("wall_seconds", 0.0)
        self.begun = True

    def count(self, event: Event) -> None:
        """Takes note of what befell the shards."""
        if event.kind == "recovered":
            self._recovered += 1
            self._replayed += int(event.fields.get("replayed", 0))

    def record(self, outer_step: int, seen: Measured, shards: Shards) -> StepRecord:
        """Charges an outer step and returns its record."""
        self.inner_steps += seen.inner_steps
        cluster = {
            "shards": shards.alive,
            "shards_target": shards.target,
            "recovered": self._recovered,
            "replayed": self._replayed,
        }
        return StepRecord(
            outer_step=outer_step,
            inner_steps=self.inner_steps,
            wall_seconds=self.seconds(),
            loss=seen.loss,
            eval_loss=seen.eval_loss,
            gradient_norm=seen.gradient_norm,
            particles=seen.particles,
            extra=seen.extra | cluster,
        )

    def totals(self) -> dict[str, float]:
        """What a checkpoint keeps; `go_on_from` takes it back."""
        return {
            "inner_steps": float(self.inner_steps),
            "recovered": float(self._recovered),
            "replayed": float(self._replayed),
            "wall_seconds": self.seconds(),
        }

    def seconds(self) -> float:
        """Wall time so far."""
        return self._seconds_before + time.monotonic() - self._began
