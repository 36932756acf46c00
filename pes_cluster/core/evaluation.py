"""The loss of the unperturbed theta over one full episode."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.core.task import Task, TaskError, Theta, parts_of, traits


def evaluator(
    task: Task[Any], objective: Literal["sum", "final"] = "sum"
) -> Callable[[Theta, jax.Array], Any]:
    """Returns ``(theta, key) -> loss`` of one episode from its begin.

    A task with an `evaluate` of its own is asked; else the episode's step losses are
    summed (or its final loss taken) up to `episode_length` or the task's own end. Of
    several tasks it is the mean.

    Raises:
        TaskError: The task's episodes never end and it has no `evaluate`.
    """
    parts = parts_of(task)
    if parts is not None:
        return _mean([evaluator(part, objective) for part in parts])
    trait = traits(task)
    if trait.evaluate is not None:
        return trait.evaluate
    if task.episode_length is None:
        raise TaskError(
            f"task {type(task).__name__} never ends (episode_length: None), so it "
            "needs a method evaluate(theta, key) -> loss"
        )
    run = _host_episode if trait.host else _episode
    return lambda theta, key: run(task, objective, theta, key)


def _mean(
    evaluators: list[Callable[[Theta, jax.Array], Any]],
) -> Callable[[Theta, jax.Array], Any]:
    def mean(theta: Theta, key: jax.Array) -> Any:
        keys = jax.random.split(key, len(evaluators))
        losses = [one(theta, key) for one, key in zip(evaluators, keys, strict=True)]
        return sum(losses[1:], losses[0]) / len(losses)

    return mean


def _episode(task: Task[Any], objective: str, theta: Theta, key: jax.Array) -> Any:
    trait = traits(task)
    batch = (
        (lambda tree: jax.tree.map(lambda x: x[None], tree))
        if trait.batched
        else (lambda tree: tree)
    )
    first, steps, last = jax.random.split(key, 3)
    thetas = batch(theta)
    state = task.init(thetas, batch(first))

    def step(carry: Any, index: jax.Array) -> tuple[Any, None]:
        state, alive, total = carry
        out = task.step(thetas, state, batch(jax.random.fold_in(steps, index)))
        total = total + jnp.where(alive, jnp.sum(out[1]), 0)
        # After its own end an episode's state is frozen, so that final_loss sees the
        # end.
        after = jax.tree.map(lambda a, b: jnp.where(alive, a, b), out[0], state)
        if trait.terminates:
            alive = alive & ~jnp.any(out[2])
        return (after, alive, total), None

    shape = jax.eval_shape(task.step, thetas, state, batch(steps))[1]
    start = (state, jnp.asarray(True), jnp.zeros((), shape.dtype))
    carry, _ = jax.lax.scan(step, start, jnp.arange(task.episode_length or 0))
    if objective == "final" and trait.final_loss is not None:
        return jnp.sum(trait.final_loss(thetas, carry[0], batch(last)))
    return carry[2]


def _host_episode(task: Task[Any], objective: str, theta: Theta, key: jax.Array) -> Any:
    trait = traits(task)
    first, steps, last = jax.random.split(key, 3)
    state, total = task.init(theta, first), np.float64(0.0)
    for index in range(task.episode_length or 0):
        out = task.step(theta, state, jax.random.fold_in(steps, index))
        state, total = out[0], total + np.float64(out[1])
        if trait.terminates and bool(out[2]):
            break
    if objective == "final" and trait.final_loss is not None:
        total = np.float64(trait.final_loss(theta, state, last))
    return np.float32(total)
