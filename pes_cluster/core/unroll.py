"""The one inner loop: K steps of many trajectories, resets and perturbations inside.

Nothing else calls a JAX task. The loop knows neither estimators nor gradients; it is
differentiable in theta, so the gradient baselines use it too.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pes_cluster.core import trees
from pes_cluster.core.keys import DataKeys
from pes_cluster.core.pairs import Trajectories
from pes_cluster.core.task import Task, TaskError, Theta, traits
from pes_cluster.core.timeline import EpisodeLengths, Window


class ThetaSource(NamedTuple):
    """Theta of every trajectory at every step.

    Attributes:
        start: Whatever the source carries from step to step (perturbations).
        at: ``(carry, inner_step, position) -> (carry, thetas)``, thetas with leading
            axes [P, M], either of them 1 where it is shared.
    """

    start: Any
    at: Callable[[Any, jax.Array, jax.Array], tuple[Any, Theta]]


def constant(thetas: Theta) -> ThetaSource:
    """The same thetas for the whole window."""
    return ThetaSource((), lambda carry, _inner_step, _position: (carry, thetas))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Unrolled:
    """What the steps of a window returned, [P, M, K].

    Attributes:
        losses: Loss of each step; under ``objective: final`` the objective's value at
            the last step of the window or of an episode, and 0 elsewhere.
        ended: Whether the episode ended with the step.
    """

    losses: jax.Array
    ended: jax.Array


class Identity(NamedTuple):
    """Who the trajectories are, for the keys: block index, pair ids [P], outer step."""

    block: jax.Array
    pair_id: jax.Array
    outer_step: jax.Array


def unroll(
    task: Task[Any],
    window: Window,
    source: ThetaSource,
    trajectories: Trajectories,
    identity: Identity,
    data: DataKeys,
) -> tuple[Trajectories, Unrolled]:
    """Advances trajectories by K inner steps.

    An episode is begun lazily, when its first step is due, so that its initial state
    sees that step's theta. Where only the first step can begin one, it is tested once.
    """
    lengths = window.lengths(identity.pair_id)
    shape = (trajectories.inner_step.shape[0], trajectories.inner_step.shape[1])
    loop = _Loop(task, window, source, identity, data, shape, lengths)
    return loop.run(trajectories)


class _Stepped(NamedTuple):
    """What one inner step returned; `clock` counts it."""

    state: Any
    loss: jax.Array
    ended: jax.Array
    clock: jax.Array


class _Carry(NamedTuple):
    """What goes from step to step; `alive` is used by single episodes alone."""

    now: Trajectories
    noise: Any
    alive: jax.Array


@dataclasses.dataclass(frozen=True)
class _Loop:
    """What stays the same over the steps of one window."""

    task: Task[Any]
    window: Window
    source: ThetaSource
    identity: Identity
    data: DataKeys
    shape: tuple[int, int]
    lengths: EpisodeLengths | None

    def run(self, start: Trajectories) -> tuple[Trajectories, Unrolled]:
        """All steps of the window."""
        if self.window.single_episode:
            clock = jnp.zeros(self.shape, jnp.int32)
            start = dataclasses.replace(start, inner_step=clock)
        if not self.window.begins_inside:
            source = self.source
            _, thetas = source.at(source.start, start.inner_step, jnp.int32(0))
            start = self.begin(start, thetas)
        carry = _Carry(start, self.source.start, jnp.ones(self.shape, bool))
        positions = jnp.arange(self.window.length)
        after, seen = jax.lax.scan(self.tick, carry, positions)
        return after.now, jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), seen)

    def tick(self, carry: _Carry, position: jax.Array) -> tuple[_Carry, Unrolled]:
        """One inner step of every trajectory."""
        now, noise, alive = carry
        noise, thetas = self.source.at(noise, now.inner_step, position)
        if self.window.begins_inside:
            now = self.begin(now, thetas)
        stepped = self.step(now, thetas, position)
        if self.window.objective == "final":
            loss = self.final_loss(thetas, stepped, now.episode, position)
            stepped = stepped._replace(loss=loss)
        if self.window.single_episode:
            stepped, alive = _masked(stepped, alive)
        _, loss, ended, clock = stepped
        after = Trajectories(
            state=stepped.state,
            inner_step=jnp.where(ended, 0, clock),
            episode=now.episode + ended,
            objective=now.objective,
        )
        return _Carry(after, noise, alive), Unrolled(loss, ended)

    def begin(self, now: Trajectories, thetas: Theta) -> Trajectories:
        """Begins the episodes whose first step is due."""
        fresh = now.inner_step == 0
        who = self.identity

        def restart(state: Any) -> Any:
            names = self.data.episode(who.pair_id, who.block, now.episode)
            new = self._spread(self.task.init)(thetas, names)
            return trees.select(fresh, _full(new, self.shape), state)

        state = jax.lax.cond(jnp.any(fresh), restart, lambda s: s, now.state)
        return dataclasses.replace(now, state=state)

    def step(self, now: Trajectories, thetas: Theta, position: jax.Array) -> _Stepped:
        """Steps every trajectory, and says whose episode ended with it."""
        block, pair_id, outer_step = self.identity
        names = self.data.step(
            pair_id, block, now.episode, now.inner_step, outer_step, position
        )
        out = self._spread(self.task.step)(thetas, now.state, names)
        state, loss = _full(out[0], self.shape), _full(out[1], self.shape)
        clock = now.inner_step + 1
        by_itself = traits(self.task).terminates
        ended = _full(out[2], self.shape) if by_itself else jnp.zeros(self.shape, bool)
        if self.lengths is not None:
            ended |= clock >= self.lengths.of(now.episode)
        return _Stepped(state, loss, ended, clock)

    def final_loss(
        self,
        thetas: Theta,
        stepped: _Stepped,
        episode: jax.Array,
        position: jax.Array,
    ) -> jax.Array:
        """The final-loss objective where it is due, 0 elsewhere, [P, M]."""
        final_loss = traits(self.task).final_loss
        if final_loss is None:
            raise TaskError(
                f"task {type(self.task).__name__} has no final_loss(theta, state, "
                "key), which `objective: final` needs"
            )
        due = stepped.ended | (position == self.window.length - 1)
        who = self.identity
        names = self.data.objective(who.pair_id, who.block, episode)
        objective = self._spread(final_loss)

        def evaluate() -> jax.Array:
            value = _full(objective(thetas, stepped.state, names), self.shape)
            return jnp.where(due, value, 0)

        dtype = jax.eval_shape(evaluate).dtype
        nothing = functools.partial(jnp.zeros, self.shape, dtype)
        return jax.lax.cond(jnp.any(due), evaluate, nothing)

    def _spread(self, method: Callable[..., Any]) -> Callable[..., Any]:
        return spread(method, self.shape, traits(self.task).batched)


def _masked(stepped: _Stepped, alive: jax.Array) -> tuple[_Stepped, jax.Array]:
    """Hides what follows the end of a window's only episode."""
    loss, ended = jnp.where(alive, stepped.loss, 0), stepped.ended & alive
    alive = alive & ~ended
    clock = jnp.where(alive, stepped.clock, 0)
    return _Stepped(stepped.state, loss, ended, clock), alive


def spread(
    function: Callable[..., Any], shape: tuple[int, int], batched: bool
) -> Callable[..., Any]:
    """Maps a task's method over [pairs, members].

    An argument whose axis has size 1 where `shape` has more is shared, not copied: a
    minibatch that all pairs share stays unbatched through the whole step.
    """

    def mapped(*args: Any) -> Any:
        axes = [_mapped_axes(arg, shape) for arg in args]
        lines = [
            jax.tree.map(lambda x, a=a: x[_index(a)], arg)
            for arg, a in zip(args, axes, strict=True)
        ]
        members = _vmap(function, [a[1] for a in axes])
        return _vmap(members, [a[0] for a in axes])(*lines)

    def flat(*args: Any) -> Any:
        size = shape[0] * shape[1]
        lines = [
            jax.tree.map(lambda x: x.reshape((size, *x.shape[2:])), _full(arg, shape))
            for arg in args
        ]
        out = function(*lines)
        return jax.tree.map(lambda x: x.reshape((*shape, *x.shape[1:])), out)

    return flat if batched else mapped


def _vmap(function: Callable[..., Any], mapped: list[bool]) -> Callable[..., Any]:
    """Like `jax.vmap`; where no argument is mapped, the new axis has size 1."""
    if any(mapped):
        return jax.vmap(function, in_axes=tuple(0 if axis else None for axis in mapped))
    return lambda *args: jax.tree.map(lambda x: x[None], function(*args))


def _mapped_axes(arg: Any, shape: tuple[int, int]) -> tuple[bool, bool]:
    lead = jax.tree.leaves(arg)[0].shape[:2] if jax.tree.leaves(arg) else (1, 1)
    return lead[0] == shape[0], lead[1] == shape[1]


def _index(mapped: tuple[bool, bool]) -> tuple[slice | int, ...]:
    return tuple(slice(None) if axis else 0 for axis in mapped)


def _full(tree: Any, shape: tuple[int, int]) -> Any:
    def broadcast(leaf: Any) -> jax.Array:
        array = jnp.asarray(leaf)
        return jnp.broadcast_to(array, (*shape, *array.shape[2:]))

    return jax.tree.map(broadcast, tree)
