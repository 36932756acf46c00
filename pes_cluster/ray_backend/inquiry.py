"""A small job that asks drivers on the cluster and prints what they say.

    python -m pes_cluster.ray_backend.inquiry status NAME...
    python -m pes_cluster.ray_backend.inquiry ask NAME COMMAND SECONDS

Each answer is one line of JSON after `MARK`, in the log of the job; so a client needs
nothing but the address of the jobs and the token.
"""

import dataclasses
import json
import sys
import time
import uuid
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from pes_cluster.cluster.control import Answer
from pes_cluster.ray_backend.mailbox import NAMESPACE, post_name
from pes_cluster.ray_backend.session import connect

MARK = "pes-cluster: "
PATIENCE = 10.0  # Seconds for one answer of a post.


def status(names: Sequence[str]) -> list[str]:
    """The status of each run that has a post, as JSON."""
    found = []
    for name in names:
        try:
            post = ray.get_actor(post_name(name), namespace=NAMESPACE)
            found.append(ray.get(post.status.remote(), timeout=PATIENCE))
        except (ValueError, RayError):
            continue  # It has not begun, or has ended.
    return [line for line in found if line]


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
        if kind == "status":
            lines = status(rest)
        else:
            given = ask(rest[0], rest[1], float(rest[2]))
            lines = [json.dumps(given and dataclasses.asdict(given))]
    for line in lines:
        print(MARK + line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
