"""A run's curves for TensorBoard, as a copy: `metrics.jsonl` stays the truth.

A sitting writes a file of its own, and tells at its beginning which steps of earlier
ones it makes again; TensorBoard drops those. Of a long run not every step is written:
each costs some 60 microseconds, and TensorBoard draws a thousand points of a curve.
"""

import importlib
import importlib.util
import logging
import pathlib
import time
from typing import Any

from pes_cluster.metrics.record import StepRecord

POINTS = 10_000  # Of a curve, over the whole run; evaluations are all written.
FLUSH_SECONDS = 5.0

_log = logging.getLogger(__name__)


def missing() -> str | None:
    """Why no scalars can be written here, in one line."""
    if importlib.util.find_spec("tensorboardX") is not None:
        return None
    return "needs the package tensorboardX: pip install 'pes-cluster[tensorboard]'"


class Scalars:
    """Writes scalars into a folder; a disk that refuses ends that, not the run."""

    def __init__(self, folder: pathlib.Path, outer_steps: int) -> None:
        self._folder, self._outer_steps = folder, outer_steps
        self._every = -(-outer_steps // POINTS)
        self._file: Any = None
        self._flushed = 0.0

    def begin(self, outer_step: int) -> None:
        """Begins a file; steps after this one that lie in others count no more."""
        self.close()
        try:
            self._file = _opened(self._folder, outer_step + 1)
        except OSError as error:
            self._give_up(error)

    def write(self, record: StepRecord) -> None:
        """Writes what a record holds, where its step is due."""
        step = record.outer_step
        due = step % self._every == 0 or step in (1, self._outer_steps)
        if self._file is None or not (due or record.eval_loss is not None):
            return
        try:
            self._file.write_event(_event(record))
            if time.monotonic() - self._flushed > FLUSH_SECONDS:
                self._file.flush()
                self._flushed = time.monotonic()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """Ends the file, if one was begun."""
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._file = None
        _log.warning(
            "%s: cannot be written (%s); no more scalars in this sitting",
            self._folder,
            error.strerror,
        )


def _opened(folder: pathlib.Path, first_step: int) -> Any:
    """A new file in which steps from the first one on replace those of other files."""
    from tensorboardX.event_file_writer import EventsWriter

    folder.mkdir(parents=True, exist_ok=True)
    # The writer's own name has whole seconds only: it would overwrite another file.
    # TensorBoard reads files in the order of their names.
    file = EventsWriter(str(folder / "events"), f".{time.time_ns()}")
    events = _messages("event")
    begun = events.SessionLog(status=events.SessionLog.START)
    now = time.time()
    file.write_event(events.Event(wall_time=now, step=first_step, session_log=begun))
    file.flush()
    return file


def _event(record: StepRecord) -> Any:
    summary = _messages("summary").Summary()
    for name, value in scalars(record).items():
        summary.value.add(tag=name, simple_value=value)
    now, step = time.time(), record.outer_step
    return _messages("event").Event(wall_time=now, step=step, summary=summary)


def _messages(name: str) -> Any:
    """A module of generated messages, whose names no type checker knows."""
    return importlib.import_module(f"tensorboardX.proto.{name}_pb2")


def scalars(record: StepRecord) -> dict[str, float]:
    """A record's numbers by the names of their curves; pure."""
    named = {
        "loss/window": record.loss,
        "loss/evaluated": record.eval_loss,
        "estimate/gradient_norm": record.gradient_norm,
        "estimate/particles": record.particles,
        "cost/inner_steps": record.inner_steps,
        "cost/wall_seconds": record.wall_seconds,
    }
    rest = {_place(name): value for name, value in record.extra.items()}
    return {name: v for name, v in (named | rest).items() if v is not None}


def _place(name: str) -> str:
    cluster = ("shards", "shards_target", "recovered", "replayed")
    return f"{'cluster' if name in cluster else 'estimate'}/{name}"
