"""One run under its faults, from the first step to the last."""

import dataclasses
import time
from collections.abc import Callable

from tests.chaos.faults import Repair, strike
from tests.chaos.measure import Injection, Row, rows
from tests.chaos.scene import Scene
from tests.chaos.schedule import Plan

RUN_SECONDS = 300.0
TICK = 0.03
APART = 5  # Outer steps between a fault that was overcome and the next.
QUIET_SECONDS = (
    3.0  # With every host and shard there, before the next of single faults.
)

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Played:
    """How a run ended.

    Attributes:
        plan: What was to happen.
        rows: What did.
        theta_sha256: The result's hash; None where there is no result.
        seconds: What the run took.
        restarts: How often the driver was started again.
        megabytes: State a shard, as in the last checkpoint.
        failed: Why it did not end as it should.
    """

    plan: Plan
    rows: list[Row]
    theta_sha256: str | None
    seconds: float
    restarts: int
    megabytes: float
    failed: str | None = None


class Play:
    """Strikes when it is time, repairs when it is time, and watches."""

    def __init__(self, scene: Scene, plan: Plan, say: Say) -> None:
        self._scene, self._plan, self._say = scene, plan, say
        self._waiting = list(plan.faults)
        self._repairs: list[tuple[float, Repair]] = []
        self._injections: list[Injection] = []
        self._progress: list[tuple[float, int]] = []
        self._began = self._looked = self._troubled = time.time()

    def run(self) -> Played:
        """Goes on until the job has finished, or cannot."""
        failed = None
        try:
            self._until_finished()
        except (OSError, TimeoutError) as error:
            failed = str(error)
        job = self._scene.job
        return Played(
            self._plan,
            rows(self._injections, job.events(), self._progress),
            None if failed else job.theta_sha256(),
            time.time() - self._began,
            job.restarts(),
            self._scene.megabytes(),
            failed,
        )

    def _until_finished(self) -> None:
        job = self._scene.job
        while not job.finished():
            now = time.time()
            if now > self._began + RUN_SECONDS:
                raise TimeoutError(f"no end after {RUN_SECONDS:g} s")
            self._repair(now)
            self._scene.tend()
            step = job.outer_step()
            self._note(step, now)
            if self._waiting and self._is_time(step, now):
                self._strike(step, now)
            if self._plan.one_by_one and not self._waiting and self._quiet(step, now):
                job.stop()
                return
            time.sleep(TICK)

    def _note(self, step: int, now: float) -> None:
        if not self._progress or step != self._progress[-1][1]:
            self._progress.append((now, step))

    def _is_time(self, step: int, now: float) -> bool:
        if step < self._waiting[0].step:
            return False
        if self._plan.one_by_one:
            return self._quiet(step, now)
        return not self._injections or step >= self._injections[-1].step + APART

    def _quiet(self, step: int, now: float) -> bool:
        """Whether nothing is left of the last fault, for some seconds."""
        if now > self._looked + 1.0:  # Looking costs time that the run could use.
            self._looked = now
            overcome = not self._injections or step > self._injections[-1].step
            if self._repairs or not overcome or not self._scene.whole():
                self._troubled = now
        return now > self._troubled + QUIET_SECONDS

    def _strike(self, step: int, now: float) -> None:
        fault = self._waiting[0]
        struck = strike(self._scene, fault)
        if struck is None:
            return
        del self._waiting[0]
        self._troubled = now
        self._injections.append(Injection(fault.kind, struck.victim, step, now))
        self._repairs.append((now + fault.seconds, struck.repair))
        self._tell(f"step {step}: {fault.kind} ({struck.victim})")

    def _repair(self, now: float) -> None:
        due = [repair for repair in self._repairs if repair[0] <= now]
        for repair in due:
            repair[1]()
            self._repairs.remove(repair)

    def _tell(self, text: str) -> None:
        self._say(f"{self._plan.name:6} {time.time() - self._began:5.0f} s  {text}")
