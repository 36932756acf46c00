"""The number of particles changes between two steps, over any number of shards."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from pes_cluster import outer
from pes_cluster.cluster.engine import PoolEngine
from pes_cluster.cluster.local_pool import LocalPool
from pes_cluster.cluster.pool import Lost
from pes_cluster.cluster.settings import RunSettings
from pes_cluster.cluster.work import Work
from pes_cluster.core.trees import sha256
from pes_cluster.estimators.differentiation.tbptt import TBPTT
from pes_cluster.estimators.evolution.pes import PES

from .scripted import OPTIMIZER


@dataclasses.dataclass(frozen=True)
class Walk:
    """A few steps of noise that theta scales."""

    episode_length: int = 6

    def initial_theta(self, key: Any) -> Any:
        return jnp.array([0.2, -0.1])

    def init(self, theta: Any, key: Any) -> Any:
        return jax.random.normal(key, ())

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        state = 0.9 * state + theta[0] * jax.random.normal(key, ()) + theta[1]
        return state, state * state


def _engine(method: Any, shards: int) -> tuple[PoolEngine, outer.OuterState]:
    work = Work(Walk(), method, 3)
    run = RunSettings(outer_steps=100)
    engine = PoolEngine(LocalPool(work, shards), work, OPTIMIZER, run)
    assert engine.restore(None, 0) is None
    return engine, outer.start(OPTIMIZER, work.initial_theta())


def _meta_train(shards: int, sizes: list[int]) -> tuple[str, list[int]]:
    """Two steps at each size; theta's hash, and the particles behind each step."""
    engine, state = _engine(PES(sizes[0], 3, 0.1, pairs_per_block=3), shards)
    seen = []
    for step in range(2 * len(sizes)):
        if step and step % 2 == 0:
            scaled = sizes[step // 2]
            lost = engine.scale(particles=scaled, shards=None, outer_step=step)
            assert lost is None
        advanced = engine.advance(state, step, 1)
        assert not isinstance(advanced, Lost)
        state, (measured,) = advanced
        seen.append(measured.particles)
    engine.close()
    return sha256(state.theta), seen


def test_a_scaled_run_is_the_same_on_any_shards() -> None:
    sizes = [20, 32, 8, 20]
    alone, seen = _meta_train(1, sizes)
    spread, others = _meta_train(3, sizes)
    assert seen == others == [20, 20, 32, 32, 8, 8, 20, 20]
    assert alone == spread
    assert alone != _meta_train(1, [20, 20, 20, 20])[0]


@pytest.mark.parametrize(
    ("method", "particles", "line"),
    [
        (PES(20, 3, 0.1), 21, "num_particles: 21 is not allowed"),
        (TBPTT(3, 4), 8, "particles: TBPTT cannot change their number"),
    ],
)
def test_what_is_refused_changes_nothing(
    method: Any, particles: int, line: str
) -> None:
    engine, state = _engine(method, 2)
    with pytest.raises(ValueError, match=line):
        engine.scale(particles=particles, shards=None, outer_step=0)
    advanced = engine.advance(state, 0, 1)
    assert not isinstance(advanced, Lost)
    assert advanced[1][0].particles == method.num_particles
    engine.close()
