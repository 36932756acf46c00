"""What a live run may be asked to do, and a folder through which it is asked.

```
control/command_000001_a1b2c3.json    written whole, by whoever asks
        begun_000001_a1b2c3.json      the same, once the driver has taken it
        answer_000001_a1b2c3.json     written by the driver, in the command's place
```

The driver looks at every step boundary. A command whose driver died over it is refused
by the next: it may be what killed it. The values know nothing of the folder: another
transport carries the same ones.
"""

import dataclasses
import functools
import json
import logging
import pathlib
import re
import time
import uuid
from collections.abc import Callable

from pes_cluster import whole_file

_log = logging.getLogger(__name__)

_POLL = 0.05


class CommandError(ValueError):
    """A command that cannot be understood or carried out; one line."""


@dataclasses.dataclass(frozen=True)
class Scale:
    """Go on with another number of particles, of shards, or both.

    Attributes:
        particles: How many, both signs counted; None: as many as now.
        shards: How many; None: as many as now.
    """

    particles: int | None = None
    shards: int | None = None

    def __post_init__(self) -> None:
        if self.particles is None and self.shards is None:
            raise CommandError("scale: neither particles nor shards are named")
        for name in ("particles", "shards"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise CommandError(f"{name}: {value} must be at least 1")

    def __str__(self) -> str:
        parts = [f"{n} {v}" for n, v in dataclasses.asdict(self).items() if v]
        return f"scale to {', '.join(parts)}"


@dataclasses.dataclass(frozen=True)
class Stop:
    """Stop at the next step boundary, with a checkpoint."""

    def __str__(self) -> str:
        return "stop"


Command = Scale | Stop


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of a command.

    Attributes:
        done: Whether it was carried out.
        line: What there is to say.
    """

    done: bool
    line: str


@dataclasses.dataclass(frozen=True)
class Asked:
    """A command, and the way back to whoever asks; or why it makes no sense."""

    command: Command | CommandError
    answer: Callable[[Answer], None]


def to_json(command: Command) -> str:
    """Returns the text of a command."""
    kind = type(command).__name__.lower()
    return json.dumps({"command": kind} | dataclasses.asdict(command))


def from_json(text: str | bytes) -> Command:
    """Returns the command that a text holds.

    Raises:
        CommandError: It holds none.
    """
    try:
        fields = json.loads(text)
        kind = str(fields.pop("command"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CommandError("not a command") from None
    kinds: dict[str, type[Command]] = {"scale": Scale, "stop": Stop}
    if kind not in kinds:
        raise CommandError(f"unknown command {kind!r}; known: {', '.join(kinds)}")
    names = {field.name for field in dataclasses.fields(kinds[kind])}
    whole = all(value is None or type(value) is int for value in fields.values())
    if not set(fields) <= names or not whole:
        raise CommandError(f"{kind} takes whole numbers for {sorted(names)}")
    return kinds[kind](**fields)


class ControlFolder:
    """The two sides of a control folder."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._taken: set[str] = set()

    def take(self) -> list[Asked]:
        """Returns the commands that nobody has taken, in the order of asking."""
        try:
            entries = sorted(entry.name for entry in self._path.iterdir())
        except OSError:
            return []  # Nobody has asked for anything yet.
        found = [re.fullmatch(r"(command|begun)_(\w+)\.json", name) for name in entries]
        names = sorted({match[2] for match in found if match} - self._taken)
        self._taken |= set(names)
        return [
            Asked(self._begin(name), functools.partial(self._give, name))
            for name in names
        ]

    def ask(self, command: Command) -> str:
        """Hands a command in and returns its name.

        Raises:
            OSError: The folder cannot be written.
        """
        self._path.mkdir(exist_ok=True)
        taken = [re.match(r"[a-z]+_(\d+)_", e.name) for e in self._path.iterdir()]
        number = 1 + max((int(match[1]) for match in taken if match), default=0)
        name = f"{number:06d}_{uuid.uuid4().hex[:8]}"
        whole_file.write(self._file("command", name), to_json(command))
        return name

    def wait(self, name: str, seconds: float) -> Answer | None:
        """Returns the answer to a command, once it is there; None: not in time."""
        path, end = self._file("answer", name), time.monotonic() + seconds
        while True:
            try:
                fields = json.loads(path.read_text())
                path.unlink(missing_ok=True)
                return Answer(bool(fields["done"]), str(fields["line"]))
            except FileNotFoundError:
                if time.monotonic() >= end:
                    return None
                time.sleep(_POLL)

    def withdraw(self, name: str) -> bool:
        """Takes a command back; False: the driver has taken it."""
        try:
            self._file("command", name).unlink()
        except FileNotFoundError:
            return False
        return True

    def _begin(self, name: str) -> Command | CommandError:
        path = self._file("begun", name)
        if path.exists():
            return CommandError("its driver died before this was lasting; ask again")
        try:
            self._file("command", name).rename(path)
            return from_json(path.read_bytes())
        except CommandError as error:
            return error
        except OSError as error:
            return CommandError(f"cannot be taken ({error.strerror})")

    def _give(self, name: str, given: Answer) -> None:
        begun = self._file("begun", name)
        try:
            text = json.dumps(dataclasses.asdict(given))
            whole_file.write(self._file("answer", name), text)
            begun.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("%s: cannot be answered (%s)", begun, error.strerror)

    def _file(self, kind: str, name: str) -> pathlib.Path:
        return self._path / f"{kind}_{name}.json"
