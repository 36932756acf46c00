"""Shards and buddies as Ray actors.

Ray never restarts an actor here: it would put an empty one in the dead one's place.
"""

import os
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
from jax import tree
from ray.exceptions import (
    ActorDiedError,
    ActorUnavailableError,
    ObjectLostError,
    RayActorError,
    RayError,
    RayTaskError,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pes_cluster.cluster.buddy import Buddy
from pes_cluster.cluster.checkpoint import CheckpointError
from pes_cluster.cluster.settings import PerShard
from pes_cluster.cluster.shard import FencedError, Shard
from pes_cluster.cluster.transport import Actor, Call, Failure, FailureKind, Nodes
from pes_cluster.ray_backend.nodes import NodeWatch, name_of

INLINE_FLOATS = 25_000  # Above it, one `ray.put` is cheaper than a copy in every call.

NEVER_RESTARTED = {"max_restarts": 0, "max_task_retries": 0}


class RaisedError(Exception):
    """What the called code raised, in one line: its own error may not travel."""


class _Process:
    """Runs the methods of what an actor holds."""

    def __init__(self) -> None:
        self._held: Any = None
        self._broken: RaisedError | None = None

    def run(self, method: str, *arguments: Any) -> Any:
        """Calls a method; or says again why what it belongs to could not be built."""
        if self._broken is not None:
            raise self._broken
        return _told(getattr(self._held, method), *arguments)


class ShardProcess(_Process):
    """An actor that holds a shard."""

    def build(self, work: Any) -> str | None:
        """Builds the shard; the first call of all. Returns why it cannot be built."""
        try:
            self._held = _told(Shard, work)
        except RaisedError as error:
            self._broken = error
        return self._broken and str(self._broken)


class BuddyProcess(_Process):
    """An actor that holds a buddy."""

    def __init__(self) -> None:
        super().__init__()
        self._held = Buddy()


def _told(call: Callable[..., Any], *arguments: Any) -> Any:
    """Calls something; whatever it raises comes out as one line that can be sent."""
    try:
        return call(*arguments)
    except (CheckpointError, FencedError):
        raise
    # Of the task's own code, which may raise anything; home comes what can be sent.
    except Exception as error:
        raise RaisedError(one_line(error)) from None


def one_line(error: BaseException) -> str:
    """The error, and what was noted on its way, in one line."""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    notes = getattr(error, "__notes__", [])
    # What JAX notes is about its own frames in a traceback, which there is none of.
    notes = [note for note in notes if "JAX" not in note]
    return f"{line} ({'; '.join(notes)})" if notes else line


class RayTransport:
    """See `cluster.transport.Transport`; an actor is told by its Ray handle."""

    def __init__(self, per_shard: PerShard) -> None:
        self._per_shard = per_shard
        self._watch = NodeWatch(per_shard)
        self._actors: dict[str, Actor] = {}
        self._places: dict[str, Any] = {}  # Node ids, or the calls that will tell.
        self._builds: dict[str, Any] = {}  # The calls that build shards.
        self._latest: tuple[Any, Any] = (None, None)

    def nodes(self) -> Nodes:
        """See `Transport`."""
        return self._watch.nodes

    def start_shard(self, work: Any, avoid: frozenset[str]) -> Actor:
        """See `Transport`."""
        chosen = options(self._per_shard, avoid)
        actor = self._started(ray.remote(ShardProcess).options(**chosen).remote())
        # Not by the constructor: where it runs is known before it has built.
        self._builds[_name(actor)] = actor.build.remote(work)
        return actor

    def start_buddy(self, node: str) -> Actor:
        """See `Transport`."""
        chosen = {
            "num_cpus": 0,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
            **NEVER_RESTARTED,
        }
        return self._started(ray.remote(BuddyProcess).options(**chosen).remote())

    def broken(self, actor: Actor, timeout: float) -> str | None:
        """The node that a shard cannot be built on, and why, in one line.

        None where it can, where that is not known in time, and where its process died:
        such a shard is lost, as others are later.
        """
        try:
            line: Any = ray.get(self._builds[_name(actor)], timeout=timeout)
        except RayTaskError as error:  # It could not even load what it was told.
            line = one_line(error.cause)
        except RayActorError as error:
            return unimported(str(error))
        except RayError:
            return None
        node = name_of(self.node_of(actor))
        return f"node {node} cannot hold shards: {line}" if line else None

    def node_of(self, actor: Actor) -> str | None:
        """See `Transport`."""
        name = _name(actor)
        place = self._places.get(name)
        if isinstance(place, ray.ObjectRef):
            if not ray.wait([place], timeout=0)[0]:
                return None
            try:
                place = ray.get(place)
            except RayError:
                place = ""  # It died before it could tell.
            self._places[name] = place
        return place

    def call(self, actor: Actor, method: str, *arguments: Any) -> Call:
        """See `Transport`."""
        return actor.run.remote(method, *arguments)

    def shared(self, value: Any) -> Any:
        """See `Transport`."""
        held, sent = self._latest
        if held is not value:
            sent = sendable(value)
            self._latest = (value, sent)
        return sent

    def wait(self, calls: Sequence[Call], timeout: float) -> list[Call]:
        """See `Transport`."""
        if not calls:
            return []
        ended, rest = ray.wait(list(calls), timeout=max(timeout, 0.0))
        if rest:  # Whatever else has ended by now.
            ended += ray.wait(rest, num_returns=len(rest), timeout=0)[0]
        return ended

    def result(self, call: Call) -> Any:
        """See `Transport`."""
        called = call.task_id().actor_id().hex()
        try:
            return ray.get(call)
        except RayTaskError as error:
            return _raised(error)
        except RayActorError as error:
            # Ray names the actor that died: not the called one, if it was to give what
            # this call was to be given.
            stored = error.actor_id not in (called, None)
            return Failure(self._kind(error, called), _last_line(error), stored)
        except ObjectLostError as error:
            return Failure("host", _last_line(error), stored=True)
        except RayError as error:
            return Failure("process", _last_line(error))

    def kill(self, actor: Actor) -> None:
        """See `Transport`."""
        self._actors.pop(_name(actor), None)
        self._places.pop(_name(actor), None)
        self._builds.pop(_name(actor), None)
        ray.kill(actor)

    def close(self) -> None:
        """See `Transport`."""
        self._watch.close()
        for actor in list(self._actors.values()):
            self.kill(actor)

    def _started(self, actor: Actor) -> Actor:
        name = _name(actor)
        self._actors[name] = actor
        self._places[name] = actor.__ray_call__.remote(_where)
        return actor

    def _kind(self, error: RayActorError, called: str) -> FailureKind:
        if error.actor_init_failed:
            return "task"
        if isinstance(error, ActorDiedError) and error.preempted:
            return "preempted"
        if isinstance(error, ActorUnavailableError):
            return "host"
        node = self._places.get(called)
        alive = {node.id for node in self.nodes().alive}
        lives = not isinstance(node, str) or not node or node in alive
        # The watch may be a second behind what Ray says of the actor.
        return "process" if lives and "node has died" not in str(error) else "host"


def options(per_shard: PerShard, avoid: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Ray's options of one shard's actor; pure but for the cache's folder."""
    labels = dict(per_shard.labels)
    if avoid:
        labels["ray.io/node-id"] = f"!in({','.join(sorted(avoid))})"
    chosen: dict[str, Any] = {
        "num_cpus": per_shard.num_cpus,
        "num_gpus": per_shard.num_gpus,
        "scheduling_strategy": "SPREAD",
        "runtime_env": {"env_vars": environment(per_shard)},
        **NEVER_RESTARTED,
    }
    return chosen | ({"label_selector": labels} if labels else {})


def environment(per_shard: PerShard) -> dict[str, str]:
    """Environment of a shard's process; the user's own `env` wins."""
    variables = {
        # XLA sizes its thread pool by NPROC: one process a core, one thread each.
        "NPROC": str(max(int(per_shard.num_cpus), 1)),
        "JAX_COMPILATION_CACHE_DIR": _cache_folder(),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": _python_path(),
    }
    if per_shard.num_gpus > 0:
        # Empty: JAX takes the GPU although the driver was told to stay on the CPU.
        variables |= {"JAX_PLATFORMS": "", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    else:
        variables["JAX_PLATFORMS"] = "cpu"
    return variables | per_shard.env


def sendable(theta: Any) -> Any:
    """Returns theta itself where it is small, else a reference to one shared copy."""
    size = sum(np.size(leaf) for leaf in tree.leaves(theta))
    return theta if size <= INLINE_FLOATS else ray.put(theta)


def _where(actor: Any) -> str:
    del actor
    return ray.get_runtime_context().get_node_id()


def _name(actor: Actor) -> str:
    return actor._actor_id.hex()


def _python_path() -> str:
    """Where a user's task is found, this package's sources, and what the user named."""
    folders = [os.getcwd()]
    package = Path(__file__).resolve().parents[2]
    # Installed, it is found anyway; there it would come before the standard library.
    if package.name not in ("site-packages", "dist-packages"):
        folders.append(str(package))
    return os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])


def _cache_folder() -> str:
    """Compiled programs that all shards of this user share.

    In the user's own folder: what lies there is executed.
    """
    given = os.environ.get("JAX_COMPILATION_CACHE_DIR")
    if given:
        return given
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return str(Path(cache) / "pes_cluster" / "compiled")


def _raised(error: RayTaskError) -> Failure:
    """What the called code raised; or the code whose answer the call was to be given.

    Raises:
        CheckpointError: As it was raised there.
    """
    cause: Any = error.cause
    if isinstance(cause, CheckpointError):
        raise CheckpointError(str(cause)) from None
    if isinstance(cause, RaisedError):
        return Failure("task", str(cause))
    if isinstance(cause, RayError):  # Not raised here, but what it was to be given.
        return Failure("process", _last_line(cause), stored=True)
    return Failure("process", one_line(cause))


def unimported(said: str) -> str | None:
    """A node that lacks our package, by what Ray says of an actor there; pure."""
    if "ModuleNotFoundError: No module named 'pes_cluster" not in said:
        return None
    ip = re.search(r"\bip=([\w.:]+)", said)
    node = f"node {ip[1]}" if ip else "a node"
    return f"{node} has no pes_cluster: install it on every node, or in their image"


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"its process died ({type(error).__name__}: {' '.join(lines[-1:])})"
    return textwrap.shorten(text, 160)
