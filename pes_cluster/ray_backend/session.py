"""Ray for the length of a run: one of our own on this machine, or one that is there.

The driver itself computes on the CPU: a GPU belongs to the shards, and JAX would take
most of its memory at the first import.
"""

import contextlib
import functools
import logging
import os
import secrets
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray._private import accelerators
from ray._raylet import Config  # pyright: ignore[reportAttributeAccessIssue]
from ray.exceptions import RayError

from pes_cluster.cluster.settings import ClusterSettings
from pes_cluster.ray_backend import endpoint
from pes_cluster.ray_backend.room import Offer, lacking


class RayStartError(ValueError):
    """Ray cannot be started or reached, or cannot hold the shards; one line.

    It begins with the key of the `cluster` section that is at stake.
    """


@contextlib.contextmanager
def session(settings: ClusterSettings) -> Iterator[None]:
    """A Ray to run on: the one that RAY_ADDRESS names (inside a job), or our own.

    Raises:
        RayStartError: Ray cannot be started or reached, or would be too small.
    """
    _leave_gpus_to_shards()
    if ray.is_initialized():
        yield  # Whoever started it also ends it.
        return
    address = os.environ.get("RAY_ADDRESS")
    if address:
        with connect(address):
            yield
        return
    cores = len(os.sched_getaffinity(0))
    wanted = (settings.shards or 0) * settings.per_shard.num_cpus
    given = max(cores, -(-wanted // 1))
    # To start Ray takes seconds, and what there is is known before.
    labels = settings.per_shard.labels  # Ray alone knows them, once it has started.
    here = Offer("here", {"CPU": given, "GPU": _gpus()}, labels)
    line = lacking(settings, [here])
    if line is not None:
        raise RayStartError(line)
    with embedded(given):
        yield


@contextlib.contextmanager
def embedded(
    num_cpus: float | None = None, num_gpus: float | None = None
) -> Iterator[None]:
    """Starts Ray on this machine's loopback, with a token of its own; ends it after.

    Args:
        num_cpus: CPUs that Ray may hand out; by default this machine's.
        num_gpus: GPUs that Ray may hand out; by default this machine's.

    Raises:
        RayStartError: Ray does not start.
    """
    _use_token()
    _leave_gpus_to_shards()
    with _environment(_quiet()):
        _init(
            "local",
            num_cpus=None if num_cpus is None else int(num_cpus),
            num_gpus=num_gpus,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
        )
        try:
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def connect(address: str) -> Iterator[None]:
    """Joins a running cluster; leaves it running.

    Raises:
        RayStartError: The cluster cannot be reached, or anybody can use it.
    """
    with _environment(_quiet()):
        board = _init(address).address_info["webui_url"]
        try:
            line = endpoint.exposed(f"http://{board}" if board else None)
            if line is not None:
                raise RayStartError(f"pool: the cluster's dashboard at {board} {line}")
            yield
        finally:
            ray.shutdown()


def _init(address: str, **options: Any) -> Any:
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ray.init(
                address=address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **options,
            )
    except (RayError, ConnectionError, RuntimeError, ValueError, OSError) as error:
        line = " ".join(str(error).split())
        if "Version mismatch" in line:
            line += " (all nodes need the same Ray and the same Python)"
        raise RayStartError(
            f"pool: Ray at {address!r} cannot be used: {line}"
        ) from None
    finally:
        # Ray's own handler exits on the spot; a run stops at a step boundary instead.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _gpus() -> float:
    """This machine's GPUs, as Ray will count them.

    Ray has no public call for it. Where this private one should be gone, all is well
    until Ray has started.
    """
    find = getattr(accelerators, "get_accelerator_manager_for_resource", None)
    return 1e9 if find is None else find("GPU").get_current_node_num_accelerators()


def _leave_gpus_to_shards() -> None:
    import jax  # Who only asks or reports does not compute, and need not load it.

    # Before any array exists, else without effect.
    jax.config.update("jax_platforms", "cpu")


def _quiet() -> dict[str, str]:
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # Ray's workers run at nice 15 otherwise.
        "RAY_DISABLE_IMPORT_WARNING": "1",
    }


@functools.cache
def _use_token() -> None:
    """Turns on token authentication, with a token of this process that only it knows.

    Stays on for the life of the process: Ray's threads go on reading both.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    path = Path(_token_folder().name) / "token"
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    # Ray read its environment when it was imported; this is how `ray.init` itself
    # makes it read again (ray/_private/authentication/authentication_token_setup.py).
    Config.initialize("")


@functools.cache
def _token_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="pes_cluster_")  # Mode 700.


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
