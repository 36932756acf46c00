"""Shards as persistent Ray actors; a lost one is rebuilt to the same bits.

Ray never restarts an actor here: it would put an empty one in the dead one's place. The
pool keeps the blocks as they were some steps ago and the ring of thetas since. A lost
shard is a new actor that adopts those blocks and replays the ring.
"""

import contextlib
import logging
import math
import os
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from jax import tree
from ray.exceptions import RayActorError, RayError, RayTaskError

from pes_cluster.cluster.assignment import assign
from pes_cluster.cluster.checkpoint import CheckpointError, Part
from pes_cluster.cluster.leaves import Arrays, check_blocks
from pes_cluster.cluster.local_pool import in_order
from pes_cluster.cluster.pool import Lost, Scored
from pes_cluster.cluster.settings import ClusterSettings, PerShard
from pes_cluster.cluster.shard import FencedError, Shard
from pes_cluster.cluster.work import Work
from pes_cluster.core.blocks import Report
from pes_cluster.core.task import Theta
from pes_cluster.ray_backend.session import (
    RayStartError,
    default_shards,
    session,
    unmet,
)

logger = logging.getLogger(__name__)

INLINE_FLOATS = 25_000  # Above it, one `ray.put` is cheaper than a copy in every call.
ATTEMPTS = 3  # Rebuilds of one shard within one call, before the run is given up.
START_SECONDS = 120.0  # For every shard to be placed and to build its functions.
SNAPSHOT_SHARE = 0.03  # Of the run's time, spent on snapshots.

Arguments = Callable[[int], tuple[Any, ...]]  # Of one shard's call.


class RayPool:
    """A pool of actors, one a shard, and the Ray they live on.

    Attributes:
        shards: How many.
        num_blocks: How many blocks they own together.
        recovered: How many lost shards have been rebuilt.

    Raises:
        RayStartError: Ray cannot be started, or cannot hold the shards.
    """

    def __init__(self, work: Work, settings: ClusterSettings) -> None:
        self._work, self._settings = work, settings
        self.num_blocks = work.program().num_blocks
        self.recovered = 0
        self._base: dict[int, Arrays] | None = None
        self._base_step = self._next_step = 0
        self._ring: list[tuple[int, Theta]] = []
        self._snapshot_seconds = self._step_seconds = 0.0
        with contextlib.ExitStack() as stack:
            stack.enter_context(session(settings))
            wanted = settings.shards or default_shards(settings.per_shard)
            self._assignment = assign(self.num_blocks, wanted)
            self.shards = len(self._assignment)
            lacking = unmet(ray.cluster_resources(), self.shards, settings.per_shard)
            if lacking is not None:
                raise RayStartError(lacking)
            self._actors = [self._actor() for _ in self._assignment]
            stack.callback(self._kill)
            self._await_start()
            self._session = stack.pop_all()

    def restore(self, blocks: dict[int, Arrays] | None, next_step: int) -> Lost | None:
        """See `Pool`."""
        check_blocks(blocks, self.num_blocks)
        self._base, self._ring = blocks, []
        self._base_step = self._next_step = next_step
        done = self._each("adopt", self._adopted)
        return done if isinstance(done, Lost) else None

    def step(self, outer_step: int, theta: Theta) -> list[Report] | Lost:
        """See `Pool`."""
        seen = self._window("advance", outer_step, theta)
        return seen if isinstance(seen, Lost) else in_order(seen)

    def score(self, outer_step: int, theta: Theta) -> list[Scored] | Lost:
        """See `Pool`."""
        seen = self._window("score", outer_step, theta)
        if isinstance(seen, Lost):
            return seen
        return [Scored(*one) for one in in_order(seen)]

    def weighted_sum(
        self, theta: Theta, weights: list[np.ndarray]
    ) -> list[Theta] | Lost:
        """See `Pool`."""
        sent = sendable(theta)
        seen = self._each(
            "weighted_sum",
            lambda shard: (sent, {i: weights[i] for i in self._assignment[shard]}),
        )
        return seen if isinstance(seen, Lost) else in_order(seen)

    def evaluate(
        self, theta: Theta, outer_step: int, episodes: int
    ) -> list[float] | Lost:
        """See `Pool`."""
        sent, indices = sendable(theta), list(range(episodes))
        seen = self._each(
            "evaluate",
            lambda shard: (sent, outer_step, indices[shard :: self.shards]),
        )
        return seen if isinstance(seen, Lost) else in_order(seen)

    def save(self, folder: str) -> list[Part] | Lost:
        """See `Pool`."""
        return self._each("save", lambda shard: (folder, f"shard_{shard}"))

    def close(self) -> None:
        """See `Pool`."""
        self._session.close()

    def _await_start(self) -> None:
        """Waits until every shard runs; what raised in one, its first call reports."""
        ready = [actor.__ray_ready__.remote() for actor in self._actors]
        done, waiting = ray.wait(ready, num_returns=len(ready), timeout=START_SECONDS)
        if waiting:
            each = self._settings.per_shard
            raise RayStartError(
                f"per_shard: {len(done)} of {self.shards} shards started within "
                f"{START_SECONDS:g} s; each needs a node with {each.num_cpus:g} CPU, "
                f"{each.num_gpus:g} GPU free and labels {each.labels}"
            )

    def _kill(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _window(self, method: str, outer_step: int, theta: Theta) -> list[Any] | Lost:
        """Advances every block, then remembers theta, or the blocks where it is due."""
        sent, began = sendable(theta), time.monotonic()
        seen = self._each(method, lambda shard: (outer_step, sent))
        if isinstance(seen, Lost):
            return seen
        self._next_step = outer_step + 1
        self._ring.append((outer_step, theta))
        self._step_seconds = time.monotonic() - began
        lost = self._snapshot() if self._snapshot_due() else None
        return seen if lost is None else lost

    def _snapshot_due(self) -> bool:
        worth = self._snapshot_seconds / max(self._step_seconds, 1e-4) / SNAPSHOT_SHARE
        return len(self._ring) >= max(10, math.ceil(worth))

    def _snapshot(self) -> Lost | None:
        began = time.monotonic()
        seen = self._each("snapshot", lambda shard: ())
        if isinstance(seen, Lost):
            return seen
        self._snapshot_seconds = time.monotonic() - began
        self._base = {index: block for part in seen for index, block in part.items()}
        self._base_step, self._ring = self._next_step, []
        return None

    def _each(self, method: str, arguments: Arguments) -> list[Any] | Lost:
        """Calls every shard and takes the answers as they come, rebuilding the lost.

        Raises:
            CheckpointError: The shard could not write its part.
        """
        answers: dict[int, Any] = {}
        attempts = [0] * self.shards
        pending = {self._call(i, method, arguments): i for i in range(self.shards)}
        deadline = self._deadline()
        while pending:
            ready, _ = ray.wait(
                list(pending), timeout=max(deadline - time.monotonic(), 0)
            )
            for reference in ready or list(pending):
                shard = pending.pop(reference)
                answer = self._taken(shard, reference) if ready else self._hung(shard)
                if not isinstance(answer, Lost):
                    answers[shard] = answer
                    continue
                attempts[shard] += 1
                if answer.user_error or attempts[shard] > ATTEMPTS:
                    return answer
                self._rebuild(answer)
                pending[self._call(shard, method, arguments)] = shard
                deadline = self._deadline()
        return [answers[shard] for shard in range(self.shards)]

    def _call(self, shard: int, method: str, arguments: Arguments) -> Any:
        return getattr(self._actors[shard], method).remote(*arguments(shard))

    def _deadline(self) -> float:
        return time.monotonic() + self._settings.step_deadline

    def _taken(self, shard: int, reference: Any) -> Any:
        """Returns the answer, or the error as a value."""
        try:
            return ray.get(reference)
        except RayTaskError as error:
            return _task_error(shard, error)
        except RayActorError as error:
            return _dead(shard, error)
        except RayError as error:
            return Lost(shard, _last_line(error))

    def _hung(self, shard: int) -> Lost:
        seconds = self._settings.step_deadline
        return Lost(shard, f"no answer within {seconds:g} s")

    def _rebuild(self, lost: Lost) -> None:
        """Puts a new actor in the place of a lost one and brings it up to date.

        The calls are queued, not awaited: an actor runs them in order, so that the call
        that follows meets the blocks as they were.
        """
        shard = lost.shard
        logger.warning(
            "shard %d lost before outer step %d (%s); replaying %d steps on a new one",
            shard,
            self._next_step + 1,
            lost.reason,
            len(self._ring),
        )
        # Before it is replaced: a shard that only hangs must never answer again.
        ray.kill(self._actors[shard])
        self._actors[shard] = self._actor()
        self._call(shard, "adopt", self._adopted)
        self._call(shard, "replay", lambda shard: (self._ring,))
        self.recovered += 1

    def _adopted(self, shard: int) -> tuple[Any, ...]:
        base = self._base
        blocks = {i: base[i] if base else None for i in self._assignment[shard]}
        return blocks, self._base_step

    def _actor(self) -> Any:
        return (
            ray.remote(Shard)
            .options(**options(self._settings.per_shard))
            .remote(self._work)
        )


def options(per_shard: PerShard) -> dict[str, Any]:
    """Ray's options of one shard's actor; pure but for the cache's folder."""
    chosen: dict[str, Any] = {
        "num_cpus": per_shard.num_cpus,
        "num_gpus": per_shard.num_gpus,
        "max_restarts": 0,
        "max_task_retries": 0,
        "scheduling_strategy": "SPREAD",
        "runtime_env": {"env_vars": environment(per_shard)},
    }
    if per_shard.labels:
        chosen["label_selector"] = dict(per_shard.labels)
    return chosen


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


def sendable(theta: Theta) -> Any:
    """Returns theta itself where it is small, else a reference to one shared copy."""
    size = sum(np.size(leaf) for leaf in tree.leaves(theta))
    return theta if size <= INLINE_FLOATS else ray.put(theta)


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


def _task_error(shard: int, error: RayTaskError) -> Lost:
    cause = error.cause
    if isinstance(cause, CheckpointError):
        raise CheckpointError(str(cause)) from None
    line = " ".join(f"{type(cause).__name__}: {cause}".split())
    return Lost(shard, line, user_error=not isinstance(cause, FencedError))


def _dead(shard: int, error: RayActorError) -> Lost:
    if error.actor_init_failed:
        return Lost(shard, _last_line(error), user_error=True)
    return Lost(shard, f"its process died ({_last_line(error)})")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return textwrap.shorten(f"{type(error).__name__}: {' '.join(lines[-1:])}", 160)
