"""What all tests share; the environment is set before JAX or Ray is imported."""

import os
import time
from collections.abc import Iterator

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

PATIENCE = 30.0  # Seconds that a child process may take to end after the last test.


def children() -> list[str]:
    """The command lines of this process's living children (where there is /proc)."""
    found = []
    for listed in Path("/proc/self/task").glob("*/children"):
        for pid in listed.read_text().split():
            try:
                line = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue  # It ended meanwhile.
            if line:  # A zombie has none.
                found.append(f"{pid} {line.replace(bytes(1), b' ').decode()}")
    return found


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps a file's tests in one process, which has compiled for them; and Ray's."""
    for item in items:
        group = "ray" if item.get_closest_marker("ray") else item.path.name
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(trylast=True)  # After the processes that ran the tests were ended.
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the session when a test left a process behind."""
    deadline = time.monotonic() + PATIENCE
    while (left := children()) and time.monotonic() < deadline:
        time.sleep(0.2)
    if left:
        print("\nprocesses that tests left behind:", *left, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the data sets that are not in the repository."""
    named = os.environ.get("PES_DATA_DIR")
    if not named or not Path(named).is_dir():
        pytest.skip("no data sets: PES_DATA_DIR names no folder")
    return Path(named)


@pytest.fixture(scope="session")
def test_seed() -> int:
    """The seed of the tests that draw one."""
    return int(os.environ.get("PES_TEST_SEED", "0"))


CACHE = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture(scope="session", autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One compilation cache for all tests: many build the same programs."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    chosen = CACHE | {"jax_compilation_cache_dir": folder}
    before = {name: getattr(jax.config, name) for name in chosen}
    for name, value in chosen.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
