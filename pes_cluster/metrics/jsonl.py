"""Files of one JSON object a line, appended as a run goes: metrics and events.

A run does not end because a disk is full: what the disk refuses waits in memory and is
written, in order, once it can be. Only whole lines are ever left in the file.
"""

import collections
import contextlib
import json
import logging
import mmap
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

Line = dict[str, Any]

# Bytes at the end of a file: some hundred lines, and all that is ever searched.
TAILS = (2**16, 2**20, 2**26)

_log = logging.getLogger(__name__)


class LinesFile:
    """Appends lines; each is handed to the system at once.

    A last line that was cut short by a kill is taken away when the file is opened.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._waiting: collections.deque[bytes] = collections.deque()
        self._cut(_end(path, lambda line: True))

    def append(self, line: str) -> None:
        """Writes one line, or keeps it until the disk takes it."""
        self._waiting.append(line.encode() + b"\n")
        try:
            self._write()
        except OSError as error:
            if len(self._waiting) == 1:  # Said once, not for every line.
                _log.warning(
                    "%s: cannot be written (%s); its lines wait in memory",
                    self._path,
                    error.strerror,
                )

    def settle(self) -> tuple[str, ...]:
        """Sees the lines to the disk itself; returns those that it refuses."""
        with contextlib.suppress(OSError):
            self._write()
            os.fsync(self._file.fileno())
        return tuple(line.decode().rstrip("\n") for line in self._waiting)

    def rewind(self, outer_step: int, lines: Sequence[str] = ()) -> None:
        """Drops the lines of later steps, which will be made again.

        Args:
            outer_step: The last whose line stays.
            lines: Of earlier steps, that an earlier sitting could not write; those that
                are missing are appended.

        Raises:
            OSError: The file cannot be cut.
        """
        self._waiting = collections.deque(
            line for line in self._waiting if _step(line) <= outer_step
        )
        self._cut(_end(self._path, lambda line: 0 <= _step(line) <= outer_step))
        last = self._last_step()
        for line in lines:
            if last < _step(line.encode()) <= outer_step:
                self.append(line)

    def close(self) -> None:
        """Writes what waits, and closes.

        Raises:
            OSError: The disk still refuses some lines.
        """
        try:
            self._write()
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError) if error else contextlib.nullcontext():
            self.close()

    def _last_step(self) -> int:
        if self._waiting:
            return _step(self._waiting[-1])
        with _mapped(self._path) as data:
            return _step(data[data.rfind(b"\n", 0, max(self._size - 1, 0)) + 1 :])

    def _write(self) -> None:
        while self._waiting:
            self._write_whole(self._waiting[0])
            self._waiting.popleft()

    def _write_whole(self, line: bytes) -> None:
        rest = line
        try:
            while rest:  # A disk that is all but full takes a part of a line.
                rest = rest[self._file.write(rest) or 0 :]
        except OSError:
            self._cut(self._size)
            raise
        self._size += len(line)

    def _cut(self, size: int) -> None:
        self._file.truncate(size)
        self._size = size


def read(path: pathlib.Path) -> list[Line]:
    """Returns the records of a run, in order; what is no record is left out.

    Raises:
        OSError: The file cannot be read.
    """
    return list(lines(path))


def lines(path: pathlib.Path) -> Iterator[Line]:
    """Yields the records of a run, as `read` does, however many they are."""
    with path.open("rb") as file:
        for line in file:
            record = _parsed(line)
            if "outer_step" in record:
                yield record


def tail(path: pathlib.Path, size: int = TAILS[0]) -> list[Line]:
    """Returns the last records of a run, in order: those of so many bytes at the end.

    Raises:
        OSError: The file cannot be read.
    """
    found = (_parsed(line) for line in _last_lines(path, size).splitlines())
    return [record for record in found if "outer_step" in record]


def last_with(path: pathlib.Path, name: str) -> Line:
    """Returns the last record with a field, sought from the end; an empty one: none.

    Raises:
        OSError: The file cannot be read.
    """
    for size in TAILS:
        data = _last_lines(path, size)
        found = data.rfind(f'"{name}":'.encode())
        if found >= 0:
            start = data.rfind(b"\n", 0, found) + 1
            return _parsed(data[start:].split(b"\n", 1)[0])
        if len(data) < size // 2:
            break  # That was the whole file.
    return {}


@contextlib.contextmanager
def _mapped(path: pathlib.Path) -> Iterator[bytes | mmap.mmap]:
    """A file's bytes, of which only those that are asked for are read."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            yield b""  # Nothing cannot be mapped.
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield data


def _last_lines(path: pathlib.Path, size: int) -> bytes:
    """The whole lines among a file's last bytes.

    Read, not mapped: a live run may cut its file meanwhile.
    """
    with path.open("rb") as file:
        start = max(file.seek(0, os.SEEK_END) - size, 0)
        file.seek(start)
        data = file.read(size)
    return data[data.find(b"\n") + 1 :] if start else data


def _end(path: pathlib.Path, keep: Callable[[bytes], bool]) -> int:
    """Where the last whole line ends that is to be kept, sought from the end."""
    with _mapped(path) as data:
        end = data.rfind(b"\n") + 1
        while end > 0:
            start = data.rfind(b"\n", 0, end - 1) + 1
            if keep(data[start:end]):
                break
            end = start
        return end


def _step(line: bytes) -> int:
    """The outer step that a line is of; -1 where it says none."""
    step = _parsed(line).get("outer_step")
    return step if isinstance(step, int) else -1


def _parsed(line: bytes) -> Line:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}  # Cut short by a kill; the step is made again on resume.
    return value if isinstance(value, dict) else {}
