"""Who sees which data, what a block's size and a batched task change, and shaping."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.core import keys
from pes_cluster.core.keys import DataKeys
from pes_cluster.core.perturbations import Perturbations
from pes_cluster.estimators.differentiation.bptt import BPTT
from pes_cluster.estimators.differentiation.tbptt import TBPTT
from pes_cluster.estimators.evolution.es_single import ESSingle
from pes_cluster.estimators.evolution.fields import sigma_function
from pes_cluster.estimators.evolution.nres import NRES
from pes_cluster.estimators.evolution.pes import PES
from pes_cluster.estimators.evolution.shaping import Shaping
from pes_cluster.estimators.evolution.truncated_es import TruncatedES

THETA = jnp.array([0.2, -0.1])


@dataclasses.dataclass(frozen=True)
class Noisy:
    """Data in the initial state and in every step; the state shows the last key."""

    episode_length: int = 6

    def initial_theta(self, key: Any) -> Any:
        return THETA

    def init(self, theta: Any, key: Any) -> Any:
        return {"x": jax.random.normal(key, ()), "seen": jnp.float32(0)}

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        seen = jax.random.normal(key, ())
        x = 0.9 * state["x"] + theta[0] * seen + theta[1]
        return {"x": x, "seen": seen}, x * x


@dataclasses.dataclass(frozen=True)
class Batched(Noisy):
    """The same task with a leading batch axis on every argument."""

    batched: bool = True

    def init(self, theta: Any, key: Any) -> Any:
        return jax.vmap(Noisy().init)(theta, key)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        return jax.vmap(Noisy().step)(theta, state, key)


def _run(es: Any, task: Any, windows: int, seed: int = 1) -> tuple[Any, list[Any]]:
    """Blocks after the windows, and each window's gradient summed over the blocks."""
    program = es.build(task, seed)
    advance = jax.jit(program.advance)
    blocks = [program.init(THETA, index) for index in range(program.num_blocks)]
    totals = []
    for step in range(windows):
        both = [advance(THETA, block, np.int32(step)) for block in blocks]
        blocks = [block for block, _ in both]
        totals.append(sum(np.asarray(report.gradient) for _, report in both))
    return blocks, totals


@pytest.mark.parametrize(
    ("sharing", "distinct"), [("pair", 4), ("block", 2), ("run", 1)]
)
def test_who_shares_data(sharing: Any, distinct: int) -> None:
    es = PES(8, 3, 0.1, data=sharing, pairs_per_block=2)
    blocks, _ = _run(es, Noisy(), 2)
    seen = np.stack([np.asarray(b.trajectories.state["seen"]) for b in blocks])
    np.testing.assert_array_equal(seen[..., 0], seen[..., 1])
    assert len(np.unique(seen)) == distinct


def test_a_shared_minibatch_is_drawn_once() -> None:
    clock = jnp.zeros((4, 2), jnp.int32)
    names = DataKeys(0, "run").step(
        jnp.arange(4), jnp.int32(0), clock, clock, jnp.int32(0), jnp.int32(0)
    )
    assert names.shape == (1, 1)


def test_streams_share_no_key() -> None:
    purposes = [keys.stream(7, purpose) for purpose in range(6)]
    folded = [keys.folded(root, jnp.arange(5), jnp.arange(5)) for root in purposes]
    bits = jax.random.key_data(jnp.concatenate([jnp.stack(purposes), *folded]))
    assert len(np.unique(np.asarray(bits), axis=0)) == 6 + 6 * 5


@pytest.mark.parametrize(
    "es", [PES(12, 3, 0.3), PES(12, 4, 0.3), TruncatedES(12, 3, 0.3)]
)
def test_a_batched_task_gives_the_same(es: Any) -> None:
    _, one_by_one = _run(es, Noisy(), 4)
    _, batched = _run(es, Batched(), 4)
    np.testing.assert_allclose(one_by_one, batched, rtol=2e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1, 4, 6])
def test_the_block_size_only_regroups_the_sum(size: int) -> None:
    es = PES(12, 4, 0.3, pairs_per_block=2)
    _, expected = _run(es, Noisy(), 4)
    _, regrouped = _run(dataclasses.replace(es, pairs_per_block=size), Noisy(), 4)
    np.testing.assert_allclose(regrouped, expected, rtol=2e-4, atol=1e-4)


def test_es_single_is_nres_and_tbptt_over_an_episode_is_bptt() -> None:
    single, nres = (_run(es(12, 4, 0.3), Noisy(), 4)[1] for es in (ESSingle, NRES))
    np.testing.assert_array_equal(single, nres)
    whole, full = (_run(es, Noisy(), 2)[1] for es in (TBPTT(6, 4), BPTT(4)))
    np.testing.assert_allclose(whole, full, rtol=1e-6)


def test_the_accumulator_is_the_sum_of_the_episodes_draws() -> None:
    """T = 6, K = 2: three draws to an episode; the seventh window begins the third."""
    es = PES(4, 2, 0.3, pairs_per_block=2)
    kept = [
        np.asarray(_run(es, Noisy(), n)[0][0].credit.accumulator) for n in (2, 3, 5)
    ]
    names = jnp.stack([jnp.arange(5), jnp.zeros(5, jnp.int32)], axis=-1)
    perturbations = Perturbations(1, sigma_function(0.3))
    names = jnp.broadcast_to(names, (2, 5, 2))
    z = np.asarray(perturbations.sample(jnp.arange(2), names, THETA)) / 0.3
    for seen, (first, end) in zip(kept, [(0, 2), (0, 3), (3, 5)], strict=True):
        np.testing.assert_allclose(seen[:, 0], z[:, first:end].sum(axis=1), rtol=1e-5)


def test_staggered_starts_spread_the_phases() -> None:
    es = PES(40, 2, 0.3, start="staggered", pairs_per_block=20)
    clocks = []
    for windows in (1, 2, 3):
        block = _run(es, Noisy(), windows)[0][0]
        clocks.append(np.asarray(block.trajectories.inner_step)[:, 0])
    counts = np.bincount(clocks[-1] // 2, minlength=3)
    assert np.all(counts >= 5), counts
    assert np.max(clocks) < 6


def test_centered_ranks_by_hand() -> None:
    scores = np.array([[3.0, 1.0], [9.0, 9.0], [2.0, 7.0]])
    active = np.array([True, False, True])
    weights = Shaping("centered_ranks").weights(scores, active)
    expected = [[1 / 6, -0.5], [0, 0], [-1 / 6, 0.5]]
    np.testing.assert_allclose(weights, expected, atol=1e-12)


def test_division_by_the_deviation_by_hand() -> None:
    scores = np.array([[3.0, 1.0], [99.0, 0.0]])
    weights = Shaping("divide_by_std").weights(scores, np.array([True, False]))
    np.testing.assert_allclose(weights, [[3, 1], [0, 0]])
    flat = Shaping("divide_by_std").weights(np.ones((2, 2)), np.array([True, True]))
    np.testing.assert_array_equal(flat, 0)


def test_scores_as_their_own_weights_give_the_gradient() -> None:
    es = PES(10, 3, 0.3, pairs_per_block=5, shaping=Shaping("centered_ranks"))
    program = es.build(Noisy(), 1)
    assert program.scored is not None
    block = program.init(THETA, 0)
    for step in range(3):
        _, fused = program.advance(THETA, block, step)
        block, scores, _ = program.scored.score(THETA, block, step)
        gradient = program.scored.weighted_sum(THETA, block, scores)
        np.testing.assert_allclose(gradient, fused.gradient, rtol=1e-4, atol=1e-4)


def test_shaping_is_refused_where_a_window_has_several_directions() -> None:
    with pytest.raises(ValueError, match="shaping"):
        PES(4, 4, 0.3, shaping=Shaping("centered_ranks")).build(Noisy(), 0)
