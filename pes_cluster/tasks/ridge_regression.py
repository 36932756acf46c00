"""One meta-parameter with a closed form: the penalty of a linear regression.

The L2 experiment of Vicol et al., ICML 2021, on data that are generated in the size of
their set (308 rows, 6 features). Gradient descent on the penalised training loss

    |X_train w - y_train|^2 / 2 + exp(theta) |w|^2 / 2

with the validation loss ``|X_valid w - y_valid|^2 / 2`` after each step as the loss of
the step. Episodes never end by default. Descent settles at the ridge solution

    w(theta) = (X'X + exp(theta) I)^-1 X'y        of the training rows

so the best theta is where this w has the least validation loss: 2.95 for the default
data. A window of one step sees the penalty pull on all directions alike, whatever their
curvature, and so comes to rest elsewhere, at 1.14.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.core.task import TaskError


class Rows(NamedTuple):
    """The two splits, standardised together: x [n, features], y [n], float64."""

    train_x: np.ndarray
    train_y: np.ndarray
    validation_x: np.ndarray
    validation_y: np.ndarray


@dataclasses.dataclass(frozen=True)
class RidgeRegression:
    """The log of a ridge penalty; theta is a scalar, the inner state w [features].

    Attributes:
        initial: Theta to start from; 5, 3, 1, -1, -3 and -5 are the published choices.
        learning_rate: Of the inner descent.
        episode_length: T; None: episodes never end.
        num_rows: Of the data, of which four in five train.
        num_features: Columns of X.
        noise: Standard deviation of what the features do not explain, where what they
            do has 1. The features are correlated.
        data_seed: Of the generated data.
    """

    initial: float = 5.0
    learning_rate: float = 1e-3
    episode_length: int | None = None
    num_rows: int = 308
    num_features: int = 6
    noise: float = 1.0
    data_seed: int = 20

    def __post_init__(self) -> None:
        if self.num_features < 1 or self.num_rows < 5:
            raise TaskError("ridge_regression: needs at least 5 rows and 1 feature")
        for field in ("learning_rate", "noise"):
            if not getattr(self, field) > 0:
                found = getattr(self, field)
                raise TaskError(
                    f"ridge_regression: {field} must be positive, not {found}"
                )

    def initial_theta(self, key: jax.Array) -> jax.Array:
        """Returns `initial`; the key is ignored."""
        del key
        return jnp.asarray(self.initial, dtype=float)

    def init(self, theta: jax.Array, key: jax.Array) -> jax.Array:
        """Starts at w = 0; the key is ignored."""
        del key
        return jnp.zeros(self.num_features, theta.dtype)

    def step(
        self, theta: jax.Array, state: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Descends once and returns the validation loss there; the key is ignored."""
        data = self.rows()
        x, y = (jnp.asarray(part, theta.dtype) for part in data[:2])
        gradient = (x @ state - y) @ x + jnp.exp(theta) * state
        state = state - self.learning_rate * gradient
        return state, self.final_loss(theta, state, key)

    def final_loss(
        self, theta: jax.Array, state: jax.Array, key: jax.Array
    ) -> jax.Array:
        """The validation loss of w; the key is ignored."""
        del key
        x, y = (jnp.asarray(part, theta.dtype) for part in self.rows()[2:])
        return jnp.sum((x @ state - y) ** 2) / 2

    def evaluate(self, theta: jax.Array, key: jax.Array) -> jax.Array:
        """The validation loss of the ridge solution, where descent settles."""
        theta = jnp.asarray(theta)
        return self.final_loss(theta, self.solution(theta), key)

    def solution(self, theta: jax.Array) -> jax.Array:
        """The ridge solution w(theta), [features]."""
        data, size = self.rows(), self.num_features
        x, y = (jnp.asarray(part, theta.dtype) for part in data[:2])
        return jnp.linalg.solve(x.T @ x + jnp.exp(theta) * jnp.eye(size), x.T @ y)

    def rows(self) -> Rows:
        """The data, generated once a process."""
        return _rows(self.num_rows, self.num_features, self.noise, self.data_seed)


@functools.lru_cache
def _rows(num_rows: int, num_features: int, noise: float, seed: int) -> Rows:
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(num_features, num_features))
    x = generator.normal(size=(num_rows, num_features)) @ mixing
    y = x @ generator.normal(size=num_features)
    y = y / y.std() + noise * generator.normal(size=num_rows)
    x, y = ((part - part.mean(0)) / part.std(0) for part in (x, y))
    # The published split: a permutation by numpy's first generator.
    train, valid = np.split(
        np.random.RandomState(1).permutation(num_rows), [num_rows * 4 // 5]
    )
    return Rows(x[train], y[train], x[valid], y[valid])
