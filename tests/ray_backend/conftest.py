"""One small Ray for all tests of this folder; its GPUs are pretended."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from pes_cluster.ray_backend.session import embedded

CPUS, GPUS = 4, 2

USER_MODULE = """
import dataclasses
import os
import threading

import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Bowl:
    episode_length: int = 20

    def initial_theta(self, key):
        return jnp.ones(3)

    def init(self, theta, key):
        return jnp.zeros(3)

    def step(self, theta, state, key):
        return 0.9 * state + theta, jnp.sum((state - 1.0) ** 2)


@dataclasses.dataclass(frozen=True)
class Bound(Bowl):
    def init(self, theta, key):
        if "BOUND_DATA" not in os.environ:
            raise FileNotFoundError("/data/bound: is not here")
        return super().init(theta, key)


class Unsendable(Exception):
    def __init__(self, one, other):
        super().__init__(f"{one} {other}")
        self.lock = threading.Lock()


class Simulator:
    episode_length = 20
    host = True

    def initial_theta(self, key):
        return np.ones(3)

    def init(self, theta, key):
        return np.zeros(3)


@dataclasses.dataclass(frozen=True)
class Jammed(Simulator):
    def step(self, theta, state, key):
        raise Unsendable("it is", "jammed")


@dataclasses.dataclass(frozen=True)
class Broken(Simulator):
    def step(self, theta, state, key):
        raise RuntimeError("broken\\nin two")
"""


@pytest.fixture(scope="package", autouse=True)
def own_ray() -> Iterator[None]:
    with embedded(num_cpus=CPUS, num_gpus=GPUS):
        assert ray.cluster_resources()["GPU"] == GPUS
        yield
    assert not ray.is_initialized()


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of the user's that holds two tasks."""
    (tmp_path / "my_tasks.py").write_text(USER_MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_tasks", raising=False)
    return tmp_path
