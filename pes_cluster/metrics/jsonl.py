"""`metrics.jsonl`: one JSON object a line, appended as the run goes."""

import json
import os
import pathlib
from types import TracebackType
from typing import Any, Self

from pes_cluster.metrics.record import StepRecord

Line = dict[str, Any]


class MetricsFile:
    """Appends records; every line is handed to the system at once.

    Raises:
        OSError: The file cannot be written.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def append(self, record: StepRecord) -> None:
        """Writes one line."""
        self._file.write(record.to_json() + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()


def read(path: pathlib.Path) -> list[Line]:
    """Returns the records of a run, in order; a torn last line is left out.

    Raises:
        OSError: The file cannot be read.
    """
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # Cut short by a kill; the step is made again on resume.
        if isinstance(record, dict) and "outer_step" in record:
            records.append(record)
    return records


def drop_after(path: pathlib.Path, outer_step: int) -> None:
    """Drops the records of steps after `outer_step`, which will be made again.

    The file is rewritten whole or not at all.

    Raises:
        OSError: The file cannot be rewritten.
    """
    if not path.exists():
        return
    kept = [record for record in read(path) if record["outer_step"] <= outer_step]
    replace(path, "".join(json.dumps(record) + "\n" for record in kept))


def replace(path: pathlib.Path, text: str) -> None:
    """Writes a file whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
