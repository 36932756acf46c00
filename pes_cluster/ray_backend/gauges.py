"""A run's gauges in Ray's metrics: `ray_pes_cluster_...` on the port of its node.

Ray forgets a gauge that was not set for a report interval (10 s), and a run may be
silent for longer: so a thread sets all of them, and a step only leaves its record.
"""

import threading
import time

from ray.util.metrics import Gauge

from pes_cluster.cluster import telemetry
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.telemetry import GAUGES, PREFIX, Readings
from pes_cluster.metrics.record import StepRecord

PERIOD = 2.0  # Seconds between two settings.


class Gauges:
    """Tells Ray how a run stands, until it is closed."""

    def __init__(self, run: str, outer_steps: int, staleness: int) -> None:
        self._gauges = {
            gauge.name: Gauge(
                PREFIX + gauge.name, gauge.meaning, ("run",)
            ).set_default_tags({"run": run})
            for gauge in GAUGES
        }
        self._readings = Readings(outer_steps, staleness, time.time())
        self._told: StepRecord | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._set()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def on_record(self, record: StepRecord) -> None:
        """Takes note of an outer step."""
        with self._lock:
            self._readings = telemetry.after_record(self._readings, record)

    def on_event(self, event: Event) -> None:
        """Takes note of what befell the run."""
        with self._lock:
            self._readings = telemetry.after_event(self._readings, event)

    def close(self) -> None:
        """Tells the last."""
        self._closed.set()
        self._thread.join(timeout=2 * PERIOD)
        self._set()

    def _serve(self) -> None:
        while not self._closed.wait(PERIOD):
            self._set()

    def _set(self) -> None:
        with self._lock:
            self._readings = telemetry.timed(self._readings, self._told)
            self._told = self._readings.record
            readings = self._readings
        for name, value in telemetry.values(readings, time.time()).items():
            self._gauges[name].set(value)
