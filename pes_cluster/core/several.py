"""Several tasks, one theta: the mean of independent estimates.

As in google/learned_optimization, where several gradient estimators, each with its own
states, stand behind one update::

    g = 1/m sum_j g_j(theta),        g_j an estimate on task j with noise of its own

A block of such a run holds one block of each task, so that all blocks are still
advanced by one function; the number of particles must agree, the lengths of the
episodes need not. Independent noise costs nothing here and is worth having: where the
tasks' gradients agree, the mean has 1/m of one estimate's variance.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.core.blocks import BlockProgram, BlockState, Report
from pes_cluster.core.estimator import Estimator, Learner
from pes_cluster.core.task import (
    Task,
    TaskError,
    Theta,
    check_task,
    parts_of,
    theta_shapes,
)


def program_of(
    method: Estimator | Learner, task: Task[Any] | None, seed: int
) -> BlockProgram:
    """Returns the block program of a method on a task, or on each of several tasks.

    Raises:
        TaskError: A task breaks its contract, or lacks what the method needs.
        ValueError: The method's fields do not fit a task.
    """
    parts = parts_of(task)
    if parts is None or task is None:
        return method.build(task, seed)  # type: ignore[arg-type]
    check(task)
    return together(
        [method.build(part, part_seed(seed, j)) for j, part in enumerate(parts)]
    )


def check(task: Any) -> None:
    """Refuses a task, or several, that break the contract.

    Raises:
        TaskError: As `check_task`; or several tasks are none, or differ in theta.
    """
    name, parts = type(task).__name__, parts_of(task)
    if parts is None:
        check_task(task)
        return
    if not parts:
        raise TaskError(f"task {name} is made of no tasks; name at least one")
    for part in parts:
        check_task(part)
    thetas = [_theta_types(part) for part in parts]
    for part, theta in zip(parts, thetas, strict=True):
        if theta != thetas[0]:
            raise TaskError(
                f"task {name}: its tasks must have one theta, but that of "
                f"{type(parts[0]).__name__} is {thetas[0]} and that of "
                f"{type(part).__name__} is {theta}"
            )


def part_seed(seed: int, index: int) -> int:
    """The seed of the noise and data of a task among several."""
    return int(np.random.SeedSequence([seed, index]).generate_state(1)[0] >> 1)


def together(programs: Sequence[BlockProgram]) -> BlockProgram:
    """Returns the program whose blocks hold a block of each program.

    Raises:
        TaskError: A program is not one compiled function a window (host tasks, scores
            that are compared), or has another number of blocks.
    """
    if any(one.scored is not None or not one.jittable for one in programs):
        raise TaskError(
            "several tasks need JAX tasks and an estimator without shaping or search"
        )
    if len({one.num_blocks for one in programs}) > 1:
        raise TaskError("several tasks need one number of particles")

    def init(theta: Theta, block: Any) -> BlockState:
        return tuple(one.init(theta, block) for one in programs)

    def advance(
        theta: Theta, blocks: BlockState, outer_step: Any
    ) -> tuple[BlockState, Report]:
        pairs = zip(programs, blocks, strict=True)
        done = [one.advance(theta, block, outer_step) for one, block in pairs]
        blocks, reports = zip(*done, strict=True)
        return blocks, functools.reduce(_added, reports)

    return BlockProgram(
        programs[0].num_blocks, init, advance, resized=_resized(programs)
    )


def _resized(
    programs: Sequence[BlockProgram],
) -> Callable[[Theta, BlockState], BlockState] | None:
    if any(one.resized is None for one in programs):
        return None

    def resized(theta: Theta, blocks: BlockState) -> BlockState:
        pairs = zip(programs, blocks, strict=True)
        return tuple(one.resized(theta, block) for one, block in pairs if one.resized)

    return resized


def _added(one: Report, other: Report) -> Report:
    """The sum of two reports; a pair has diverged where it has on some task."""
    diverged = one.diverged
    if diverged is not None and other.diverged is not None:
        diverged = jnp.maximum(diverged, other.diverged)
    add: Any = functools.partial(jax.tree.map, jnp.add)
    return Report(
        gradient=add(one.gradient, other.gradient),
        weight=one.weight + other.weight,
        sums=add(one.sums, other.sums),
        counts=add(one.counts, other.counts),
        diverged=diverged,
    )


def _theta_types(task: Task[Any]) -> dict[str, str]:
    """Type and shape of every leaf of theta, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(theta_shapes(task))
    return {
        jax.tree_util.keystr(path): f"{np.result_type(x)}{list(np.shape(x))}"
        for path, x in leaves
    }
