"""Perturbations of low rank: unbiased at every rank, and their sums are bounded."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chi2

from pes_cluster.cluster.leaves import from_arrays, to_arrays
from pes_cluster.core.low_rank import Factors, LowRankPerturbations
from pes_cluster.core.timeline import Window
from pes_cluster.estimators.evolution.fields import sigma_function
from pes_cluster.estimators.evolution.full_es import FullES
from pes_cluster.estimators.evolution.gpes import GPES
from pes_cluster.estimators.evolution.nres import NRES
from pes_cluster.estimators.evolution.pes import PES
from pes_cluster.estimators.evolution.pes_analytic import PESAnalytic
from pes_cluster.estimators.evolution.truncated_es import TruncatedES
from pes_cluster.tasks.toy_regression import ToyRegression
from tests.helpers.quadratic import PAIRS, estimates, t2
from tests.helpers.runs import thetas

ROWS, COLUMNS, SIZE = 4, 5, 4 * 5 + 4
LIKELY = float(chi2.isf(1e-6, SIZE))  # Of T2 at the exact gradient; 73.


@dataclasses.dataclass(frozen=True)
class Driven:
    """``s <- 0.9 R s + W x_t + b``, |s - 1|^2 / 2: quadratic in (W, b); R turns."""

    episode_length: int | None = 6
    rows: int = ROWS
    columns: int = COLUMNS

    def initial_theta(self, key: Any) -> Any:
        w = jnp.linspace(-0.4, 0.5, self.rows * self.columns)
        return {"w": w.reshape(self.rows, self.columns), "b": jnp.full(self.rows, 0.1)}

    def init(self, theta: Any, key: Any) -> Any:
        return jnp.ones(self.rows), jnp.int32(0)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        s, t = state
        x = jnp.cos(1.7 * t + jnp.arange(self.columns))
        s = 0.9 * jnp.roll(s, 1) + theta["w"] @ x + theta["b"]
        return (s, t + 1), 0.5 * jnp.sum((s - 1) ** 2)


def exact(window: int | None = None) -> np.ndarray:
    """The gradient of an episode, or the truncated one, flat as estimates are."""
    task = Driven()

    def loss(theta: Any) -> jax.Array:
        state, total = task.init(theta, None), jnp.float32(0)
        for t in range(task.episode_length or 0):
            if window is not None and t % window == 0:
                state = jax.lax.stop_gradient(state)
            state, lost = task.step(theta, state, None)
            total += lost
        return total

    gradient = jax.grad(loss)(task.initial_theta(None))
    return np.concatenate([np.ravel(gradient["b"]), np.ravel(gradient["w"])])


@dataclasses.dataclass(frozen=True)
class Flat:
    """An estimator's gradients as one array, for `estimates`; or with other noise."""

    es: Any
    draws: int | None = -1
    num_particles: int = 2
    pairs_per_block: int = 1

    def build(self, task: Any, seed: int) -> Any:
        es = dataclasses.replace(
            self.es,
            num_particles=self.num_particles,
            pairs_per_block=self.pairs_per_block,
        )
        windows = es.generalized().windows(task, seed)
        if self.draws != -1:
            noise = dataclasses.replace(windows.rule.perturbations, draws=self.draws)
            rule = dataclasses.replace(windows.rule, perturbations=noise)
            program = dataclasses.replace(windows, rule=rule).program()
        else:
            program = es.build(task, seed)

        def advance(theta: Any, block: Any, step: Any) -> Any:
            block, report = program.advance(theta, block, step)
            leaves = [leaf.ravel() for leaf in jax.tree.leaves(report.gradient)]
            return block, dataclasses.replace(report, gradient=jnp.concatenate(leaves))

        return program._replace(advance=advance)


SLOW = pytest.mark.slow


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("es", "windows"),
    [
        (PES(2, 2, 0.5, rank=1), 3),
        (NRES(2, 2, 0.5, rank=1), 3),
        pytest.param(FullES(2, 0.5, rank=1), 1, marks=SLOW),
        pytest.param(PES(2, 2, 0.5, rank=2), 3, marks=SLOW),
        pytest.param(PES(2, 2, 0.5, rank=4), 3, marks=SLOW),
        pytest.param(NRES(2, 2, 0.5, rank=2), 3, marks=SLOW),
        pytest.param(NRES(2, 2, 0.5, rank=4), 3, marks=SLOW),
        pytest.param(FullES(2, 0.5, rank=2), 1, marks=SLOW),
        pytest.param(FullES(2, 0.5, rank=4), 1, marks=SLOW),
        pytest.param(GPES(2, 2, 0.5, noise_period=3, rank=1), 3, marks=SLOW),
        pytest.param(PESAnalytic(2, 2, 0.5, rank=1), 3, marks=SLOW),
    ],
    ids=lambda value: (
        f"{type(value).__name__}-{value.rank}" if hasattr(value, "rank") else ""
    ),
)
def test_it_is_unbiased_at_every_rank(
    es: Any, windows: int, test_seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the factors kept, also where so small a matrix would be kept itself."""
    monkeypatch.setattr(LowRankPerturbations, "_keeps_factors", lambda *_: True)
    samples = estimates(Flat(es), Driven(), 0, windows, test_seed)
    right, truncated = t2(samples, exact()), t2(samples, exact(2))
    print(f"{type(es).__name__} rank {es.rank}: {right:.0f}, truncated {truncated:.0f}")
    assert right < LIKELY
    assert truncated > 3 * LIKELY


@pytest.mark.statistical
def test_a_biased_one_fails(test_seed: int) -> None:
    """Truncated ES; and PES whose sum has the rank of one draw: the newest alone."""
    for es in (
        Flat(TruncatedES(2, 2, 0.5, rank=1)),
        Flat(PES(2, 2, 0.5, rank=1), draws=1),
    ):
        off = t2(estimates(es, Driven(), 0, 3, test_seed), exact())
        print(f"{type(es.es).__name__}, draws {es.draws}: T2 exact {off:.0f}")
        assert off > 3 * LIKELY


@dataclasses.dataclass(frozen=True)
class Linear:
    """One step, whose loss is linear: the variance has a closed form."""

    episode_length: int = 1

    def initial_theta(self, key: Any) -> Any:
        return {"w": jnp.zeros((ROWS, COLUMNS))}

    def init(self, theta: Any, key: Any) -> Any:
        return jnp.float32(0)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        slopes = jnp.sin(1.0 + jnp.arange(ROWS * COLUMNS))
        return state, jnp.sum(slopes.reshape(ROWS, COLUMNS) * theta["w"])


@pytest.mark.statistical
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.slow
def test_the_variance_falls_with_the_rank(rank: int, test_seed: int) -> None:
    """|g|^2 ((a + 2)(b + 2) / r + (1 - 1/r)(ab + 2) - 1) for one pair."""
    samples = estimates(Flat(FullES(2, 0.5, rank=rank)), Linear(), 0, 1, test_seed)
    g = np.sin(1.0 + np.arange(ROWS * COLUMNS))
    squares = np.sum((samples - g) ** 2, axis=1) / np.sum(g**2)
    large, small = (ROWS + 2) * (COLUMNS + 2), ROWS * COLUMNS + 2
    expected = large / rank + (1 - 1 / rank) * small - 1
    error = squares.std() / np.sqrt(PAIRS)
    print(f"rank {rank}: variance {squares.mean():.1f}, expected {expected:.1f}")
    assert abs(squares.mean() - expected) < 6 * error  # Of heavy tails.


def blocks(es: Any, task: Any, windows: int) -> tuple[Any, np.ndarray]:
    program, theta = es.build(task, 3), task.initial_theta(None)
    advance, block, seen = jax.jit(program.advance), program.init(theta, 0), []
    for step in range(windows):
        block, report = advance(theta, block, np.int32(step))
        seen.append(report.gradient)
    return block, np.array(seen)


@pytest.mark.parametrize(
    "es",
    [
        PES(2, 4, 0.5, rank=1),
        pytest.param(PES(2, 4, 0.5, rank=2, start="staggered"), marks=SLOW),
        pytest.param(GPES(2, 4, 0.5, rank=1, noise_period=3), marks=SLOW),
    ],
    ids=["pes", "staggered", "gpes"],
)
def test_factors_are_the_sum(es: Any) -> None:
    """In float64, resets inside windows included: T = 10, K = 4."""
    with jax.enable_x64(True):
        task = Driven(10, rows=20, columns=20)
        four = dict(num_particles=8, pairs_per_block=4)
        block, kept = blocks(Flat(es, **four), task, 9)
        dense, summed = blocks(Flat(es, draws=None, **four), task, 9)
        factors = block.credit.accumulator["w"]
        assert isinstance(factors, Factors)
        np.testing.assert_allclose(kept, summed, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(
            factors.product(), dense.credit.accumulator["w"], rtol=1e-9, atol=1e-9
        )


def test_what_is_kept_is_bounded_and_small() -> None:
    """n r (a + b) numbers for a matrix, the same after any number of windows."""
    task = Driven(10, rows=60, columns=64)
    es = PES(2, 4, 0.5, rank=2)
    first, _ = blocks(Flat(es), task, 1)
    later, _ = blocks(Flat(es), task, 12)
    for block in (first, later):
        kept = block.credit.accumulator["w"]
        assert sum(x.size for x in (kept.left, kept.right)) == 4 * 2 * (60 + 64)
    ratio = 60 * 64 / (4 * 2 * (60 + 64))
    print(f"accumulator of a 60 x 64 matrix: {ratio:.1f} times smaller")
    arrays = to_arrays(later)
    assert ".credit.accumulator['w'].left" in arrays
    again = from_arrays(jax.eval_shape(lambda: later), arrays)
    assert jax.tree.structure(again) == jax.tree.structure(later)


@pytest.mark.slow
def test_the_result_depends_neither_on_the_shards_nor_on_a_stop(
    tmp_path: pathlib.Path,
) -> None:
    task = Driven(rows=20, columns=20)
    es = PES(12, 2, 0.5, rank=1, pairs_per_block=2)
    hashes = thetas(task, es, tmp_path)
    assert len(set(hashes.values())) == 1, hashes


@pytest.mark.parametrize("length", [2, None], ids=["many draws", "endless"])
def test_a_sum_that_is_smaller_than_its_factors_is_kept(length: int | None) -> None:
    task = Driven(None if length is None else 40, rows=6, columns=5)
    es = Flat(PES(2, 2, 0.5, rank=2))
    block = es.build(task, 0).init(task.initial_theta(None), 0)
    assert block.credit.accumulator["w"].shape == (1, 1, 6, 5)


@pytest.mark.parametrize("terminates", [False, True])
@pytest.mark.parametrize("period", ["window", 1, 3, 4])
@pytest.mark.parametrize("length", [2, 3, 4, 7])
def test_the_most_draws_of_an_episode(
    length: int, period: Any, terminates: bool
) -> None:
    """By counting, for all the phases at which an episode can begin."""
    window = Window(length, 7, period, terminates=terminates)
    phases = range(length) if window.begins_inside else [0]
    counts = []
    for phase in phases:
        draws = 0
        for step in range(7):
            if period == "window":
                draws += step == 0 or (phase + step) % length == 0
            else:
                draws += step % period == 0
        counts.append(draws)
    assert window.draws == max(counts)
    assert Window(length, None, period).draws is None


def test_draws_by_hand() -> None:
    """z of a matrix is the product; of a vector, what it is without a rank."""
    noise = LowRankPerturbations(0, sigma_function(0.5), rank=3, draws=4)
    theta = Driven().initial_theta(None)
    name = jnp.array([[[2, 0]], [[5, 0]]])
    z = noise.sample(jnp.arange(2), name, theta)
    assert z["w"].left.shape == (2, 1, ROWS, 3)
    thetas = noise.thetas(theta, z, name)
    expected = theta["w"] + 0.5 * np.einsum(
        "par,pbr->pab", z["w"].left[:, 0], z["w"].right[:, 0]
    )
    np.testing.assert_allclose(thetas["w"][:, 0], expected, rtol=1e-5)
    middle = (thetas["w"][:, 0] + thetas["w"][:, 1]) / 2
    np.testing.assert_allclose(middle, np.broadcast_to(theta["w"], middle.shape), 1e-5)
    direction = noise.per_variance(z, name)
    dense = noise.dense(direction)
    np.testing.assert_allclose(dense["w"], noise.dense(z)["w"] / 0.5, rtol=1e-5)
    squares = sum(
        np.sum(np.square(x), axis=tuple(range(2, x.ndim))) for x in dense.values()
    )
    np.testing.assert_allclose(noise.norms(direction), np.sqrt(squares), rtol=1e-5)


def test_a_rank_without_a_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match="rank: 1, but theta of task ToyRegression"):
        PES(2, 10, 0.5, rank=1).build(ToyRegression(), 0)
    with pytest.raises(ValueError, match="rank: 0 must be at least 1"):
        PES(2, 10, 0.5, rank=0)
