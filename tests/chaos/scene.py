"""Four workers, a head, a driver: one run's cluster, and those who look after it.

What an operator or a machine's init system would do is done here too: a node whose Ray
ended is started again, a host that crashed is booted.
"""

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.chaos.job import Job
from tests.hosts import redis
from tests.hosts.hosts import DISK, Hosts
from tests.hosts.ray_nodes import RayNodes

WORKERS = ("w1", "w2", "w3", "w4")
SHARDS = 4  # As in job.yaml.
CPUS = 2  # Of a worker: two workers can be away and four shards still have a place.
CHECKPOINTS = "checkpoints"  # On the disk that all hosts see.


class Scene:
    """One run's hosts, Ray and driver; a context manager.

    Attributes:
        afflicted: What a fault has struck that is not over yet.
    """

    def __init__(
        self, folder: Path, cache: Path, with_redis: bool, disk_mb: int = 256
    ) -> None:
        """Powers the hosts and starts Ray on them.

        Args:
            folder: For the run and all logs.
            cache: For compiled programs.
            with_redis: Whether the head is to survive the loss of its host.
            disk_mb: Size of the disk that the checkpoints lie on.
        """
        folder.mkdir(parents=True)
        self._folder = folder
        self.afflicted: set[str] = set()
        self._head_env: dict[str, str] = {}
        names = ["head", "driver", *WORKERS, *(["redis"] if with_redis else [])]
        with contextlib.ExitStack() as stack:
            self.hosts = stack.enter_context(Hosts(names, disk_mb))
            self.nodes = RayNodes(self.hosts, folder, cache)
            if with_redis:
                self._head_env = redis.start(self.hosts["redis"])
            self._start_ray()
            self._stack = stack.pop_all()

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self.keep_logs()
        self._stack.close()

    def start_job(self, overrides: Sequence[str] = ()) -> None:
        """Starts the run, under its supervisor."""
        env = self.nodes.env | {"RAY_ADDRESS": self.nodes.address}
        words = [f"checkpoint.path={DISK}/{CHECKPOINTS}", *overrides]
        self.job = Job(self._folder / "run", words, self.hosts["driver"], env)

    def tend(self) -> None:
        """Starts again what ended and should run."""
        self.job.check()
        for node in list(self.nodes.nodes.values()):
            if self.hosts[node.host].up and node.process.poll() is not None:
                self.start_node(node.host)

    def start_node(self, host: str) -> None:
        """Starts Ray on a host, in the role that it had."""
        if host == "head":
            self.nodes.start_head("head", **self._head_env)
        else:
            self.nodes.start_worker(host, CPUS if host in WORKERS else 0)

    def forget_head(self) -> None:
        """Lets the next head begin with nothing."""
        self._head_env = {}

    def boot(self, host: str) -> None:
        """Powers a host and starts Ray on it."""
        self.hosts.boot(host)
        self.start_node(host)

    def mend(self) -> None:
        """Ends whatever may still be wrong with links, processes and the disk."""
        self.afflicted.clear()
        self.hosts.free_disk()
        for host in self.hosts:
            if host.up:
                host.heal()
                host.resume()
            else:
                self.boot(host.name)

    @property
    def checkpoints(self) -> Path:
        """Where the run's checkpoints lie, as seen from outside."""
        return self.hosts.disk() / CHECKPOINTS

    def manifests(self) -> list[Path]:
        """Those of the checkpoints, oldest first."""
        return sorted(self.checkpoints.glob("step_*/manifest.json"))

    def megabytes(self) -> float:
        """State a shard, as in the newest checkpoint; 0 where there is none."""
        parts = [
            part.stat().st_size
            for manifest in self.manifests()[-1:]
            for part in manifest.parent.glob("*.npz")
            if not part.name.startswith("driver")
        ]
        return sum(parts) / SHARDS / 1e6

    def present(self) -> list[str]:
        """Workers that nothing ails and whose Ray says that it runs."""
        well = [w for w in WORKERS if w not in self.afflicted and self.hosts[w].up]
        return [worker for worker in well if self.nodes.started(worker)]

    def with_shards(self) -> list[str]:
        """Workers that hold shards."""
        return [worker for worker in self.present() if self.nodes.shards(worker)]

    def whole(self) -> bool:
        """Whether every worker is there, and every shard."""
        if len(self.present()) < len(WORKERS):
            return False
        return sum(len(self.nodes.shards(worker)) for worker in WORKERS) == SHARDS

    def _start_ray(self) -> None:
        self.start_node("head")
        self.nodes.await_started("head")
        for host in ("driver", *WORKERS):
            self.start_node(host)
        self.nodes.await_started("driver", *WORKERS)

    def keep_logs(self) -> None:
        """Copies what Ray wrote on hosts that still stand, for whoever looks why."""
        for host in self.hosts:
            if not host.up:
                continue
            link = host.path("/run/ray/session_latest")
            if link.is_symlink():
                # The link names a path of the host, not one of this machine.
                shutil.copytree(
                    host.path(f"{os.readlink(link)}/logs"),
                    self._folder / f"ray_logs_{host.name}",
                    ignore_dangling_symlinks=True,
                )
