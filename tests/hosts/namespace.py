"""A process tree with a network, mounts and process numbers of its own.

Its PID 1 waits for the end of a pipe that only this process holds. When this process
goes, by whatever means, the pipe ends, PID 1 goes, and the kernel ends all that lived
there: processes, interfaces, mounts. So nothing can be left behind.
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

KINDS = ("--net", "--mount", "--uts", "--ipc", "--pid")
PATIENCE = 20.0  # Seconds for a namespace to stand, or for its processes to be gone.

# `wait` also reaps the orphans that PID 1 inherits; `cat` ends with the pipe.
HOLD = "echo ready; exec 3<&0; cat <&3 >/dev/null & wait $!"


class Namespace:
    """PID 1, and everything that lives and dies with it.

    Attributes:
        init: Its PID 1, as seen from outside.
    """

    def __init__(self, setup: str, inside: "Namespace | None" = None) -> None:
        """Enters a new namespace, runs shell commands there, and stays.

        Args:
            setup: Commands, one a line; the first that fails is an error.
            inside: The namespace that it is nested in; it ends with that one.
        """
        outer = inside.entering() if inside else []
        make = ["unshare", *KINDS, "--mount-proc", "--fork", "--kill-child"]
        self._holder = subprocess.Popen(
            [*outer, *make, "sh", "-c", f"set -e\n{setup}\n{HOLD}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._await_ready()
        self.init = child(self._holder.pid)
        if inside:  # `nsenter` forks as well.
            self.init = child(self.init)

    def entering(self, kinds: Sequence[str] = KINDS) -> list[str]:
        """The beginning of a command line that runs a command in here."""
        return ["nsenter", f"--target={self.init}", *kinds, "--"]

    def ip(self, *lines: str) -> None:
        """Gives `ip` commands to this namespace's network."""
        command([*self.entering(["--net"]), "ip", "-batch", "-"], "\n".join(lines))

    def path(self, path: str) -> Path:
        """Where a path of this namespace is found from outside."""
        return Path(f"/proc/{self.init}/root") / path.lstrip("/")

    def pids(self) -> list[int]:
        """All its processes, as numbered outside; not those of namespaces in it."""
        own = _namespace_of(self.init)
        everybody = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        return [pid for pid in everybody if own and _namespace_of(pid) == own]

    def alive(self) -> bool:
        """Whether it still stands."""
        return self._holder.poll() is None

    def end(self) -> None:
        """Kills PID 1 and returns once every process in it is gone."""
        members = self.pids()
        if self.alive():
            os.kill(self.init, signal.SIGKILL)
        self._holder.communicate(timeout=PATIENCE)
        await_gone(members)

    def _await_ready(self) -> None:
        pipe, seen = self._holder.stdout, b""
        assert pipe is not None
        deadline = time.monotonic() + PATIENCE
        while b"ready\n" not in seen:
            ready, _, _ = select.select([pipe], [], [], deadline - time.monotonic())
            more = os.read(pipe.fileno(), 4096) if ready else b""
            seen += more
            if not more:
                self._holder.kill()
                raise OSError(f"no namespace: {seen.decode().strip()}")


def command(argv: Sequence[str], text: str = "") -> str:
    """Runs a short command to its end and returns what it printed.

    Raises:
        OSError: It failed; with what it said.
    """
    done = subprocess.run(
        argv, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    if done.returncode:
        raise OSError(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def child(pid: int) -> int:
    """The first child of a process."""
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def await_gone(pids: Sequence[int]) -> None:
    """Returns once none of the processes runs any more.

    Raises:
        TimeoutError: Naming those that do.
    """
    deadline = time.monotonic() + PATIENCE
    while left := [pid for pid in pids if running(pid)]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {left} are still there")
        time.sleep(0.01)


def running(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def _namespace_of(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None
