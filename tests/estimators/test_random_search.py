"""Random search keeps the best of all that it draws, whatever the shards."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pes_cluster as pes
from pes_cluster.core import keys
from pes_cluster.core.task import TaskError
from pes_cluster.estimators.search.random_search import RandomSearch
from pes_cluster.estimators.search.ranges import Ranges, drawing

SEED, DRAWS, STEPS = 5, 7, 4
RANGES = {"a": (0.0, 1.0), "b.0": (-2.0, 3.0)}


@dataclasses.dataclass(frozen=True)
class Wells:
    """Two leaves of unlike ranges; no number where theta's first entry is small."""

    host: bool = False
    broken_below: float = 0.4
    episode_length: int = 3

    def initial_theta(self, key: Any) -> Any:
        return {"a": jnp.zeros(2), "b": [jnp.zeros(())]}

    def init(self, theta: Any, key: Any) -> Any:
        return np.float32(0) if self.host else jnp.float32(0)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        a, b = theta["a"], theta["b"][0]
        loss = (a[0] - 0.7) ** 2 + (a[1] - 0.2) ** 2 + (b - 1) ** 2
        where = np.where if self.host else jnp.where
        return state, where(a[0] < self.broken_below, np.nan, loss)


def run(
    folder: pathlib.Path, ranges: Ranges = None, steps: int = STEPS, **cluster: Any
) -> pes.Result:
    host = cluster.pop("host", False)
    config = pes.RunConfig(
        task=Wells(host=host),
        estimator=RandomSearch(DRAWS, ranges or RANGES),
        outer=pes.OuterSettings(pes.SGD(1.0)),
        run=pes.RunSettings(outer_steps=steps, eval_every=1, seed=SEED),
        cluster=pes.ClusterSettings(pool="local", **cluster),
    )
    return pes.run(config, folder)


def drawn() -> list[list[np.ndarray]]:
    """All that are drawn, [steps][draws], flat; plain loops."""
    draw, root = drawing(Wells(), RANGES), keys.stream(SEED, keys.NOISE)

    def flat(particle: int, step: int) -> np.ndarray:
        theta = draw(keys.folded(root, particle, step))
        return np.append(np.asarray(theta["a"]), theta["b"][0])

    return [[flat(i, step) for i in range(DRAWS)] for step in range(STEPS)]


def loss(theta: np.ndarray) -> float:
    broken = theta[0] < Wells.broken_below
    return np.inf if broken else float(np.sum((theta - [0.7, 0.2, 1.0]) ** 2))


def test_theta_is_the_best_of_all_that_were_drawn(tmp_path: pathlib.Path) -> None:
    """The same on one shard and three, in one go and resumed."""
    best = min((theta for row in drawn() for theta in row), key=loss)
    whole = run(tmp_path / "whole")
    theta = np.append(whole.theta["a"], whole.theta["b"][0])
    np.testing.assert_allclose(theta, best, rtol=1e-6)
    assert whole.eval_loss == pytest.approx(3 * loss(best), rel=1e-5)
    assert run(tmp_path / "spread", shards=3).theta_sha256 == whole.theta_sha256
    assert run(tmp_path / "cut", steps=2).outer_steps == 2
    resumed = run(tmp_path / "cut")
    assert resumed.theta_sha256 == whole.theta_sha256


@pytest.mark.slow
def test_a_simulator_is_searched_too(tmp_path: pathlib.Path) -> None:
    ours, theirs = (run(tmp_path / str(host), host=host) for host in (True, False))
    np.testing.assert_array_equal(ours.theta["a"], theirs.theta["a"])


@pytest.mark.slow
def test_nothing_but_broken_draws_changes_nothing(tmp_path: pathlib.Path) -> None:
    ranges = {"a": (0.0, 0.3), "b.0": (0.0, 1.0)}
    result = run(tmp_path, ranges)
    assert result.status == "finished"
    np.testing.assert_array_equal(result.theta["a"], 0)


def test_draws_fill_their_ranges() -> None:
    """Kolmogorov's distance of 4000 draws to the uniform distribution."""
    thetas = jax.vmap(drawing(Wells(), RANGES))(
        jax.random.split(jax.random.key(0), 4000)
    )
    for values, (low, high) in (
        (thetas["a"][:, 1], RANGES["a"]),
        (thetas["b"][0], RANGES["b.0"]),
    ):
        share = (np.sort(np.asarray(values)) - low) / (high - low)
        distance = np.abs(share - (np.arange(4000) + 0.5) / 4000).max()
        assert distance < 2.23 / np.sqrt(4000)  # p = 1e-4.


@dataclasses.dataclass(frozen=True)
class Spread(Wells):
    """Its first theta is a draw."""

    def initial_theta(self, key: Any) -> Any:
        return {"a": jax.random.uniform(key, (2,)), "b": [jnp.zeros(())]}


def test_without_ranges_the_tasks_first_theta_is_drawn() -> None:
    key = jax.random.key(3)
    theta, expected = drawing(Spread(), None)(key), Spread().initial_theta(key)
    np.testing.assert_array_equal(theta["a"], expected["a"])
    with pytest.raises(TaskError, match="give the estimator ranges"):
        RandomSearch(4).build(Wells(), 0)


@pytest.mark.parametrize(
    ("ranges", "line"),
    [
        ({"a": (0.0, 1.0)}, r"ranges: theta's leaves are a, b.0; .* unknown: b.0"),
        ((1.0, 1.0), r"ranges: \[1.0, 1.0\] must be"),
        ((0.0, float("inf")), "low < high"),
    ],
)
def test_impossible_ranges_are_refused(ranges: Any, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        RandomSearch(4, ranges).build(Wells(), 0)


@pytest.mark.parametrize(
    "settings",
    [
        pes.OuterSettings(pes.SGD(0.5)),
        pes.OuterSettings(pes.Adam(1.0)),
        pes.OuterSettings(pes.SGD(1.0), staleness=1),
    ],
)
def test_another_optimiser_is_refused(settings: Any) -> None:
    with pytest.raises(pes.ConfigError, match="sets theta itself; it needs"):
        pes.RunConfig(Wells(), RandomSearch(4, RANGES), outer=settings)
