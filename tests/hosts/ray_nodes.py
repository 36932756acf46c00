"""Ray on the hosts: a head, workers, and a node for the driver.

Token authentication is on, with a token that the hosts read from their shared disk; the
failure of a silent host is noticed within about 4 s by the settings in `HEALTH`.
"""

import dataclasses
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pes_cluster.ray_backend.environment import DRIVER
from pes_cluster.ray_backend.health import HEALTH
from tests.hosts.hosts import DISK, LOCAL, Hosts, inner_pid

ROOT = Path(__file__).resolve().parents[2]
PORT, BOARD = 6379, 8265
START_SECONDS = 60.0
STARTED = b"Ray runtime started"
TOKEN = f"{DISK}/token"


@dataclasses.dataclass
class Node:
    """A Ray node: `ray start --block` on a host."""

    host: str
    process: subprocess.Popen[bytes]
    log: Path


class RayNodes:
    """The Ray nodes of some hosts.

    Attributes:
        env: The environment of a process that is to use Ray on a host.
        address: Of the cluster, once there is a head.
        board: Where it takes jobs, if its head has a dashboard.
    """

    def __init__(self, hosts: Hosts, logs: Path, cache: Path) -> None:
        """Writes the token.

        Args:
            hosts: Where nodes are to run.
            logs: Folder for what the nodes print.
            cache: Folder of compiled programs that all hosts may share.
        """
        self._hosts, self._logs = hosts, logs
        self.nodes: dict[str, Node] = {}
        self.env = environment(cache)
        token = hosts.disk() / "token"
        with open(os.open(token, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(secrets.token_hex(32))

    def start_head(
        self,
        host: str = "head",
        dashboard: bool = False,
        flags: Sequence[str] = (),
        **env: str,
    ) -> Node:
        """Starts the head, with no CPU for anybody's work.

        Args:
            host: Where.
            dashboard: Whether jobs are taken, from the other hosts too.
            flags: Of `ray start`, besides.
            env: Of its processes, besides what all nodes have.
        """
        ip = self._hosts[host].ip
        self.address, self.board = f"{ip}:{PORT}", f"http://{ip}:{BOARD}"
        flags = ["--head", f"--port={PORT}", *flags]
        if dashboard:
            flags += [f"--dashboard-host={ip}", f"--dashboard-port={BOARD}"]
        else:
            flags += ["--include-dashboard=false"]
        return self._start(host, 0, flags, env)

    def start_worker(
        self, host: str, num_cpus: int, drivers: int = 0, **env: str
    ) -> Node:
        """Starts a node that joins the head, and may hold so many jobs' drivers."""
        flags = [f"--address={self.address}"]
        if drivers:
            flags += [f"--resources={json.dumps({DRIVER: drivers})}"]
        return self._start(host, num_cpus, flags, env)

    def await_started(self, *hosts: str, seconds: float = START_SECONDS) -> None:
        """Returns once the nodes of these hosts say that they run.

        Raises:
            OSError: One ended, or said nothing in time; with what it printed last.
        """
        deadline = time.monotonic() + seconds
        for node in (self.nodes[host] for host in hosts):
            while not self.started(node.host):
                if node.process.poll() is not None or time.monotonic() > deadline:
                    last = node.log.read_text(errors="replace")[-2000:]
                    raise OSError(f"no Ray node on {node.host}: {last}")
                time.sleep(0.05)

    def started(self, host: str) -> bool:
        """Whether the host's node says that it runs, and does."""
        node = self.nodes[host]
        return node.process.poll() is None and STARTED in node.log.read_bytes()

    def raylets(self, host: str) -> list[int]:
        """The raylet's process; none where it has died."""
        return self._hosts[host].pids("raylet/raylet ")

    def shards(self, host: str) -> list[int]:
        """The processes of the shards on a host."""
        return self._hosts[host].pids("ray::Shard")

    def notify(self, host: str) -> None:
        """Gives notice: a SIGTERM, upon which the node drains before it ends."""
        os.kill(inner_pid(self.nodes[host].process), signal.SIGTERM)

    def _start(
        self, host: str, num_cpus: int, flags: list[str], env: dict[str, str]
    ) -> Node:
        log = self._logs / f"ray_{host}_{len(list(self._logs.glob('ray_*')))}.log"
        start = [
            str(Path(sys.executable).parent / "ray"),
            "start",
            *flags,
            f"--node-ip-address={self._hosts[host].ip}",
            f"--num-cpus={num_cpus}",
            "--object-store-memory=100000000",
            "--disable-usage-stats",
            "--block",
        ]
        with log.open("wb") as output:
            process = self._hosts[host].start(start, self.env | env, output)
        self.nodes[host] = Node(host, process, log)
        return self.nodes[host]


def environment(cache: Path) -> dict[str, str]:
    """What a process on a host may know of this machine, and how Ray is to behave."""
    return HEALTH | {
        "PATH": f"{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": LOCAL,
        "TMPDIR": LOCAL,
        "RAY_TMPDIR": LOCAL,
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
    }
