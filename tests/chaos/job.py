"""A supervised run on a host: its driver can be killed, and its files are read."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.hosts.hosts import Host, inner_pid
from tests.hosts.namespace import await_gone, child

CONFIG = Path(__file__).with_name("job.yaml")
STOP_SECONDS = 30.0
RESTARTED = "pes: the driver"  # How a line of the supervisor's begins.


class Job:
    """A run that is to finish whatever happens.

    Attributes:
        folder: The run's directory.
    """

    def __init__(
        self, folder: Path, overrides: Sequence[str], host: Host, env: dict[str, str]
    ) -> None:
        self.folder, self._log = folder, folder.with_suffix(".log")
        pes = str(Path(sys.executable).parent / "pes")
        argv = [pes, "supervise", str(CONFIG), *overrides, "--run-dir", str(folder)]
        with self._log.open("wb") as output:
            self._supervisor: subprocess.Popen[bytes] = host.start(argv, env, output)

    def check(self) -> None:
        """Raises OSError where the supervisor has given up."""
        status = self._supervisor.poll()
        if status not in (None, 0):
            last = self._log.read_text(errors="replace").strip().splitlines()[-1:]
            raise OSError(f"the supervisor left with status {status}: {last}")

    def driver(self) -> int:
        """The driver's process; there is one but for a moment after its death."""
        return child(inner_pid(self._supervisor))

    def kill_driver(self) -> None:
        """Kills the driver's process as the kernel would that needs its memory."""
        pid = self.driver()
        os.kill(pid, signal.SIGKILL)
        await_gone([pid])

    def stop(self) -> None:
        """Asks the run to stop, and waits until it has."""
        os.kill(inner_pid(self._supervisor), signal.SIGTERM)
        self._supervisor.wait(STOP_SECONDS)

    def restarts(self) -> int:
        """How often the driver was started again."""
        return self._log.read_text(errors="replace").count(RESTARTED)

    def finished(self) -> bool:
        """Whether it has ended well."""
        return self._supervisor.poll() == 0

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
