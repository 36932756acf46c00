"""Three Ray hosts that take jobs, and a user on a host of its own.

```
  head    no CPU; takes jobs at its address, beyond loopback, with a token
  w1, w2  CPUS each, and room for drivers; run directories at /srv/runs, which both see
  client  no Ray, nothing of the shared disk: an address, and a token in a file
```
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.hosts.hosts import DISK, LOCAL, Host, Hosts
from tests.hosts.ray_nodes import ROOT, RayNodes

WORKERS = ("w1", "w2")
CPUS, DRIVERS = 6, 8
RUNS = f"{DISK}/runs"
PATIENCE = 120.0


class Client:
    """A user elsewhere; every command is a process of its own.

    Attributes:
        folder: Its working directory, as seen from outside.
        said: All that any command has printed.
    """

    def __init__(self, host: Host, address: str, token: str, cache: Path) -> None:
        host.run("mount", "-t", "tmpfs", "none", DISK)  # Hides the cluster's.
        host.run("mkdir", "-m", "700", f"{LOCAL}/user")
        self._host, self.folder = host, host.path(f"{LOCAL}/user")
        self.said = ""
        self.write("token", token)
        self._env = {
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": f"{LOCAL}/user",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(cache),
            "PES_ADDRESS": address,
        }

    def write(self, name: str, text: str, mode: int = 0o600) -> None:
        """Writes a file into the working directory."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)

    def pes(self, *words: object, token: str = "token", **env: str) -> tuple[int, str]:
        """Runs a command; its status, and what it printed."""
        command = self.start(*words, token=token, **env)
        return command.status(), command.said()

    def start(self, *words: object, token: str = "token", **env: str) -> "Running":
        """Starts a command."""
        env = self._env | env | ({"RAY_AUTH_TOKEN_PATH": token} if token else {})
        python = [sys.executable, "-m", "pes_cluster", *map(str, words)]
        return Running(self, self._host, [f"--chdir={LOCAL}/user", *python], env)

    def curl(self, url: str, method: str = "GET", token: str = "") -> int:
        """The HTTP status of a request without `pes`; the token is a file's."""
        program = (
            "import sys, urllib.request, urllib.error\n"
            "url, method, token = sys.argv[1:]\n"
            "held = open(token).read() if token else ''\n"
            "headers = {'Authorization': f'Bearer {held}'} if held else {}\n"
            "body = b'{\"entrypoint\": \"true\"}' if method == 'POST' else None\n"
            "ask = urllib.request.Request(url, body, headers, method=method)\n"
            "try: print(urllib.request.urlopen(ask, timeout=10).status)\n"
            "except urllib.error.HTTPError as error: print(error.code)\n"
        )
        path = f"{LOCAL}/user/{token}" if token else ""
        return int(self._host.run(sys.executable, "-c", program, url, method, path))


class Running:
    """A command that runs; what it prints is read as it comes."""

    def __init__(
        self, client: Client, host: Host, argv: list[str], env: dict[str, str]
    ) -> None:
        self._client = client
        self._log = client.folder.parent / f"command_{time.monotonic_ns()}.log"
        self._counted = False
        with self._log.open("wb") as output:
            self._process = host.start(["env", *argv], env, output)

    def said(self) -> str:
        """What it has printed so far."""
        return self._log.read_text(errors="replace")

    def status(self, seconds: float = PATIENCE) -> int:
        """Waits for its end; returns its exit status."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"{self._process.args}: {self.said()!r}") from None
        if not self._counted:
            self._client.said += self.said()
            self._counted = True
        assert "Traceback" not in self.said(), self.said()
        return code


class Scene:
    """The hosts, their Ray, and the client; a context manager."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder = folder
        with contextlib.ExitStack() as stack:
            names = ["head", *WORKERS, "client"]
            self.hosts = stack.enter_context(Hosts(names, disk_mb=256))
            self.nodes = RayNodes(self.hosts, folder, cache)
            self.runs = self.hosts.disk() / "runs"
            self.runs.mkdir()
            self.nodes.start_head("head", dashboard=True, PES_RUNS=RUNS)
            self.nodes.await_started("head")
            for worker in WORKERS:
                self.start_worker(worker)
            self.nodes.await_started(*WORKERS)
            self.token = (self.hosts.disk() / "token").read_text()
            host = self.hosts["client"]
            self.client = Client(host, self.nodes.board, self.token, cache)
            self._stack = stack.pop_all()

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start_worker(self, host: str) -> None:
        """Starts Ray on a worker's host."""
        self.nodes.start_worker(host, CPUS, DRIVERS, PES_RUNS=RUNS)

    def drivers(self, name: str, host: str) -> list[int]:
        """The processes on a host that belong to a job's supervisor or driver."""
        return self.hosts[host].pids(f"{RUNS}/{name}")

    def supervisors(self, name: str, host: str) -> list[int]:
        """The supervisor of a job, if it is on that host."""
        return self.hosts[host].pids(f"pes_cluster job {name}")

    def everybody(self) -> list[int]:
        """All processes of all hosts."""
        return [pid for host in self.hosts if host.up for pid in host.pids()]


def soon(happens: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether it happens within so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if happens():
            return True
        time.sleep(0.2)
    return False
