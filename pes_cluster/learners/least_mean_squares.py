"""Least mean squares on a random linear stream: the smallest whole learner in a block.

Widrow and Hoff 1960. Every seed follows a stream of its own, y_t = w* . x_t, and
updates its weights at every observation::

    w <- w + learning_rate (y_t - w . x_t) x_t

Its purpose is to show a learner block: weights, stream position and key live in the
block, one window is one scan of `steps_per_report` updates, and nothing goes through
the driver. The mean squared error falls as (1 - 2 lr + (d + 2) lr^2)^t for x ~ N(0, I)
in d dimensions.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pes_cluster.core import keys
from pes_cluster.core.blocks import BlockProgram, Report, pairs_per_block


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Learners:
    """Whole learners of one block; S = seeds of the block.

    Attributes:
        seed_id: Identity of each learner, [S].
        active: False for the padding of the last block, [S].
        weights: w, [S, d].
        target: w*, [S, d].
        position: Observations seen, scalar.
    """

    seed_id: jax.Array
    active: jax.Array
    weights: jax.Array
    target: jax.Array
    position: jax.Array


@dataclasses.dataclass(frozen=True)
class LeastMeanSquares:
    """Online linear regression on generated streams.

    Attributes:
        num_seeds: Independent learners.
        dimension: d.
        learning_rate: Step size; stable below 2 / (d + 2).
        steps_per_report: Updates in one window.
    """

    num_seeds: int = 8
    dimension: int = 4
    learning_rate: float = 0.05
    steps_per_report: int = 100

    def __post_init__(self) -> None:
        for field in ("num_seeds", "dimension", "steps_per_report"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field}: {getattr(self, field)} must be at least 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate: {self.learning_rate} must be positive")

    def build(self, task: Any, seed: int) -> BlockProgram:
        """Returns the block program; the stream is its own, `task` is None."""
        del task
        size = min(pairs_per_block(self.num_seeds), self.num_seeds)
        stream = keys.stream(seed, keys.DATA)

        def init(theta: Any, block: Any) -> Learners:
            del theta
            first = jnp.asarray(block, jnp.int32) * size
            seed_id = first + jnp.arange(size, dtype=jnp.int32)
            names = keys.folded(keys.stream(seed, keys.EPISODE), seed_id)
            target = jax.vmap(lambda key: jax.random.normal(key, (self.dimension,)))
            return Learners(
                seed_id=seed_id,
                active=seed_id < self.num_seeds,
                weights=jnp.zeros((size, self.dimension)),
                target=target(names),
                position=jnp.int32(0),
            )

        def update(now: Learners, _: None) -> tuple[Learners, jax.Array]:
            names = keys.folded(stream, now.seed_id, now.position)
            x = jax.vmap(lambda key: jax.random.normal(key, (self.dimension,)))(names)
            error = jnp.sum((now.target - now.weights) * x, axis=1)
            weights = now.weights + self.learning_rate * error[:, None] * x
            after = dataclasses.replace(now, weights=weights, position=now.position + 1)
            return after, jnp.square(error)

        def advance(
            theta: Any, learners: Learners, outer_step: Any
        ) -> tuple[Learners, Report]:
            del theta, outer_step
            after, errors = jax.lax.scan(update, learners, length=self.steps_per_report)
            active = jnp.where(learners.active, 1, 0)
            count = jnp.sum(active)
            mean = jnp.sum(jnp.mean(errors, axis=0) * active)
            return after, Report(
                gradient=None,
                weight=count.astype(jnp.float32),
                sums={"loss": mean.astype(jnp.float32)},
                counts={
                    "inner_steps": (count * self.steps_per_report).astype(jnp.int32),
                    "nonfinite": jnp.sum(~jnp.isfinite(errors)).astype(jnp.int32),
                },
            )

        return BlockProgram(-(-self.num_seeds // size), init, advance)
