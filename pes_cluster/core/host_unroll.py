"""The inner loop for host tasks: simulators in numpy, particle by particle.

The same window as `core.unroll`: clocks, resets, perturbations inside and the
final-loss objective follow the same rules, so that credit is the same function for
both.
"""

import dataclasses
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
    to.
    """
    inner_step = np.array(trajectories.inner_step)
    episode = np.array(trajectories.episode)
    pairs, members = inner_step.shape
    states = [
        [_take(trajectories.state, (p, m)) for m in range(members)]
        for p in range(pairs)
    ]
    if window.single_episode:
        inner_step[:] = 0
    first_limit = window.first_limit(identity.pair_id)
    limits = None if first_limit is None else np.asarray(first_limit)
    losses = np.zeros((pairs, members, window.length), np.float32)
    ended = np.zeros((pairs, members, window.length), bool)
    alive = np.ones((pairs, members), bool)
    carry = source.start
    for position in range(window.length):
        now = jnp.asarray(inner_step)
        carry, thetas = source.at(carry, now, jnp.int32(position))
        thetas = jax.tree.map(np.asarray, thetas)
        keys = _Keys(data, identity, episode, inner_step, position)
        for p, m in np.ndindex(pairs, members):
            if not alive[p, m]:
                continue
            theta = _take(thetas, (p, m))
            if inner_step[p, m] == 0:
                states[p][m] = task.init(theta, keys.episode(p, m))
            out = task.step(theta, states[p][m], keys.step(p, m))
            states[p][m], losses[p, m, position] = out[0], out[1]
            inner_step[p, m] += 1
            end = traits(task).terminates and bool(out[2])
            if limits is not None:
                limit = limits[p] if episode[p, m] == 0 else window.episode_length
                end = end or inner_step[p, m] >= limit
            if window.objective == "final":
                due = end or position == window.length - 1
                losses[p, m, position] = (
                    _final_loss(task)(theta, states[p][m], keys.objective(p, m))
                    if due
                    else 0.0
                )
            if end:
                ended[p, m, position] = True
                inner_step[p, m] = 0
                episode[p, m] += 1
                alive[p, m] = not window.single_episode
    lines = [jax.tree.map(lambda *x: np.stack(x), *row) for row in states]
    after = Trajectories(
        state=jax.tree.map(lambda *x: np.stack(x), *lines),
        inner_step=jnp.asarray(inner_step),
        episode=jnp.asarray(episode),
        objective=jnp.asarray(trajectories.objective),
    )
    return after, Unrolled(jnp.asarray(losses), jnp.asarray(ended))


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
