"""The directory of a run: what lies in it, and who may write there.

```
config.yaml      the configuration in full
metrics.jsonl    one line for each outer step
events.jsonl     one line for whatever befell the run; see cluster/events.py
checkpoints/     see cluster/checkpoint.py
control/         what the live run is asked for; see cluster/control.py
plots/*.png
tensorboard/     scalars, where `run.tensorboard` asks for them
result.json      there only when the run has ended: status, theta, totals
lock             held by the process that is running it
```
"""

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
import time
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any

from pes_cluster import whole_file
from pes_cluster.cluster.storage import CheckpointError
from pes_cluster.config.decode import ConfigError
from pes_cluster.config.run_config import (
    RunConfig,
    differences,
    digest,
    load,
    to_yaml,
)
from pes_cluster.metrics import jsonl
from pes_cluster.metrics.history import Files, History, read

if TYPE_CHECKING:
    from pes_cluster.cluster.checkpoint import CheckpointStore

# What a disk may refuse now and take later.
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT}


class RunDirectoryError(Exception):
    """A directory that cannot hold the run; one line that names it."""


class DiskError(RunDirectoryError):
    """A disk that is full or fails: later, the same command may succeed."""


class RunDirectory:
    """The paths of a run, and what is read and written outside the driver."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = pathlib.Path(path)
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.jsonl"
        self.events = self.path / "events.jsonl"
        self.control = self.path / "control"
        self.plots = self.path / "plots"
        self.tensorboard = self.path / "tensorboard"
        self.result = self.path / "result.json"

    def holds_run(self) -> bool:
        """Whether a run was begun here."""
        return self.config.is_file()

    def is_running(self) -> bool:
        """Whether a process is running the run now."""
        try:
            with (self.path / "lock").open("rb") as lock:
                return not _locked(lock, fcntl.LOCK_SH)
        except OSError:
            return False

    def saved_config(self) -> RunConfig:
        """Returns the configuration of the run that was begun here.

        Raises:
            RunDirectoryError: There is none, or it is not understood.
        """
        if not self.holds_run():
            raise RunDirectoryError(f"{self.path}: holds no run (no config.yaml)")
        try:
            return load(self.config)
        except ConfigError as error:
            raise RunDirectoryError(f"{self.config}: {error}") from error

    def check(self, config: RunConfig) -> None:
        """Refuses a directory that holds something else; writes nothing.

        Raises:
            RunDirectoryError: It is a file, holds other files, or another run.
        """
        if self.holds_run():
            saved = self.saved_config()
            if digest(saved) != digest(config):
                raise RunDirectoryError(
                    f"{self.path}: holds another run ({_what_differs(saved, config)}); "
                    "choose another --run-dir"
                )
        elif self.path.is_dir() and any(map(_foreign, self.path.iterdir())):
            raise RunDirectoryError(
                f"{self.path}: holds other files and no run; choose another --run-dir"
            )
        elif self.path.exists() and not self.path.is_dir():
            raise RunDirectoryError(f"{self.path}: is not a directory")

    def store(self, config: RunConfig) -> "CheckpointStore":
        """Returns the store of the run's checkpoints.

        A `checkpoint.path` that is no URL is seen from here: a run is continued from
        any working directory, and after its directory has been moved.

        Raises:
            ConfigError: It is a URL that fsspec does not know.
        """
        # Loads JAX, which who only asks how a run stands does not need.
        from pes_cluster.cluster.checkpoint import CheckpointStore

        path = config.checkpoint.path or "checkpoints"
        if "://" not in path:
            path = str((self.path / path).absolute())
        try:
            return CheckpointStore(path, config.checkpoint.keep)
        except CheckpointError as error:
            raise ConfigError(f"checkpoint.path: {error}") from error

    def check_store(self, store: "CheckpointStore") -> None:
        """Refuses a store elsewhere that cannot be written, before a run is begun.

        Raises:
            ConfigError: It cannot.
        """
        within = pathlib.Path(store.url).is_relative_to(self.path.absolute())
        if within or self.holds_run():
            return
        try:
            store.probe()
        except CheckpointError as error:
            raise ConfigError(f"checkpoint.path: {error}") from error

    @contextlib.contextmanager
    def opened(self, config: RunConfig) -> Iterator[None]:
        """Makes the directory this process' own until the context ends.

        Raises:
            RunDirectoryError: It cannot be written, or another process runs it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = (self.path / "lock").open("a+b", buffering=0)
        except OSError as error:
            raise self.unwritable(error) from error
        with lock:
            _take(lock, self.path)
            try:
                # A full disk is no reason not to go on where nothing has changed.
                text = to_yaml(config)
                if not self.holds_run() or self.config.read_text() != text:
                    whole_file.write(self.config, text)
                self.result.unlink(missing_ok=True)
            except OSError as error:
                self._leave_nothing()
                raise self.unwritable(error) from error
            yield

    @contextlib.contextmanager
    def lines(self, path: pathlib.Path) -> Iterator[jsonl.LinesFile]:
        """Opens one of the run's files of lines.

        Raises:
            RunDirectoryError: It cannot be opened, or some lines could not be written
                to the end.
        """
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(jsonl.LinesFile(path))
            except OSError as error:
                raise self.unwritable(error) from error
            yield file
            try:
                stack.close()
            except OSError as error:
                raise self.unwritable(error) from error

    def write_result(self, fields: dict[str, Any]) -> None:
        """Writes `result.json`, whole or not at all; NaN becomes null.

        Raises:
            RunDirectoryError: It cannot be written.
        """
        plain = json.loads(json.dumps(fields), parse_constant=lambda _: None)
        try:
            whole_file.write(self.result, json.dumps(plain, indent=1) + "\n")
        except OSError as error:
            raise self.unwritable(error) from error

    def read_result(self) -> dict[str, Any] | None:
        """Returns what `result.json` holds; None before the run has ended.

        Raises:
            RunDirectoryError: The file is not understood.
        """
        try:
            return json.loads(self.result.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise RunDirectoryError(
                f"{self.result}: cannot be read ({error})"
            ) from error

    def records(self) -> list[jsonl.Line]:
        """Returns the records of the run so far.

        Raises:
            RunDirectoryError: There are none.
        """
        try:
            records = jsonl.read(self.metrics)
        except OSError as error:
            raise RunDirectoryError(
                f"{self.path}: holds no run to show (no metrics.jsonl)"
            ) from error
        if not records:
            raise RunDirectoryError(f"{self.metrics}: holds no records yet")
        return records

    @property
    def files(self) -> Files:
        """Where the files lie that make the run's history; absolute."""
        paths = (self.config, self.metrics, self.events, self.result)
        return Files(*(path.absolute() for path in paths))

    def history(self) -> History:
        """Returns what the run has to show so far.

        Raises:
            RunDirectoryError: It holds no run, or what it holds is not understood.
        """
        try:
            history = read(self.path.resolve().name, self.files)
        except FileNotFoundError as error:
            raise RunDirectoryError(
                f"{self.path}: holds no run to show (no config.yaml)"
            ) from error
        except OSError as error:
            raise RunDirectoryError(
                f"{self.path}: cannot be read ({error.strerror})"
            ) from error
        except ValueError as error:
            raise RunDirectoryError(
                f"{self.result}: cannot be read ({error})"
            ) from error
        if history.status == "unfinished" and self.is_running():
            return dataclasses.replace(history, status="running")
        return history

    def _leave_nothing(self) -> None:
        """Takes away a directory in which no run could be begun."""
        if not self.holds_run():
            with contextlib.suppress(OSError):
                (self.path / "lock").unlink()
                self.path.rmdir()

    def unwritable(self, error: OSError) -> RunDirectoryError:
        """Returns the refusal of a directory that cannot be written."""
        return unwritable(self.path, error)


def unwritable(path: pathlib.Path, error: OSError) -> RunDirectoryError:
    """Returns the refusal of a path that cannot be written."""
    kind = DiskError if error.errno in _PASSING else RunDirectoryError
    return kind(f"{path}: cannot be written ({error.strerror})")


def fresh(name: str, parent: pathlib.Path = pathlib.Path("runs")) -> pathlib.Path:
    """Returns the path of a directory that is not there yet: ``runs/<name>-<time>``."""
    moment = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    path, count = parent / f"{name}-{moment}", 1
    while path.exists():
        count += 1
        path = parent / f"{name}-{moment}-{count}"
    return path


def _foreign(path: pathlib.Path) -> bool:
    """Whether this is not what a run leaves that was killed at its very beginning."""
    return path.name != "lock" and not path.name.startswith(".config.yaml.")


def _take(lock: IO[bytes], path: pathlib.Path) -> None:
    """Makes the lock ours until it is closed, and writes into it who we are."""
    # Somebody may hold it for a moment, to see whether it is held.
    end = time.monotonic() + 1
    while not _locked(lock, fcntl.LOCK_EX):
        if time.monotonic() >= end:
            lock.seek(0)
            holder = lock.read(200).decode(errors="replace").strip() or "unknown"
            raise RunDirectoryError(
                f"{path}: is being run by another process ({holder})"
            )
        time.sleep(0.05)
    with contextlib.suppress(OSError):  # Only said for people; a full disk may refuse.
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _locked(lock: IO[bytes], kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _what_differs(saved: RunConfig, asked: RunConfig) -> str:
    lines = differences(saved, asked)
    more = f" and {len(lines) - 4} more" if len(lines) > 4 else ""
    return "; ".join(lines[:4]) + more
