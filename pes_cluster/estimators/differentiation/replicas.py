"""Unperturbed trajectories of a shared theta, window by window."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from pes_cluster.core import trees
from pes_cluster.core.blocks import BlockProgram, BlockState, Report, pairs_per_block
from pes_cluster.core.keys import DataKeys, DataSharing
from pes_cluster.core.pairs import Trajectories
from pes_cluster.core.task import (
    Task,
    TaskError,
    Theta,
    check_differentiable,
    check_task,
    state_shapes,
    traits,
)
from pes_cluster.core.timeline import Window
from pes_cluster.core.unroll import Identity, constant, unroll

WindowLoss = Literal["sum", "last"]
Floats = list[jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Replicas:
    """Unperturbed trajectories of one block; R = replicas of the block.

    Attributes:
        block: Index of the block, scalar.
        replica_id: Identity of each replica, [R].
        active: False for the padding of the last block, [R].
        trajectories: One member each (M = 1).
        memory: What the method carries from window to window, leaves [R, 1, ...]; None
            where the incoming state is a constant.
    """

    block: jax.Array
    replica_id: jax.Array
    active: jax.Array
    trajectories: Trajectories
    memory: Any = None


@dataclasses.dataclass(frozen=True)
class ReplicaWindows:
    """The windows of a run's replicas; static.

    Attributes:
        task: The inner problem.
        window: The static shape of a window.
        data: Who shares initial states and minibatches.
        num_particles: How many independent trajectories are averaged.
        window_loss: ``sum`` of the step losses, or only the window's ``last`` one.
    """

    task: Task[Any]
    window: Window
    data: DataKeys
    num_particles: int
    window_loss: WindowLoss = "sum"

    @property
    def size(self) -> int:
        """Replicas of a block."""
        return min(pairs_per_block(self.num_particles), self.num_particles)

    def program(
        self,
        init: Callable[[Theta, Any], BlockState],
        advance: Callable[[Theta, BlockState, Any], tuple[BlockState, Report]],
    ) -> BlockProgram:
        """Returns the run's pure functions."""
        return BlockProgram(-(-self.num_particles // self.size), init, advance)

    def begin(self, theta: Theta, block: Any) -> Replicas:
        """A block before its first window, without memory."""
        del theta
        size, index = self.size, jnp.asarray(block, jnp.int32)
        replica_id = index * size + jnp.arange(size, dtype=jnp.int32)
        clock = jnp.zeros((size, 1), jnp.int32)
        return Replicas(
            block=index,
            replica_id=replica_id,
            active=replica_id < self.num_particles,
            trajectories=Trajectories(
                state=trees.zeros(state_shapes(self.task), size, 1),
                inner_step=clock,
                episode=clock,
                objective=jnp.zeros((size, 1), jnp.float32),
            ),
        )

    def unrolled(
        self, replicas: Replicas, outer_step: Any, thetas: Theta, floats: Floats
    ) -> tuple[tuple[jax.Array, Floats], Trajectories]:
        """One window, as a function of all that can be differentiated.

        Args:
            replicas: Under way.
            outer_step: Of the window.
            thetas: Leaves [R, 1, ...], or [1, 1, ...] where it is shared.
            floats: The floating leaves of the states; see `floating`.

        Returns:
            ((the window's loss of each replica, 0 for padding, [R]; floating leaves of
            the states after it), the trajectories after it).
        """
        before = replicas.trajectories
        state = with_floating(before.state, floats)
        who = Identity(
            replicas.block, replicas.replica_id, jnp.asarray(outer_step, jnp.int32)
        )
        after, seen = unroll(
            self.task,
            self.window,
            constant(thetas),
            dataclasses.replace(before, state=state),
            who,
            self.data,
        )
        losses = seen.losses[:, 0]
        if self.window_loss == "last":
            losses = losses[:, -1:]
        losses = jnp.sum(jnp.where(replicas.active[:, None], losses, 0), axis=1)
        return (losses, floating(after.state)), after

    def report(self, replicas: Replicas, losses: jax.Array, gradient: Theta) -> Report:
        """What the driver is told of a window."""
        count = jnp.sum(jnp.where(replicas.active, 1, 0))
        return Report(
            gradient=gradient,
            weight=count.astype(jnp.float32),
            sums={"loss": jnp.sum(losses).astype(jnp.float32)},
            counts={
                "inner_steps": (count * self.window.length).astype(jnp.int32),
                "nonfinite": jnp.sum(~jnp.isfinite(losses)).astype(jnp.int32),
            },
        )


def replica_windows(
    recipe: Any, task: Task[Any], seed: int, truncation_length: int | None
) -> ReplicaWindows:
    """Returns the windows of a gradient baseline; None means one whole episode.

    Raises:
        TaskError: The task cannot be differentiated.
        ValueError: The fields do not fit the task.
    """
    check_task(task)
    check_differentiable(task)
    name = type(task).__name__
    length = truncation_length or task.episode_length
    if length is None:
        raise TaskError(
            f"task {name} never ends (episode_length: None), so it has no full "
            "gradient by bptt; choose tbptt with a truncation_length"
        )
    if task.episode_length is not None and length > task.episode_length:
        raise ValueError(
            f"truncation_length: {length} is longer than the task's episode_length "
            f"{task.episode_length}"
        )
    window = Window(
        length=length,
        episode_length=task.episode_length,
        noise_period="window",
        terminates=traits(task).terminates,
        single_episode=truncation_length is None,
    )
    return ReplicaWindows(
        task=task,
        window=window,
        data=DataKeys(seed, recipe.data),
        num_particles=recipe.num_particles,
        window_loss=getattr(recipe, "window_loss", "sum"),
    )


@dataclasses.dataclass(frozen=True)
class OnlineGradient:
    """What the methods share that carry influences over the windows' borders.

    Attributes:
        truncation_length: K, inner steps of a window.
        num_particles: How many independent trajectories are averaged.
        data: Who shares initial states and minibatches.
    """

    truncation_length: int = 1
    num_particles: int = 1
    data: DataSharing = "pair"

    def __post_init__(self) -> None:
        check_replicas(self)


def shared(theta: Theta) -> Theta:
    """Theta with leading axes [1, 1]: the same for all replicas."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[None, None], theta)


def floating(state: Any) -> Floats:
    """The leaves that can be differentiated; counters and keys cannot."""
    return [leaf for leaf in jax.tree.leaves(state) if _is_floating(leaf)]


def with_floating(state: Any, floats: Floats) -> Any:
    """The state with these floating leaves in place of its own."""
    given = iter(floats)
    return jax.tree.map(lambda leaf: next(given) if _is_floating(leaf) else leaf, state)


def check_replicas(recipe: Any) -> None:
    """Refuses impossible fields of a gradient baseline.

    Raises:
        ValueError: One line that begins with the field's name.
    """
    if recipe.num_particles < 1:
        raise ValueError(f"num_particles: {recipe.num_particles} must be at least 1")
    if getattr(recipe, "truncation_length", 1) < 1:
        raise ValueError(
            f"truncation_length: {recipe.truncation_length} must be at least 1"
        )


def _is_floating(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.floating)
