"""Where a driver on a cluster says how it stands, and is asked for things.

```text
 pes status, scale --job--> inquiry --ask-----> Post <--exchange-- Mailbox <-- driver
                                   <--status--       (a thread, every 0.25 s)
```

The post is a named actor of the driver, which ends with it. The driver never waits for
it: a thread takes the status there and brings commands back, and the driver looks at
what was brought at its step boundaries. The values are those of `cluster/control.py`.
"""

import contextlib
import dataclasses
import functools
import logging
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pes_cluster.cluster.control import Answer, Asked, CommandError, from_json
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.status import RunStatus, after_event, after_record
from pes_cluster.metrics.record import StepRecord
from pes_cluster.ray_backend.session import connect

if TYPE_CHECKING:
    from pes_cluster.metrics.history import Files

_log = logging.getLogger(__name__)

NAMESPACE = "pes_cluster"
PERIOD = 0.25  # Seconds between two exchanges.
READING = "reading"  # Calls that read files, which may be long: beside the others.
LINGER = 3.0  # For those who ask to fetch their last answers.

_AWAY = (RayError, ConnectionError, RuntimeError, ValueError)


class Post:
    """Keeps the latest status, commands and answers; an actor.

    Args:
        run: The run's name.
        files: Where its history lies, on this node; None: nowhere.
    """

    def __init__(self, run: str = "", files: "Files | None" = None) -> None:
        self._run, self._files = run, files
        self._status = ""
        self._asked: list[tuple[str, str]] = []
        self._answers: dict[str, Answer] = {}

    def exchange(
        self, status: str, answers: dict[str, Answer]
    ) -> tuple[list[tuple[str, str]], int]:
        """Takes what the driver has; returns commands, and how many answers wait."""
        self._status = status
        self._answers |= answers
        asked, self._asked = self._asked, []
        return asked, len(self._answers)

    def status(self) -> str:
        """The latest status, as JSON."""
        return self._status

    def ask(self, name: str, text: str) -> None:
        """Hands a command in, under a name of its own."""
        self._asked.append((name, text))

    def answer(self, name: str) -> Answer | None:
        """The answer to a command, once it is there; it is given once."""
        return self._answers.pop(name, None)

    @ray.method(concurrency_group=READING)
    def history(self) -> str:
        """What the run has to show so far, as one line; "": nothing yet."""
        from pes_cluster.metrics.history import read  # Few ask, and it takes a while.

        if self._files is None:
            return ""
        try:
            return read(self._run, self._files).to_text()
        except (OSError, ValueError) as error:
            _log.warning("%s: no history (%s)", self._run, error)
            return ""


def post_name(run: str) -> str:
    """The name of a run's post."""
    return f"post/{run}"


class Mailbox:
    """The driver's side of its post."""

    def __init__(self, status: RunStatus, files: "Files | None" = None) -> None:
        self._status, self._name = status, post_name(status.name)
        self._files = files
        self._lock = threading.Lock()
        self._asked: list[Asked] = []
        self._answers: dict[str, Answer] = {}
        self._first: tuple[float, int] | None = None
        self._closed = threading.Event()
        self._post: Any = None
        self._exchange()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def take(self) -> list[Asked]:
        """The commands that were brought since the last look; never waits."""
        with self._lock:
            asked, self._asked = self._asked, []
        return asked

    def on_record(self, record: StepRecord) -> None:
        """Takes note of an outer step."""
        now = time.monotonic()
        status = after_record(self._status, record)
        if self._first is None:
            self._first = now, record.outer_step
        began, first = self._first
        if now > began and record.outer_step > first:
            speed = (record.outer_step - first) / (now - began)
            status = dataclasses.replace(status, steps_per_second=speed)
        self._status = status

    def on_event(self, event: Event) -> None:
        """Takes note of what befell the run."""
        self._status = after_event(self._status, event)

    def close(self) -> None:
        """Says the last, and waits a little for it to be heard."""
        self._closed.set()
        self._thread.join(timeout=10 * PERIOD)
        end = time.monotonic() + LINGER
        while self._exchange() and time.monotonic() < end:
            time.sleep(PERIOD)
        with contextlib.suppress(*_AWAY):
            ray.kill(self._post)

    def _serve(self) -> None:
        while not self._closed.wait(PERIOD):
            self._exchange()

    def _exchange(self) -> int:
        """Meets the post once; returns how many answers lie there."""
        with self._lock:
            answers = dict(self._answers)
        try:
            if self._post is None:
                self._post = _opened(self._status.name, self._files)
            call = self._post.exchange.remote(self._status.to_json(), answers)
            asked, waiting = ray.get(call, timeout=10.0)
        except _AWAY as error:
            # Its process was killed, or the head is away: tried again, with the same
            # answers. Those who asked are told that the post is gone.
            _log.debug("%s: %s", self._name, error)
            self._post = None
            return 0
        with self._lock:
            for name in answers:
                self._answers.pop(name, None)
            self._asked += [self._understood(name, text) for name, text in asked]
        return waiting

    def _understood(self, name: str, text: str) -> Asked:
        try:
            command = from_json(text)
        except CommandError as error:
            command = error
        return Asked(command, functools.partial(self._answer, name))

    def _answer(self, name: str, given: Answer) -> None:
        with self._lock:
            self._answers[name] = given


def _opened(run: str, files: "Files | None" = None) -> Any:
    """A new post; one that an earlier driver has left is ended."""
    name = post_name(run)
    with contextlib.suppress(ValueError):
        ray.kill(ray.get_actor(name, namespace=NAMESPACE))
    here = ray.get_runtime_context().get_node_id()
    chosen: dict[str, Any] = {
        "num_cpus": 0,
        "max_restarts": 0,
        "name": name,
        "namespace": NAMESPACE,
        "scheduling_strategy": NodeAffinitySchedulingStrategy(here, soft=False),
    }
    groups: dict[str, Any] = {"concurrency_groups": {READING: 1}}
    return ray.remote(**groups)(Post).options(**chosen).remote(run, files)


@contextlib.contextmanager
def mailbox(
    address: str, status: RunStatus, files: "Files | None" = None
) -> Iterator[Mailbox]:
    """The mailbox of a driver inside a job, for as long as the context lasts.

    Raises:
        RayStartError: The cluster cannot be reached.
    """
    with connect(address), contextlib.closing(Mailbox(status, files)) as box:
        yield box
