"""What a user writes: an inner problem that is unrolled for many steps under one theta.

A task is a frozen dataclass whose fields are its configuration. Its methods are pure::

    initial_theta(key) -> theta       meta-parameters, a pytree of floating arrays
    init(theta, key) -> state         the first inner state of an episode
    step(theta, state, key) -> (state, loss)          or, if `terminates`,
    step(theta, state, key) -> (state, loss, done)

Losses are summed over a window and minimised (reinforcement learning: minus the
reward). `episode_length` is T; None means that an episode never ends.

Optional class attributes and methods, read once through `traits`:

==================  ==============================================================
``terminates``      episodes may end by themselves; `step` also returns a `done`
``host``            numpy code (a simulator): called one trajectory at a time
``batched``         `init` and `step` take a leading batch axis on every argument
``differentiable``  False: derivatives of the losses say nothing about theta
``parts``           other tasks, which take this one's place (see `Several`)
``final_loss``      ``(theta, state, key) -> loss``, for ``objective: final``
``evaluate``        ``(theta, key) -> loss``, where it is not one full episode's
==================  ==============================================================
"""

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.core.task_error import TaskError as TaskError

Theta = Any  # A pytree of floating arrays; every estimator treats it leaf by leaf.
State = TypeVar("State")


_ARGUMENTS = {
    "initial_theta": ("key",),
    "init": ("theta", "key"),
    "step": ("theta", "state", "key"),
}


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


class Several(Protocol):
    """Several tasks with one theta; each is estimated by itself, and the mean taken.

    It has no state and no step: where a run has several tasks, each has states,
    perturbations and data of its own (`core.several`).
    """

    parts: tuple[Task[Any], ...]

    def initial_theta(self, key: jax.Array) -> Theta:
        """Returns the meta-parameters to start from; the key is consumed."""
        ...


@dataclasses.dataclass(frozen=True)
class Traits:
    """The optional parts of a task's contract, with their defaults filled in."""

    terminates: bool
    host: bool
    batched: bool
    differentiable: bool
    final_loss: Callable[..., Any] | None
    evaluate: Callable[..., Any] | None


def traits(task: Task[Any]) -> Traits:
    """Reads the optional attributes of a task."""
    return Traits(
        terminates=bool(getattr(task, "terminates", False)),
        host=bool(getattr(task, "host", False)),
        batched=bool(getattr(task, "batched", False)),
        differentiable=bool(getattr(task, "differentiable", True)),
        final_loss=getattr(task, "final_loss", None),
        evaluate=getattr(task, "evaluate", None),
    )


def parts_of(task: Any) -> tuple[Task[Any], ...] | None:
    """Returns the tasks of which this one is made, or None."""
    return getattr(task, "parts", None)


def check_task(task: Task[Any]) -> None:
    """Refuses a task that breaks the contract before anything expensive starts.

    Raises:
        TaskError: naming the task, what was found and what is expected.
    """
    name = type(task).__name__
    for method in _ARGUMENTS:
        if not callable(getattr(task, method, None)):
            raise TaskError(f"task {name} has no method {method}(...)")
    _check_signatures(name, task)
    length = getattr(task, "episode_length", 0)
    if length is not None and (not isinstance(length, int) or length < 1):
        raise TaskError(
            f"task {name}: episode_length must be a positive integer or None, "
            f"not {length!r}"
        )
    if traits(task).host:
        _check_theta(name, _host_theta(name, task))
    else:
        _check_traced(name, task)


def check_differentiable(task: Task[Any]) -> None:
    """Refuses a task whose losses have no derivative that an estimator could use.

    Raises:
        TaskError: One line that names the task and why.
    """
    name = type(task).__name__
    if traits(task).host:
        raise TaskError(f"task {name} is a host task and cannot be differentiated")
    if not traits(task).differentiable:
        raise TaskError(
            f"task {name} has losses whose derivatives say nothing about theta; "
            "choose an evolution strategy"
        )


def rehearse(task: Task[Any]) -> None:
    """Makes one step of a host task: nothing less tells what a simulator returns.

    Raises:
        TaskError: As `check_task`; what the task's own code raises rises as it is.
    """
    if not traits(task).host:
        return  # It was traced.
    name, key = type(task).__name__, jax.random.key(0)
    theta = jax.tree.map(np.asarray, _host_theta(name, task))
    state = task.init(theta, key)
    _check_numbers(name, "init", state)
    out = task.step(theta, state, key)
    _check_numbers(name, "step", out)
    state, out = jax.tree.map(np.asarray, (state, out))
    _check_step(name, task, state, out)


def theta_shapes(task: Task[Any]) -> Theta:
    """Returns shapes and dtypes of theta, without running a traced task."""
    if traits(task).host:
        return jax.tree.map(np.asarray, task.initial_theta(jax.random.key(0)))
    return jax.eval_shape(lambda: task.initial_theta(jax.random.key(0)))


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


def _check_signatures(name: str, task: Task[Any]) -> None:
    for method, arguments in _ARGUMENTS.items():
        try:
            inspect.signature(getattr(task, method)).bind(*arguments)
        except TypeError:
            raise TaskError(
                f"task {name}: {method} must take ({', '.join(arguments)})"
            ) from None


def _check_traced(name: str, task: Task[Any]) -> None:
    key = jax.eval_shape(lambda: jax.random.key(0))
    theta = _shapes(name, task.initial_theta, key)
    _check_theta(name, theta)
    if traits(task).batched:
        theta, key = jax.eval_shape(
            lambda t, k: jax.tree.map(lambda x: x[None], (t, k)), theta, key
        )
    state = _shapes(name, task.init, theta, key)
    out = _shapes(name, task.step, theta, state, key)
    _check_step(name, task, state, out)


def _host_theta(name: str, task: Task[Any]) -> Theta:
    theta = task.initial_theta(jax.random.key(0))
    _check_numbers(name, "initial_theta", theta)
    return theta


def _shapes(name: str, method: Callable[..., Any], *arguments: Any) -> Any:
    """What a method returns, traced.

    Raises:
        TaskError: Something else than arrays.
    """
    try:
        return jax.eval_shape(method, *arguments)
    except TypeError as error:
        found = re.search("value of type (.*?),? which is not a valid JAX", str(error))
        if found is None:
            raise
        place = f"{found[1]}".replace(" at output component", " at")
        raise TaskError(
            f"task {name}: {method.__name__} must return arrays, not {place}"
        ) from None


def _check_numbers(name: str, method: str, tree: Any) -> None:
    for leaf in jax.tree.leaves(tree):
        if np.asarray(leaf).dtype.kind not in "biufc":
            raise TaskError(
                f"task {name}: {method} must return arrays of numbers, not "
                f"{type(leaf).__name__} {leaf!r:.40}"
            )


def _check_theta(name: str, theta: Theta) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(theta)
    if not leaves:
        raise TaskError(f"task {name}: initial_theta returned a pytree without arrays")
    for path, leaf in leaves:
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.result_type(leaf)
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TaskError(
                f"task {name}: theta{jax.tree_util.keystr(path)} is {dtype}; "
                "every leaf of theta must be floating point"
            )


def _check_step(name: str, task: Task[Any], state: Any, out: Any) -> None:
    expected = 3 if traits(task).terminates else 2
    if not isinstance(out, tuple) or len(out) != expected:
        raise TaskError(
            f"task {name}: step must return {expected} values "
            f"({'state, loss, done' if expected == 3 else 'state, loss'}; "
            "three only where `terminates = True`)"
        )
    loss = out[1]
    shape = (1,) if traits(task).batched else ()
    if getattr(loss, "shape", None) != shape:
        raise TaskError(
            f"task {name}: the loss of a step must be a scalar, "
            f"not of shape {getattr(loss, 'shape', None)}"
        )
    if not (traits(task).host or jnp.issubdtype(loss.dtype, jnp.floating)):
        raise TaskError(
            f"task {name}: the loss of a step is {loss.dtype}; it must be floating "
            "point"
        )
    if not _alike(state, out[0], types=not traits(task).host):
        raise TaskError(
            f"task {name}: step must return a state of the structure, shapes and "
            f"dtypes that init returns ({state} became {out[0]})"
        )


def _alike(before: Any, after: Any, types: bool) -> bool:
    """Whether two states have one structure and shape, and dtype where it matters."""
    if jax.tree.structure(before) != jax.tree.structure(after):
        return False
    return all(
        x.shape == y.shape and (x.dtype == y.dtype or not types)
        for x, y in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    )
