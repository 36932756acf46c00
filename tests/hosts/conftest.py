"""Hosts for the tests that ask for them, where hosts can be made."""

from collections.abc import Iterator

import pytest

from tests.hosts.hosts import Hosts, lacking


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    """Two hosts, `one` and `two`, and a disk of 8 MB."""
    reason = lacking()
    if reason:
        pytest.skip(reason)
    with Hosts(["one", "two"], disk_mb=8) as made:
        yield made
