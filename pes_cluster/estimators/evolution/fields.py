"""The fields that the evolution strategies share: noise scales, and what is refused."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from pes_cluster.core.perturbations import Sigma

MOST = 2**31 - 2  # Particles: a pair's number is an int32.


@dataclasses.dataclass(frozen=True)
class ExponentialDecay:
    """``sigma(k) = max(initial * rate ** (k / every), minimum)`` at outer step k."""

    initial: float
    rate: float
    every: int = 1
    minimum: float = 0.0
    type: Literal["exponential_decay"] = "exponential_decay"

    def __post_init__(self) -> None:
        if not (0 < self.initial < math.inf and 0 < self.rate <= 1 and self.every >= 1):
            raise ValueError(
                "sigma: exponential_decay needs initial > 0, 0 < rate <= 1, every >= 1"
            )

    def __call__(self, outer_step: jax.Array) -> jax.Array:
        """Returns sigma at an outer step."""
        decayed = self.initial * self.rate ** (outer_step / self.every)
        return jnp.maximum(jnp.asarray(decayed, jnp.float32), self.minimum)


def sigma_function(sigma: float | ExponentialDecay) -> Sigma:
    """Returns the noise scale as a function of the outer step."""
    if isinstance(sigma, ExponentialDecay):
        return sigma
    return lambda outer_step: jnp.full(jnp.shape(outer_step), sigma, jnp.float32)


def check_evolution(recipe: Any) -> None:
    """Refuses impossible fields of an evolution strategy.

    Raises:
        ValueError: One line that begins with the field's name.
    """
    for field in ("num_particles", "grown_from"):
        particles = getattr(recipe, field)
        if particles is not None and (particles < 2 or particles % 2):
            raise ValueError(
                f"{field}: {particles} is not allowed; N counts both signs of each "
                "antithetic pair, so it must be even and at least 2"
            )
        if particles is not None and particles > MOST:
            raise ValueError(f"{field}: {particles} must be at most {MOST}")
    length = getattr(recipe, "truncation_length", 1)
    if length < 1:
        raise ValueError(f"truncation_length: {length} must be at least 1")
    sigma = recipe.sigma
    if not isinstance(sigma, ExponentialDecay) and not 0 < sigma < math.inf:
        raise ValueError(f"sigma: {sigma} must be greater than 0, and finite")
    block = recipe.pairs_per_block
    if block is not None and block < 1:
        raise ValueError(f"pairs_per_block: {block} must be at least 1")
    if recipe.rank is not None and recipe.rank < 1:
        raise ValueError(f"rank: {recipe.rank} must be at least 1")
    cap = recipe.loss_cap
    if cap is not None and recipe.divergence != "cap":
        raise ValueError(
            f"loss_cap: {cap} is used by divergence: cap alone, not by "
            f"divergence: {recipe.divergence}"
        )
    # A step after an episode's end counts 0, which a cap below would change.
    if cap is not None and not 0 <= cap < math.inf:
        raise ValueError(f"loss_cap: {cap} must be a finite number from 0 on, or null")
