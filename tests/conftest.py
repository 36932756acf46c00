"""What all tests share; the environment is set before JAX or Ray is imported."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from pathlib import Path  # noqa: E402

import pytest  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of the data sets that are not in the repository."""
    named = os.environ.get("PES_DATA_DIR")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no data sets: PES_DATA_DIR names no folder")
    return folder


@pytest.fixture(scope="session")
def test_seed() -> int:
    """The seed of the tests that draw one."""
    return int(os.environ.get("PES_TEST_SEED", "0"))
