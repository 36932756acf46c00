"""The driver as a process on a host: started again when it dies, read by its files."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.hosts.hosts import Host, inner_pid

CONFIG = Path(__file__).with_name("job.yaml")
RESTARTS = 10
BACK_OFF = 1.0  # Seconds before the driver is started again.
STOP_SECONDS = 30.0


class Job:
    """A run that is to finish whatever happens.

    Attributes:
        folder: The run's directory.
        restarts: How often the driver was started again.
    """

    def __init__(
        self, folder: Path, overrides: Sequence[str], host: Host, env: dict[str, str]
    ) -> None:
        self.folder, self._host, self._env = folder, host, env
        self._overrides = list(overrides)
        self.restarts = 0
        self._start()

    def tend(self) -> None:
        """Starts the driver again where it died.

        Raises:
            OSError: It ended for good without finishing.
        """
        status = self._process.poll()
        if status in (None, 0):
            return
        if self.restarts == RESTARTS:
            raise OSError(f"the driver ended {RESTARTS + 1} times, last with {status}")
        time.sleep(BACK_OFF)
        self.restarts += 1
        self._start()

    def driver(self) -> int:
        """The driver's process."""
        return inner_pid(self._process)

    def kill_driver(self) -> None:
        """Kills the driver's process as the kernel would that needs its memory."""
        os.kill(self.driver(), signal.SIGKILL)
        self._process.wait(STOP_SECONDS)

    def stop(self) -> None:
        """Asks the run to stop, and waits until it has."""
        os.kill(self.driver(), signal.SIGTERM)
        self._process.wait(STOP_SECONDS)

    def finished(self) -> bool:
        """Whether it has ended well."""
        return self._process.poll() == 0

    def outer_step(self) -> int:
        """Outer steps done."""
        lines = self._lines("metrics.jsonl")
        return json.loads(lines[-1])["outer_step"] if lines else 0

    def events(self) -> list[dict[str, Any]]:
        """What the run's directory says about losses and recoveries."""
        return [json.loads(line) for line in self._lines("events.jsonl")]

    def theta_sha256(self) -> str:
        """The hash of the result."""
        return json.loads((self.folder / "result.json").read_text())["theta_sha256"]

    def _lines(self, name: str) -> list[str]:
        try:
            lines = (self.folder / name).read_text().split("\n")
        except OSError:
            return []
        return lines[:-1]  # What follows the last line break is still being written.

    def _start(self) -> None:
        pes = str(Path(sys.executable).parent / "pes")
        argv = [pes, "run", str(CONFIG), *self._overrides, "--run-dir", self.folder]
        with self.folder.with_suffix(".log").open("ab") as output:
            self._process: subprocess.Popen[bytes] = self._host.start(
                [str(word) for word in argv], self._env, output
            )
