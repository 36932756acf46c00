"""Random search: thetas drawn at random, of which the best so far is kept.

Bergstra and Bengio, *Random Search for Hyper-Parameter Optimization*, JMLR 2012. In
each outer step every particle draws a theta uniformly and unrolls one whole episode;
theta becomes the one with the lowest loss of all that were drawn since the run began::

    theta_i ~ U(low, high),     g = theta - argmin_i L_i,     theta <- theta - g

So it is a run as others are: its outer optimiser is gradient descent with learning rate
1, and evaluations are of the best theta so far, on data of their own.

Letters: N `num_particles`, thetas drawn in a step; T `episode_length`.

Bias: estimates no gradient. The best of many noisy losses is lower than its theta's
expectation; the evaluation is not. Cost per step: N T inner steps, of which T are
sequential; memory N |theta|.
"""

import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.core import keys, trees
from pes_cluster.core.blocks import (
    BlockProgram,
    Report,
    ScoredSteps,
    pairs_per_block,
)
from pes_cluster.core.host_unroll import host_unroll
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
from pes_cluster.estimators.search.ranges import Ranges, drawing


@dataclasses.dataclass(frozen=True)
class RandomSearch:
    """Keeps the best of all thetas drawn at random.

    Attributes:
        num_particles: N, how many are drawn in each outer step.
        ranges: [low, high] for all of theta, or for each of its leaves by name
            (``{log_decay: [-1, 3], ...}``), in theta's own, unconstrained units. None
            draws by the task's `initial_theta`.
        data: Who shares initial states and minibatches.
        objective: Sum of the step losses, or the final loss.
    """

    num_particles: int
    ranges: Ranges = None
    data: DataSharing = "pair"
    objective: Literal["sum", "final"] = "sum"

    replaces_theta: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.num_particles < 1:
            raise ValueError(f"num_particles: {self.num_particles} must be at least 1")

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the block program of a run; see `core.estimator.Estimator`."""
        check_task(task)
        if task.episode_length is None:
            raise TaskError(
                f"task {type(task).__name__} never ends (episode_length: None), so "
                "whole episodes cannot be compared"
            )
        window = Window(
            length=task.episode_length,
            episode_length=task.episode_length,
            noise_period="episode",
            terminates=traits(task).terminates,
            single_episode=True,
            objective=self.objective,
        )
        return _Search(
            task=task,
            window=window,
            draw=drawing(task, self.ranges),
            seed=seed,
            data=DataKeys(seed, self.data),
            number=self.num_particles,
            size=min(pairs_per_block(self.num_particles), self.num_particles),
            shapes=state_shapes(task),
        ).program()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Best:
    """The best theta that each particle of a block has drawn; R of them.

    Attributes:
        block: Index of the block, scalar.
        particle_id: Identity of each particle, [R].
        active: False for the padding of the last block, [R].
        loss: Of the best theta; infinite before there is one, [R, 1].
        theta: The best, leaves [R, 1, ...].
    """

    block: jax.Array
    particle_id: jax.Array
    active: jax.Array
    loss: jax.Array
    theta: Theta


@dataclasses.dataclass(frozen=True)
class _Search:
    task: Task[Any]
    window: Window
    draw: Any
    seed: int
    data: DataKeys
    number: int
    size: int
    shapes: Any

    def program(self) -> BlockProgram:
        return BlockProgram(
            num_blocks=-(-self.number // self.size),
            init=self.init,
            advance=self.advance,
            scored=ScoredSteps(self.score, self.weighted_sum, _chosen),
            jittable=not traits(self.task).host,
        )

    def init(self, theta: Theta, block: Any) -> Best:
        first = jnp.asarray(block, jnp.int32) * self.size
        particle_id = first + jnp.arange(self.size, dtype=jnp.int32)
        return Best(
            block=jnp.asarray(block, jnp.int32),
            particle_id=particle_id,
            active=particle_id < self.number,
            loss=jnp.full((self.size, 1), jnp.inf, jnp.float32),
            theta=trees.zeros(jax.tree.map(jnp.asarray, theta), self.size, 1),
        )

    def score(
        self, theta: Theta, best: Best, outer_step: Any
    ) -> tuple[Best, jax.Array, Report]:
        """Draws, unrolls, keeps the better; the scores are the best losses so far."""
        del theta
        step = jnp.asarray(outer_step, jnp.int32)
        root = keys.stream(self.seed, keys.NOISE)
        drawn = jax.vmap(self.draw)(keys.folded(root, best.particle_id, step))
        drawn = jax.tree.map(lambda leaf: leaf[:, None], drawn)
        losses = self._losses(drawn, best, step)
        finite = jnp.isfinite(losses) & best.active[:, None]
        losses = jnp.where(finite, losses, jnp.inf)
        best = dataclasses.replace(
            best,
            loss=jnp.minimum(losses, best.loss),
            theta=trees.select(losses < best.loss, drawn, best.theta),
        )
        return best, best.loss, self._report(best, losses, finite)

    def weighted_sum(self, theta: Theta, best: Best, weights: jax.Array) -> Theta:
        away = jax.tree.map(lambda now, then: now - then, theta, best.theta)
        return trees.weighted_sum(weights, away)

    def advance(self, theta: Theta, best: Best, outer_step: Any) -> tuple[Best, Report]:
        """Towards the best of this block alone."""
        best, scores, report = self.score(theta, best, outer_step)
        weights = _chosen(scores, best.active)
        gradient = self.weighted_sum(theta, best, weights)
        return best, dataclasses.replace(report, gradient=gradient)

    def _losses(self, thetas: Theta, best: Best, step: jax.Array) -> jax.Array:
        """Of one whole episode of each particle, [R, 1]."""
        clock = jnp.zeros((self.size, 1), jnp.int32)
        start = Trajectories(
            state=trees.zeros(self.shapes, self.size, 1),
            inner_step=clock,
            episode=clock + step,
            objective=jnp.zeros((self.size, 1), jnp.float32),
        )
        who = Identity(best.block, best.particle_id, step)
        steps = host_unroll if traits(self.task).host else unroll
        source = constant(thetas)
        _, seen = steps(self.task, self.window, source, start, who, self.data)
        return jnp.sum(seen.losses, axis=-1).astype(jnp.float32)

    def _report(self, best: Best, losses: jax.Array, finite: jax.Array) -> Report:
        count = jnp.sum(jnp.where(best.active, 1, 0))
        nonfinite = count - jnp.sum(finite)
        return Report(
            gradient=None,
            weight=count.astype(jnp.float32),
            sums={"loss": jnp.sum(jnp.where(finite, losses, 0))},
            counts={
                "inner_steps": (count * self.window.length).astype(jnp.int32),
                "nonfinite": nonfinite.astype(jnp.int32),
            },
        )


def _chosen(scores: Any, active: Any) -> Any:
    """N for the lowest score, 0 for the others; all 0 where none is finite.

    Of numpy arrays or of JAX's. It is the first of equals, so that nothing changes
    while nothing better is drawn.
    """
    flat = scores.reshape(-1)
    first = (np.arange(flat.size) == flat.argmin()) & (flat < np.inf)
    return (first * active.sum()).reshape(scores.shape).astype(scores.dtype)
