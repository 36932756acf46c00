"""What a user writes: an inner problem that is unrolled for many steps under one theta.

A task is a frozen dataclass whose fields are its configuration. Its methods are pure::

    initial_theta(key) -> theta       meta-parameters, a pytree of floating arrays
    init(theta, key) -> state         the first inner state of an episode
    step(theta, state, key) -> (state, loss)          or, if `terminates`,
    step(theta, state, key) -> (state, loss, done)

Losses are summed over a window and minimised (reinforcement learning: minus the
reward). `episode_length` is T; None means that an episode never ends.

Optional class attributes and methods, read once through `traits`:

==============  ==================================================================
``terminates``  episodes may end by themselves; `step` also returns a boolean `done`
``host``        numpy code (a simulator): called trajectory by trajectory, not traced
``batched``     `init` and `step` take a leading batch axis on every argument
``final_loss``  ``(theta, state, key) -> loss``, the objective of ``objective: final``
``evaluate``    ``(theta, key) -> loss``, where it is not one full episode's loss
==============  ==================================================================
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

Theta = Any  # A pytree of floating arrays; every estimator treats it leaf by leaf.
State = TypeVar("State")


class TaskError(ValueError):
    """A task that breaks its contract; the message is one line that names the task."""


class Task(Protocol[State]):
    """An inner problem with T = `episode_length` steps (None: it never ends)."""

    episode_length: int | None

    def initial_theta(self, key: jax.Array) -> Theta:
        """Returns the meta-parameters to start from; the key is consumed."""
        ...

    def init(self, theta: Theta, key: jax.Array) -> State:
        """Returns the first inner state of an episode; the key is consumed."""
        ...

    def step(self, theta: Theta, state: State, key: jax.Array) -> tuple[Any, ...]:
        """Advances one inner step to (state, loss[, done]); the key is consumed."""
        ...


@dataclasses.dataclass(frozen=True)
class Traits:
    """The optional parts of a task's contract, with their defaults filled in."""

    terminates: bool
    host: bool
    batched: bool
    final_loss: Callable[..., Any] | None
    evaluate: Callable[..., Any] | None


def traits(task: Task[Any]) -> Traits:
    """Reads the optional attributes of a task."""
    return Traits(
        terminates=bool(getattr(task, "terminates", False)),
        host=bool(getattr(task, "host", False)),
        batched=bool(getattr(task, "batched", False)),
        final_loss=getattr(task, "final_loss", None),
        evaluate=getattr(task, "evaluate", None),
    )


def check_task(task: Task[Any]) -> None:
    """Refuses a task that breaks the contract before anything expensive starts.

    Raises:
        TaskError: naming the task, what was found and what is expected.
    """
    name = type(task).__name__
    for method in ("initial_theta", "init", "step"):
        if not callable(getattr(task, method, None)):
            raise TaskError(f"task {name} has no method {method}(...)")
    length = getattr(task, "episode_length", 0)
    if length is not None and (not isinstance(length, int) or length < 1):
        raise TaskError(
            f"task {name}: episode_length must be a positive integer or None, "
            f"not {length!r}"
        )
    if traits(task).host:
        _check_theta(name, task.initial_theta(jax.random.key(0)))
        return
    key = jax.eval_shape(lambda: jax.random.key(0))
    theta = jax.eval_shape(task.initial_theta, key)
    _check_theta(name, theta)
    _check_step(name, task, theta, key)


def state_shapes(task: Task[Any]) -> Any:
    """Returns shapes and dtypes of one inner state, without running a traced task."""
    key = jax.random.key(0)
    if traits(task).host:
        state = task.init(task.initial_theta(key), key)
        return jax.tree.map(np.asarray, state)

    def one(key: jax.Array) -> Any:
        theta = task.initial_theta(key)
        if not traits(task).batched:
            return task.init(theta, key)
        line = jax.tree.map(lambda x: jnp.asarray(x)[None], (theta, key))
        return jax.tree.map(lambda x: x[0], task.init(*line))

    return jax.eval_shape(one, key)


def _check_theta(name: str, theta: Theta) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(theta)
    if not leaves:
        raise TaskError(f"task {name}: initial_theta returned a pytree without arrays")
    for path, leaf in leaves:
        dtype = np.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TaskError(
                f"task {name}: theta{jax.tree_util.keystr(path)} is {dtype}; "
                "every leaf of theta must be floating point"
            )


def _check_step(name: str, task: Task[Any], theta: Theta, key: Any) -> None:
    if traits(task).batched:
        theta, key = jax.eval_shape(
            lambda t, k: jax.tree.map(lambda x: x[None], (t, k)), theta, key
        )
    state = jax.eval_shape(task.init, theta, key)
    out = jax.eval_shape(task.step, theta, state, key)
    expected = 3 if traits(task).terminates else 2
    if not isinstance(out, tuple) or len(out) != expected:
        raise TaskError(
            f"task {name}: step must return {expected} values "
            f"({'state, loss, done' if expected == 3 else 'state, loss'}; "
            "three only where `terminates = True`)"
        )
    shape = (1,) if traits(task).batched else ()
    if getattr(out[1], "shape", None) != shape:
        raise TaskError(
            f"task {name}: the loss of a step must be a scalar, "
            f"not of shape {getattr(out[1], 'shape', None)}"
        )
    before, after = jax.tree.structure(state), jax.tree.structure(out[0])
    types = [(x.shape, x.dtype) for x in jax.tree.leaves(state)]
    if before != after or types != [
        (x.shape, x.dtype) for x in jax.tree.leaves(out[0])
    ]:
        raise TaskError(
            f"task {name}: step must return a state of the structure, shapes and "
            f"dtypes that init returns ({state} became {out[0]})"
        )
