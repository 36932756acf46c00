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

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Played:
    """How a run ended.

    Attributes:
        plan: What was to happen.
        rows: What did.
        theta_sha256: The result's hash.
        seconds: What the run took.
        restarts: How often the driver was started again.
    """

    plan: Plan
    rows: list[Row]
    theta_sha256: str
    seconds: float
    restarts: int


class Play:
    """Strikes when it is time, repairs when it is time, and watches."""

    def __init__(self, scene: Scene, plan: Plan, say: Say) -> None:
        self._scene, self._plan, self._say = scene, plan, say
        self._waiting = list(plan.faults)
        self._repairs: list[tuple[float, Repair, str]] = []
        self._injections: list[Injection] = []
        self._progress: list[tuple[float, int]] = []
        self._began = time.time()

    def run(self) -> Played:
        """Goes on until the job has finished.

        Raises:
            TimeoutError: It does not.
            OSError: It ended otherwise.
        """
        job = self._scene.job
        while not job.finished():
            now = time.time()
            if now > self._began + RUN_SECONDS:
                raise TimeoutError(f"{self._plan.name}: {RUN_SECONDS:g} s, no end")
            self._repair(now)
            self._scene.tend()
            self._watch(job.outer_step())
            time.sleep(TICK)
        return Played(
            self._plan,
            rows(self._injections, job.events(), self._progress),
            job.theta_sha256(),
            time.time() - self._began,
            job.restarts,
        )

    def _watch(self, step: int) -> None:
        now = time.time()
        if not self._progress or step > self._progress[-1][1]:
            self._progress.append((now, step))
        if not self._waiting or step < self._waiting[0].step:
            return
        if self._injections and step < self._injections[-1].step + APART:
            return
        fault = self._waiting[0]
        struck = strike(self._scene, fault)
        if struck is None:
            return
        del self._waiting[0]
        self._injections.append(Injection(fault.kind, struck.victim, step, now))
        self._repairs.append((now + fault.seconds, struck.repair, struck.victim))
        self._tell(f"step {step}: {fault.kind} ({struck.victim})")

    def _repair(self, now: float) -> None:
        due = [repair for repair in self._repairs if repair[0] <= now]
        for repair in due:
            repair[1]()
            self._repairs.remove(repair)

    def _tell(self, text: str) -> None:
        self._say(f"{self._plan.name:6} {time.time() - self._began:5.0f} s  {text}")
