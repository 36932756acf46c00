"""One cluster for all tests of this folder, and a look at every command line."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster_test.scene import Scene
from tests.hosts.hosts import lacking


class Overseer:
    """Looks for a word in the command lines of all processes, all the time.

    Attributes:
        looks: How often it has looked.
        seen: The command lines that had it.
    """

    def __init__(self, scene: Scene, word: str) -> None:
        self._scene, self._word = scene, word.encode()
        self.looks, self.seen = 0, set[bytes]()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def close(self) -> None:
        """Ends the looking."""
        self._closed.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._closed.wait(0.2):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_bytes()
                except OSError:
                    continue
                if self._word in line:
                    self.seen.add(line)
            self.looks += 1


@pytest.fixture(scope="package")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Three hosts that take jobs, and a client."""
    reason = lacking()
    if reason:
        pytest.skip(reason)
    began = time.monotonic()
    cache = tmp_path_factory.mktemp("compiled")
    with Scene(tmp_path_factory.mktemp("cluster"), cache) as made:
        print(f"the cluster took {time.monotonic() - began:.1f} s")
        yield made


@pytest.fixture(scope="package", autouse=True)
def overseer(scene: Scene) -> Iterator[Overseer]:
    """Somebody who looks for the token from the first test on."""
    made = Overseer(scene, scene.token)
    yield made
    made.close()
