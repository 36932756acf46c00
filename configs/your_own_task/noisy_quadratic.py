"""A learning rate and its decay, for descent on noisy parabolas."""

import dataclasses

import jax
import jax.numpy as jnp

CURVATURES = jnp.logspace(-2, 0, 20)


@dataclasses.dataclass(frozen=True)
class NoisyQuadratic:
    episode_length: int = 500
    noise: float = 1.0

    def initial_theta(self, key):
        return {"log_rate": jnp.array(-1.0), "decay": jnp.array(1.0)}

    def init(self, theta, key):
        return jnp.full(CURVATURES.shape, 3.0), jnp.int32(0)

    def step(self, theta, state, key):
        point, steps = state
        rate = jnp.exp(theta["log_rate"]) / (1 + steps / 50) ** theta["decay"]
        target = self.noise * jax.random.normal(key, point.shape)
        point = point - rate * CURVATURES * (point - target)
        return (point, steps + 1), jnp.sum(CURVATURES * point**2) / 2
