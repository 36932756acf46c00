"""How jobs stand, second by second: one helper job tells, a thread follows its log.

Watch.look() <-- latest snapshot <-- thread <--log-- inquiry watch --ask--> posts
"""

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Sequence

from pes_cluster.cluster.job import Attempt, JobError, named, newest
from pes_cluster.cluster.status import RunStatus, all_from_json
from pes_cluster.ray_backend.inquiry import END
from pes_cluster.ray_backend.jobs import Jobs, marked

logger = logging.getLogger(__name__)

LEASE = 300.0  # Seconds after which a helper ends by itself; then another begins.
REST = 5.0  # Seconds before the next one, after a helper that failed.
SILENCE = 60.0  # Seconds that a cluster may be away before it is given up.
LEAVE = 1.0  # Seconds that the thread may take to end; the log may take longer.

Look = list[tuple[Attempt, RunStatus | None]]


class Watch:
    """Knows how jobs stand, until it is closed."""

    def __init__(self, jobs: Jobs, names: Sequence[str] = ()) -> None:
        """Begins to watch these jobs; by default all, those to come included.

        Raises:
            JobError: The cluster does not answer, or has no job of a name.
        """
        self._jobs, self._names = jobs, list(names)
        self._snapshot: dict[str, RunStatus] = {}
        self._last_words: dict[str, RunStatus | None] = {}
        self._helper: str | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._latest, self._answered = self._asked(), time.monotonic()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def look(self) -> Look:
        """How the jobs stand now; while the cluster is away, as they stood before.

        Raises:
            JobError: It is away for too long.
        """
        try:
            self._latest, self._answered = self._asked(), time.monotonic()
        except JobError:
            if time.monotonic() - self._answered > SILENCE:
                raise
        return self._latest

    def close(self) -> None:
        """Ends the helper job."""
        self._closed.set()
        with self._lock, contextlib.suppress(JobError):
            if self._helper is not None:
                self._jobs.stop_helper(self._helper)
        self._thread.join(timeout=LEAVE)

    def _asked(self) -> Look:
        there = newest(self._jobs.attempts())
        names = self._names or there
        attempts = [named(there, name) for name in names]
        self._hear([one for one in attempts if not one.live])
        return [(one, self._seen(one)) for one in attempts]

    def _hear(self, ended: Sequence[Attempt]) -> None:
        """Asks once for the last words of each attempt that has ended."""
        ids = {one.id: one for one in ended if one.id not in self._last_words}
        told = self._jobs.last_words(list(ids.values())) if ids else []
        self._last_words |= dict(zip(ids, told, strict=True))

    def _seen(self, attempt: Attempt) -> RunStatus | None:
        if attempt.live:
            return self._snapshot.get(attempt.name)
        return self._last_words[attempt.id]

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                self._follow()
            except (JobError, ValueError) as error:
                logger.info("no word of the jobs: %s", error)
                self._closed.wait(REST)

    def _follow(self) -> None:
        """Takes one helper's snapshots until it ends."""
        with self._lock:
            if self._closed.is_set():
                return
            words = ["watch", str(LEASE), *self._names]
            self._helper = helper = self._jobs.start_helper(words)
        try:
            for line in whole_lines(self._jobs.follow_job(helper)):
                for snapshot in (told for told in marked(line) if told != END):
                    seen = all_from_json(snapshot)
                    self._snapshot = {status.name: status for status in seen}
        finally:
            self._helper = None
            self._jobs.stop_helper(helper)  # If it still runs.


def whole_lines(parts: Iterable[str]) -> Iterator[str]:
    """The lines of a text that comes in parts, each once it is whole."""
    rest = ""
    for part in parts:
        *lines, rest = (rest + part).split("\n")
        yield from lines
