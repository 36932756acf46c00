"""The inner loop for host tasks: simulators in numpy, particle by particle.

The same window as `core.unroll`: clocks, resets, perturbations inside and the
final-loss objective follow the same rules, so that credit is the same function for
both.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.core.keys import DataKeys
from pes_cluster.core.pairs import Trajectories
from pes_cluster.core.task import Task, TaskError, Theta, traits
from pes_cluster.core.timeline import Window
from pes_cluster.core.unroll import Identity, ThetaSource, Unrolled


def host_unroll(
    task: Task[Any],
    window: Window,
    source: ThetaSource,
    trajectories: Trajectories,
    identity: Identity,
    data: DataKeys,
) -> tuple[Trajectories, Unrolled]:
    """Advances trajectories of a host task by K inner steps; see `core.unroll.unroll`.

    States are pytrees of numpy arrays. The arrays that are passed in are not written
    to. Between windows states are kept in JAX's types (float32, unless JAX_ENABLE_X64
    is set), so that a saved block is the block.
    """
    walk = _Walk(task, window, identity, data, trajectories)
    carry = source.start
    for position in range(window.length):
        now = jnp.asarray(walk.inner_step)
        carry, thetas = source.at(carry, now, jnp.int32(position))
        walk.advance(jax.tree.map(np.asarray, thetas), position)
    return walk.trajectories(), walk.unrolled()


class _Walk:
    """Trajectories under way: their clocks and states, and what they have returned."""

    def __init__(
        self,
        task: Task[Any],
        window: Window,
        identity: Identity,
        data: DataKeys,
        start: Trajectories,
    ) -> None:
        self.task, self.window, self.identity, self.data = task, window, identity, data
        # Copies: what was handed in is not written to.
        self.inner_step = np.array(start.inner_step)
        self.episode = np.array(start.episode)
        if window.single_episode:
            self.inner_step[:] = 0
        self.objective = start.objective
        shape = self.inner_step.shape
        self.states = [
            [_take(start.state, (p, m)) for m in range(shape[1])]
            for p in range(shape[0])
        ]
        self.lengths = window.lengths(identity.pair_id)
        self.limits: np.ndarray | None = None  # Of the present episodes.
        self.losses = np.zeros((*shape, window.length), np.float32)
        self.ended = np.zeros((*shape, window.length), bool)
        self.alive = np.ones(shape, bool)

    def advance(self, thetas: Theta, position: int) -> None:
        """One inner step of every trajectory."""
        keys = _Keys(self.data, self.identity, self.episode, self.inner_step, position)
        if self.lengths is not None:
            self.limits = np.asarray(self.lengths.of(jnp.array(self.episode)))
        for p, m in np.ndindex(self.inner_step.shape):
            if self.alive[p, m]:
                with self._noted(p, m):
                    self._step(p, m, _take(thetas, (p, m)), keys, position)

    def _step(self, p: int, m: int, theta: Theta, keys: "_Keys", position: int) -> None:
        if self.inner_step[p, m] == 0:
            self.states[p][m] = self.task.init(theta, keys.episode(p, m))
        out = self.task.step(theta, self.states[p][m], keys.step(p, m))
        self.states[p][m], self.losses[p, m, position] = out[0], out[1]
        self.inner_step[p, m] += 1
        done = traits(self.task).terminates and bool(out[2])
        end = done or self._full_length(p, m)
        if self.window.objective == "final":
            self.losses[p, m, position] = (
                _final_loss(self.task)(theta, out[0], keys.objective(p, m))
                if end or position == self.window.length - 1
                else 0.0
            )
        if end:
            self.ended[p, m, position] = True
            self.inner_step[p, m] = 0
            self.episode[p, m] += 1
            self.alive[p, m] = not self.window.single_episode

    @contextlib.contextmanager
    def _noted(self, p: int, m: int) -> Iterator[None]:
        """Says with an error of the task's in which particle and step it was raised."""
        try:
            yield
        except Exception as error:  # Whatever the task's own code may raise; it rises.
            pair, sign = int(np.asarray(self.identity.pair_id)[p]), "+-"[m % 2]
            when = f"inner step {self.inner_step[p, m]}"
            error.add_note(
                f"particle {pair}{sign}, episode {self.episode[p, m]}, {when}"
            )
            raise

    def _full_length(self, p: int, m: int) -> bool:
        """Whether the clock ends the episode with this step."""
        if self.limits is None:
            return False
        return bool(self.inner_step[p, m] >= self.limits[p, m])

    def trajectories(self) -> Trajectories:
        """Where they are now."""
        lines = [jax.tree.map(_stacked, *row) for row in self.states]
        return Trajectories(
            state=jax.tree.map(_stacked, *lines),
            inner_step=jnp.asarray(self.inner_step),
            episode=jnp.asarray(self.episode),
            objective=jnp.asarray(self.objective),
        )

    def unrolled(self) -> Unrolled:
        """What their steps returned."""
        return Unrolled(jnp.asarray(self.losses), jnp.asarray(self.ended))


@dataclasses.dataclass
class _Keys:
    """The keys of one position, made for all trajectories at once, on first use."""

    data: DataKeys
    identity: Identity
    clock_episode: np.ndarray
    clock_step: np.ndarray
    position: int

    def __post_init__(self) -> None:
        who = (self.identity.pair_id, self.identity.block)
        episode = jnp.array(self.clock_episode)
        self._episode = self.data.episode(*who, episode)
        self._objective = self.data.objective(*who, episode)
        when = (self.identity.outer_step, jnp.int32(self.position))
        self._step = self.data.step(*who, episode, jnp.array(self.clock_step), *when)

    def episode(self, pair: int, member: int) -> jax.Array:
        return _shared(self._episode, pair, member)

    def objective(self, pair: int, member: int) -> jax.Array:
        return _shared(self._objective, pair, member)

    def step(self, pair: int, member: int) -> jax.Array:
        return _shared(self._step, pair, member)


def _stacked(*leaves: Any) -> np.ndarray:
    array = np.stack(leaves)
    return array.astype(jax.dtypes.canonicalize_dtype(array.dtype))


def _shared(keys: jax.Array, pair: int, member: int) -> jax.Array:
    """Indexes an array of keys whose axes may be of size 1 where they are shared."""
    return keys[min(pair, keys.shape[0] - 1), min(member, keys.shape[1] - 1)]


def _take(tree: Any, index: tuple[int, int]) -> Theta:
    def take(leaf: Any) -> Any:
        pair, member = (
            min(i, n - 1) for i, n in zip(index, leaf.shape[:2], strict=True)
        )
        return np.asarray(leaf)[pair, member]

    return jax.tree.map(take, tree)


def _final_loss(task: Task[Any]) -> Any:
    final_loss = traits(task).final_loss
    if final_loss is None:
        raise TaskError(
            f"task {type(task).__name__} has no final_loss(theta, state, key), which "
            "`objective: final` needs"
        )
    return final_loss
