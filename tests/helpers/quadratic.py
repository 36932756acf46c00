"""A quadratic problem whose gradients are known, many estimates of it, and a test.

s_t = A s_{t-1} + B theta, loss |s_t - y_t|^2 / 2, so antithetic
differences see the gradient exactly, and a window's truncation is plain to see.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PAIRS = 40_000


def _system() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, B and targets of s_t = A s_{t-1} + B theta, spectral radius 0.9."""
    random = np.random.default_rng(0)
    a = random.normal(size=(4, 4))
    a *= 0.9 / max(abs(np.linalg.eigvals(a)))
    b, y = random.normal(size=(4, 3)), random.normal(size=(12, 4))
    return tuple(x.astype(np.float32) for x in (a, b, y))  # type: ignore[return-value]


A, B, Y = _system()
THETA = jnp.array([0.1, 0.2, 0.3])


@dataclasses.dataclass(frozen=True)
class Quadratic:
    """L_t = 0.5 |s_t - y_t|^2: antithetic differences see the gradient exactly."""

    episode_length: int = 12
    final: bool = False

    def initial_theta(self, key: Any) -> jax.Array:
        return THETA

    def init(self, theta: jax.Array, key: Any) -> tuple[jax.Array, jax.Array]:
        return jnp.ones(4), jnp.int32(0)

    def step(self, theta: jax.Array, state: Any, key: Any) -> Any:
        x, t = state
        x = A @ x + B @ theta
        return (x, t + 1), 0.5 * jnp.sum((x - jnp.asarray(Y)[t]) ** 2)

    def final_loss(self, theta: jax.Array, state: Any, key: Any) -> jax.Array:
        return 0.5 * jnp.sum((state[0] - 1.0) ** 2)


def gradient(task: Quadratic, window: int | None, final: bool = False) -> np.ndarray:
    """The exact gradient of an episode, or (window) the truncated one."""

    def loss(theta: jax.Array) -> jax.Array:
        state, total = task.init(theta, None), jnp.float32(0)
        for t in range(task.episode_length):
            if window is not None and t % window == 0:
                state = jax.lax.stop_gradient(state)
            state, step_loss = task.step(theta, state, None)
            total += step_loss
        return task.final_loss(theta, state, None) if final else total

    return np.asarray(jax.grad(loss)(THETA), np.float64)


def estimates(es: Any, task: Any, first: int, windows: int, seed: int) -> np.ndarray:
    """Each pair's estimate, added over windows first..first+windows at fixed theta."""
    es = dataclasses.replace(es, num_particles=2 * PAIRS, pairs_per_block=1)
    program = es.build(task, seed)
    theta = task.initial_theta(None)

    def pair(index: jax.Array) -> jax.Array:
        def window(block: Any, step: jax.Array) -> tuple[Any, jax.Array]:
            block, report = program.advance(theta, block, step)
            return block, report.gradient / report.weight

        steps = jnp.arange(first + windows)
        _, gradients = jax.lax.scan(window, program.init(theta, index), steps)
        return jnp.sum(gradients[first:], axis=0)

    return np.asarray(jax.jit(jax.vmap(pair))(jnp.arange(PAIRS)), np.float64)


def t2(samples: np.ndarray, mean: np.ndarray) -> float:
    """Hotelling's statistic; chi2 with as many degrees of freedom as dimensions."""
    samples = samples.reshape(len(samples), -1)
    off = samples.mean(axis=0) - np.ravel(mean)
    covariance = np.atleast_2d(np.cov(samples.T))
    return float(len(samples) * off @ np.linalg.solve(covariance, off))
