"""A small job that asks drivers on the cluster and prints what they say.

    python -m pes_cluster.ray_backend.inquiry status [NAME]...
    python -m pes_cluster.ray_backend.inquiry watch SECONDS [NAME]...
    python -m pes_cluster.ray_backend.inquiry history NAME...
    python -m pes_cluster.ray_backend.inquiry ask NAME COMMAND SECONDS

Each answer is one line of JSON after `MARK`, in the log of the job, and `END` follows;
so a client needs nothing but the address of the jobs and the token. People wait for it:
it loads nothing that computes.
"""

import dataclasses
import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from pes_cluster.cluster.control import Answer
from pes_cluster.cluster.marks import MARK
from pes_cluster.ray_backend.mailbox import NAMESPACE, post_name
from pes_cluster.ray_backend.session import connect

END = "end"  # The last line.
PATIENCE = 10.0  # Seconds for one answer of a post.
PERIOD = 1.0  # Seconds between two looks of a watch.
READING = 45.0  # Seconds for a history: there may be millions of lines.


def status(names: Sequence[str]) -> list[str]:
    """The status of each run that has a post, as JSON; all are asked at once.

    Args:
        names: The runs'; none: of all.
    """
    return _told(names or runs(), lambda post: post.status, PATIENCE)


def runs() -> list[str]:
    """The names of the runs that have a post."""
    actors: list[Any] = ray.util.list_named_actors(all_namespaces=True)
    here = [one["name"] for one in actors if one["namespace"] == NAMESPACE]
    prefix = post_name("")
    return [name.removeprefix(prefix) for name in here if name.startswith(prefix)]


def watch(names: Sequence[str], seconds: float) -> Iterator[list[str]]:
    """What `status` says, once a second for so long.

    Whoever watches ends the job; one that was killed cannot, so it ends by itself.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield status(names)
        time.sleep(PERIOD)


def history(names: Sequence[str]) -> list[str]:
    """What each run has to show that has a post, as text; all read at once."""
    return _told(names, lambda post: post.history, READING)


def ask(name: str, command: str, seconds: float) -> Answer | None:
    """Hands a command to a run; None: no answer in time."""
    try:
        post = ray.get_actor(post_name(name), namespace=NAMESPACE)
    except ValueError:
        return Answer(False, f"{name}: is not running, or has not begun yet")
    token, end = uuid.uuid4().hex, time.monotonic() + seconds
    try:
        ray.get(post.ask.remote(token, command), timeout=PATIENCE)
        while time.monotonic() < end:
            given: Any = ray.get(post.answer.remote(token), timeout=PATIENCE)
            if given is not None:
                return given
            time.sleep(0.1)
    except RayError:
        line = f"{name}: was lost before it answered; see pes status, then ask again"
        return Answer(False, line)
    return None


def main(arguments: Sequence[str]) -> None:
    """Asks, and prints."""
    kind, *rest = arguments
    with connect("auto"):
        match kind:
            case "status":
                _tell(snapshot(status(rest)))
            case "watch":
                for lines in watch(rest[1:], float(rest[0])):
                    _tell(snapshot(lines))
            case "history":
                for line in history(rest):
                    _tell(line)
            case "ask":
                given = ask(rest[0], rest[1], float(rest[2]))
                _tell(json.dumps(given and dataclasses.asdict(given)))
        _tell(END)  # Nobody waits for us to take leave of Ray.


def snapshot(lines: Sequence[str]) -> str:
    """How all runs stand at one moment, in one line."""
    return f"[{', '.join(lines)}]"


def _told(
    names: Sequence[str], method: Callable[[Any], Any], seconds: float
) -> list[str]:
    """What the posts of runs answer within so long, those that do."""
    calls = []
    for name in names:
        try:
            post = ray.get_actor(post_name(name), namespace=NAMESPACE)
            calls.append(method(post).remote())
        except (ValueError, RayError):
            continue  # It has not begun, or has ended.
    if not calls:
        return []
    answered, _ = ray.wait(calls, num_returns=len(calls), timeout=seconds)
    return [line for line in map(_line, answered) if line]


def _line(call: Any) -> str:
    try:
        return ray.get(call)
    except RayError:
        return ""  # It ended meanwhile.


def _tell(line: str) -> None:
    print(MARK + line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
