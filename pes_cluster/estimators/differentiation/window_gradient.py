"""The gradient of a window's loss by reverse differentiation, behind TBPTT and BPTT."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from pes_cluster.core import trees
from pes_cluster.core.blocks import BlockProgram, Report, pairs_per_block
from pes_cluster.core.keys import DataKeys, DataSharing
from pes_cluster.core.pairs import Trajectories
from pes_cluster.core.task import (
    Task,
    TaskError,
    Theta,
    check_task,
    state_shapes,
    traits,
)
from pes_cluster.core.timeline import Window
from pes_cluster.core.unroll import Identity, constant, unroll

WindowLoss = Literal["sum", "last"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Replicas:
    """Unperturbed trajectories of one block; R = replicas of the block.

    Attributes:
        block: Index of the block, scalar.
        replica_id: Identity of each replica, [R].
        active: False for the padding of the last block, [R].
        trajectories: One member each (M = 1).
    """

    block: jax.Array
    replica_id: jax.Array
    active: jax.Array
    trajectories: Trajectories


@dataclasses.dataclass(frozen=True)
class WindowGradient:
    """``g = mean_i d/dtheta sum_{K steps} L_t(s_t; theta)``, incoming state constant.

    Attributes:
        num_particles: How many independent trajectories are averaged.
        truncation_length: K; None means one whole episode (BPTT).
        data: Who shares initial states and minibatches.
        window_loss: ``sum`` of the step losses, or only the window's ``last`` one.
    """

    num_particles: int
    truncation_length: int | None
    data: DataSharing
    window_loss: WindowLoss = "sum"

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the block program of a run; see `core.estimator.Estimator`."""
        check_task(task)
        name = type(task).__name__
        if traits(task).host:
            raise TaskError(f"task {name} is a host task and cannot be differentiated")
        length = self.truncation_length or task.episode_length
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
            single_episode=self.truncation_length is None,
        )
        return self._program(task, window, DataKeys(seed, self.data))

    def _program(self, task: Task[Any], window: Window, data: DataKeys) -> BlockProgram:
        size = min(pairs_per_block(self.num_particles), self.num_particles)

        def init(theta: Theta, block: Any) -> Replicas:
            replica_id = jnp.asarray(block, jnp.int32) * size + jnp.arange(
                size, dtype=jnp.int32
            )
            clock = jnp.zeros((size, 1), jnp.int32)
            return Replicas(
                block=jnp.asarray(block, jnp.int32),
                replica_id=replica_id,
                active=replica_id < self.num_particles,
                trajectories=Trajectories(
                    state=trees.zeros(state_shapes(task), size, 1),
                    inner_step=clock,
                    episode=clock,
                    objective=jnp.zeros((size, 1), jnp.float32),
                ),
            )

        def advance(
            theta: Theta, replicas: Replicas, outer_step: Any
        ) -> tuple[Replicas, Report]:
            theta = jax.tree.map(jnp.asarray, theta)

            def loss(theta: Theta) -> tuple[jax.Array, Any]:
                shared = jax.tree.map(lambda x: x[None, None], theta)
                who = Identity(
                    replicas.block,
                    replicas.replica_id,
                    jnp.asarray(outer_step, jnp.int32),
                )
                after, seen = unroll(
                    task, window, constant(shared), replicas.trajectories, who, data
                )
                losses = seen.losses[:, 0]
                if self.window_loss == "last":
                    losses = losses[:, -1:]
                losses = jnp.where(replicas.active[:, None], losses, 0)
                return jnp.sum(losses), (after, losses)

            gradient, (after, losses) = jax.grad(loss, has_aux=True)(theta)
            count = jnp.sum(jnp.where(replicas.active, 1, 0))
            report = Report(
                gradient=gradient,
                weight=count.astype(jnp.float32),
                sums={"loss": jnp.sum(losses).astype(jnp.float32)},
                counts={
                    "inner_steps": (count * window.length).astype(jnp.int32),
                    "nonfinite": jnp.sum(~jnp.isfinite(jnp.sum(losses, 1))).astype(
                        jnp.int32
                    ),
                },
            )
            return dataclasses.replace(replicas, trajectories=after), report

        return BlockProgram(-(-self.num_particles // size), init, advance)


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
