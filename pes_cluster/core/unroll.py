"""The one inner loop: K steps of many trajectories, resets and perturbations inside.

Nothing else calls a JAX task. The loop knows neither estimators nor gradients; it is
differentiable in theta, so the gradient baselines use it too.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pes_cluster.core import trees
from pes_cluster.core.keys import DataKeys
from pes_cluster.core.pairs import Trajectories
from pes_cluster.core.task import Task, TaskError, Theta, traits
from pes_cluster.core.timeline import Window


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
    pairs, members = trajectories.inner_step.shape
    shape = (pairs, members)
    trait = traits(task)
    limit = window.first_limit(identity.pair_id)

    def begin(now: Trajectories, thetas: Theta) -> Trajectories:
        fresh = now.inner_step == 0

        def restart(state: Any) -> Any:
            names = data.episode(identity.pair_id, identity.block, now.episode)
            new = spread(task.init, shape, trait.batched)(thetas, names)
            return trees.select(fresh, _full(new, shape), state)

        state = jax.lax.cond(jnp.any(fresh), restart, lambda s: s, now.state)
        return dataclasses.replace(now, state=state)

    def step(now: Trajectories, thetas: Theta, position: jax.Array) -> tuple[Any, ...]:
        names = data.step(
            identity.pair_id,
            identity.block,
            now.episode,
            now.inner_step,
            identity.outer_step,
            position,
        )
        advance = spread(task.step, shape, trait.batched)
        out = advance(thetas, now.state, names)
        state, loss = _full(out[0], shape), _full(out[1], shape)
        clock = now.inner_step + 1
        ended = _full(out[2], shape) if trait.terminates else jnp.zeros(shape, bool)
        if limit is not None:
            full = jnp.int32(window.episode_length or 0)
            ended |= clock >= jnp.where(now.episode == 0, limit[:, None], full)
        return state, loss, ended, clock

    def body(carry: Any, position: jax.Array) -> tuple[Any, Any]:
        now, noise, alive = carry
        noise, thetas = source.at(noise, now.inner_step, position)
        if window.begins_inside:
            now = begin(now, thetas)
        state, loss, ended, clock = step(now, thetas, position)
        if window.objective == "final":
            due = ended | (position == window.length - 1)
            loss = _final_loss(
                task, shape, data, identity, thetas, state, now.episode, due
            )
        if window.single_episode:
            loss, ended = jnp.where(alive, loss, 0), ended & alive
            alive = alive & ~ended
            clock = jnp.where(alive, clock, 0)
        after = Trajectories(
            state=state,
            inner_step=jnp.where(ended, 0, clock),
            episode=now.episode + ended,
            objective=now.objective,
        )
        return (after, noise, alive), Unrolled(loss, ended)

    start = trajectories
    if window.single_episode:
        start = dataclasses.replace(start, inner_step=jnp.zeros(shape, jnp.int32))
    if not window.begins_inside:
        _, thetas = source.at(source.start, start.inner_step, jnp.int32(0))
        start = begin(start, thetas)
    carry = (start, source.start, jnp.ones(shape, bool))
    (after, _, _), seen = jax.lax.scan(body, carry, jnp.arange(window.length))
    return after, jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), seen)


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


def _final_loss(
    task: Task[Any],
    shape: tuple[int, int],
    data: DataKeys,
    identity: Identity,
    thetas: Theta,
    state: Any,
    episode: jax.Array,
    due: jax.Array,
) -> jax.Array:
    """The final-loss objective where it is due, 0 elsewhere, [P, M]."""
    final_loss = traits(task).final_loss
    if final_loss is None:
        raise TaskError(
            f"task {type(task).__name__} has no final_loss(theta, state, key), which "
            "`objective: final` needs"
        )
    names = data.objective(identity.pair_id, identity.block, episode)

    def evaluate() -> jax.Array:
        value = spread(final_loss, shape, traits(task).batched)(thetas, state, names)
        value = _full(value, shape)
        return jnp.where(due, value, 0)

    zero = jax.eval_shape(evaluate)
    return jax.lax.cond(jnp.any(due), evaluate, lambda: jnp.zeros(shape, zero.dtype))
