"""Keeps a run going: starts its driver again when that dies, within a budget.

What follows an exit is decided by a pure function of what is known then. A driver
resumes by itself, so every one is started by the same command.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

FAILED, USAGE, RESUMABLE = 1, 2, 75  # Exit statuses of `pes run`; 75: EX_TEMPFAIL.

LONGEST_DELAY = 60.0  # Seconds before a restart.
_POLL = 0.1


@dataclasses.dataclass(frozen=True)
class Exit:
    """How a driver exited, and what it left.

    Attributes:
        status: Its exit status; -n where signal n killed it.
        asked: It had been asked to stop, through us.
        explained: Its result says that it failed and why, so that it would again.
        progressed: There is a newer durable checkpoint than when it was started.
    """

    status: int
    asked: bool = False
    explained: bool = False
    progressed: bool = False


@dataclasses.dataclass(frozen=True)
class Spent:
    """What was spent since the newest durable checkpoint.

    Attributes:
        restarts: How many.
        raised: Drivers that ended with an error nobody had foreseen.
        accepted: Some driver once got past its start: the use is not wrong.
    """

    restarts: int = 0
    raised: int = 0
    accepted: bool = False


@dataclasses.dataclass(frozen=True)
class Restart:
    """Start another driver, after so many seconds."""

    delay: float
    spent: Spent


@dataclasses.dataclass(frozen=True)
class Stop:
    """Leave with this exit status."""

    status: int


def after_exit(ended: Exit, spent: Spent, restarts: int) -> Restart | Stop:
    """Decides what follows when a driver has exited.

    Args:
        ended: How.
        spent: Before it did.
        restarts: How many are allowed without a newer checkpoint between them.
    """
    status = ended.status if ended.status >= 0 else 128 - ended.status
    if ended.asked or ended.status in (0, *range(128, 160)) or ended.explained:
        return Stop(status)
    if ended.status == USAGE and not spent.accepted:
        return Stop(status)
    if ended.progressed:
        spent = Spent(accepted=True)
    raised = spent.raised + (ended.status == FAILED)
    # From the same checkpoint, the same error would come a third time.
    if spent.restarts >= restarts or raised > 1:
        return Stop(status)
    delay = min(2.0 ** (spent.restarts - 1), LONGEST_DELAY) if spent.restarts else 0.0
    return Restart(delay, Spent(spent.restarts + 1, raised, accepted=True))


def supervise(
    command: Sequence[str],
    restarts: int,
    newest: Callable[[], int | None],
    explained: Callable[[], bool],
) -> int:
    """Runs a command until it is done or the budget is spent; returns an exit status.

    SIGTERM and SIGINT are passed on to it, and end the supervision.

    Args:
        command: Starts a driver, which resumes by itself.
        restarts: How many are allowed without a newer checkpoint between them.
        newest: The outer step of the newest durable checkpoint, where it is known.
        explained: Whether the last driver left a failure that would come again.
    """
    spent = Spent()
    with _forwarding() as signals:
        while True:
            before = newest()
            status = signals.run(command)
            after = newest()
            ended = Exit(
                status=status,
                asked=signals.asked,
                explained=status == FAILED and explained(),
                progressed=after is not None and (before is None or after > before),
            )
            match after_exit(ended, spent, restarts):
                case Stop(status):
                    return status
                case Restart(delay, spent):
                    _say(ended, spent, restarts, delay)
                    signals.sleep(delay)
                    if signals.asked:
                        return 128 + signals.last


class _Signals:
    """A child process, and the signals that are passed on to it."""

    def __init__(self) -> None:
        self.last = 0
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def asked(self) -> bool:
        return self.last != 0

    def run(self, command: Sequence[str]) -> int:
        """Runs a command to its end; what it leaves behind is killed.

        In a session of its own: a terminal's Ctrl-C must not reach it twice, and the
        Ray that a killed driver leaves must not hold the memory of the next one.
        """
        with subprocess.Popen(command, start_new_session=True) as child:
            self._child = child
            if self.asked:  # While it was being started.
                _send(child.pid, self.last)
            # Not reaped yet, its number cannot be another session's by now.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            _kill_session(child.pid)
            self._child = None
            return child.wait()

    def sleep(self, seconds: float) -> None:
        """Waits, but not once somebody has asked to stop."""
        end = time.monotonic() + seconds
        while not self.asked and time.monotonic() < end:
            time.sleep(min(_POLL, seconds))

    def forward(self, number: int, frame: object) -> None:
        """Handles a signal."""
        del frame
        self.last = number
        if self._child is not None:
            _send(self._child.pid, number)


def _send(process: int, number: int) -> None:
    """Sends a signal; unlike `Popen.send_signal`, without reaping who has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, number)


def _kill_session(session: int) -> None:
    """Kills what a leader has left: Ray's workers have process groups of their own."""
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(int(entry.name)) == session:
                os.kill(int(entry.name), signal.SIGKILL)


@contextlib.contextmanager
def _forwarding() -> Iterator[_Signals]:
    signals = _Signals()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, signals.forward) for number in numbers}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(ended: Exit, spent: Spent, restarts: int, delay: float) -> None:
    how = f"ended with status {ended.status}"
    if ended.status < 0:
        number = -ended.status
        how = f"was killed by signal {number} ({signal.strsignal(number)})"
    print(
        f"pes: the driver {how}; restart {spent.restarts} of {restarts}"
        + (f" in {delay:g} s" if delay else ""),
        file=sys.stderr,
        flush=True,
    )
