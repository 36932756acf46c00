"""The Slurm script as it is, over two hosts of our own; Slurm itself is stood in for.

What `srun` is given is started on both hosts, as Slurm would: on the first by the
stand-in, on the second by the test.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy.manifests import ROOT, SLURM_SCRIPT
from tests.hosts.hosts import DISK, Hosts, inner_pid, lacking
from tests.hosts.ray_nodes import environment

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

START_SECONDS = 240.0
STOP_SECONDS = 60.0
LEAVE_SECONDS = 120.0
HOME, RUN = f"{DISK}/home", f"{DISK}/run"
# Its options are words with dashes; the rest is what every node is to run.
SRUN = f"""#!/bin/bash
while [[ $1 == --* ]]; do shift; done
env --null > {DISK}/srun.env
printf '%s\\0' "$@" > {DISK}/srun.new && mv {DISK}/srun.new {DISK}/srun.words
exec "$@"
"""
SCONTROL = f'#!/bin/bash\necho "$@" >> {DISK}/scontrol\n'


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    reason = lacking()
    if reason:
        pytest.skip(reason)
    with Hosts(["one", "two"], disk_mb=256) as made:
        tools = made.disk() / "bin"
        tools.mkdir()
        (made.disk() / "home").mkdir()
        for name, text in {"srun": SRUN, "scontrol": SCONTROL}.items():
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        yield made


def submit(hosts: Hosts, log: Path, cache: Path) -> list[subprocess.Popen[bytes]]:
    """Starts the script on the first host, and its step on the second."""
    words = hosts.disk() / "srun.words"
    words.unlink(missing_ok=True)
    env = {
        name: value
        for name, value in environment(cache).items()
        if not name.startswith(("RAY_AUTH", "RAY_health", "RAY_worker", "RAY_raylet"))
    }
    env |= {
        "HOME": HOME,
        "PATH": f"{DISK}/bin:{env['PATH']}",
        "PES_VENV": sys.prefix,
        "SLURM_JOB_ID": "7",
        "SLURM_NNODES": "2",
        "SLURM_CPUS_PER_TASK": "1",
    }
    config = str(ROOT / "configs" / "digits" / "pes.yaml")
    more = ["run.outer_steps=100000", "run.eval_every=0", "checkpoint.every=100000"]
    command = ["bash", str(SLURM_SCRIPT), config, RUN, *more, "cluster.shards=2"]
    with log.open("ab") as output:
        process = hosts["one"].start(command, env, output)
        until(words.exists, process, log)
        given = (hosts.disk() / "srun.env").read_bytes().rstrip(b"\0").split(b"\0")
        inherited = dict(one.decode().split("=", 1) for one in given if b"=" in one)
        step = words.read_bytes().rstrip(b"\0").split(b"\0")
        other = hosts["two"].start([one.decode() for one in step], inherited, output)
    return [process, other]


def until(
    reached: Callable[[], bool], process: subprocess.Popen[bytes], log: Path
) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not reached():
        said = log.read_text(errors="replace")[-3000:]
        assert process.poll() is None and time.monotonic() < deadline, said
        time.sleep(0.2)


def steps(hosts: Hosts) -> int:
    metrics = hosts.disk() / "run" / "metrics.jsonl"
    return metrics.read_text().count("\n") if metrics.exists() else 0


def test_a_run_saves_when_its_time_is_up_and_goes_on_when_it_is_requeued(
    hosts: Hosts, tmp_path: Path
) -> None:
    log, cache = tmp_path / "log", tmp_path / "cache"
    before = 0
    for sitting in (1, 2):
        process, other = submit(hosts, log, cache)
        until(lambda: steps(hosts) > before + 10, process, log)  # noqa: B023
        # Its shards are on both hosts, and no word of the token in any command line.
        assert all(hosts[name].pids("ray::Shard") for name in ("one", "two"))
        token = hosts.disk() / "home" / ".pes_cluster" / "slurm-7"
        assert token.stat().st_mode & 0o777 == 0o600
        for name in ("one", "two"):
            assert hosts[name].pids(token.read_text().strip()) == []
        os.kill(inner_pid(process), signal.SIGUSR1)
        assert process.wait(STOP_SECONDS) == 130, log.read_text()[-3000:]
        # Slurm waits for it, too: a node gives a head that is gone up after a minute.
        other.wait(LEAVE_SECONDS)
        before = steps(hosts)
        saved = hosts.disk() / "run" / "checkpoints" / f"step_{before:08d}"
        assert saved.is_dir()
        asked = (hosts.disk() / "scontrol").read_text().splitlines()
        assert asked == ["requeue 7"] * sitting
        assert not token.exists()
