"""Pairs that join or leave a run under way touch no other pair."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.cluster.leaves import from_arrays, to_arrays
from pes_cluster.estimators.evolution.full_es import FullES
from pes_cluster.estimators.evolution.gpes import GPES
from pes_cluster.estimators.evolution.nres import NRES
from pes_cluster.estimators.evolution.pes import PES
from pes_cluster.estimators.evolution.truncated_es import TruncatedES

THETA = np.array([0.2, -0.1], np.float32)


@dataclasses.dataclass(frozen=True)
class Noisy:
    """Data in the initial state and in every step."""

    host: bool = False
    episode_length: int | None = 12

    def initial_theta(self, key: Any) -> Any:
        return THETA

    def init(self, theta: Any, key: Any) -> Any:
        first = jax.random.normal(key, ())
        return np.asarray(first) if self.host else first

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        seen = jax.random.normal(key, ())
        seen = np.asarray(seen) if self.host else seen
        state = 0.9 * state + theta[0] * seen + theta[1]
        return state, state * state


Blocks = dict[int, Any]


class Run:
    """A run at one theta, block by block, whose number of particles may change."""

    def __init__(self, es: Any, task: Any) -> None:
        self.task, self.step = task, 0
        self._take_up(es)
        self.blocks: Blocks = {}
        self._complete()

    def windows(self, count: int) -> "Run":
        self.reports = []
        for _ in range(count):
            step, self.step = np.int32(self.step), self.step + 1
            both = {i: self.advance(THETA, b, step) for i, b in self.blocks.items()}
            self.blocks = {index: block for index, (block, _) in both.items()}
            self.reports.append([report for _, report in both.values()])
        return self

    def scale(self, num_particles: int) -> "Run":
        self._take_up(self.es.scaled(num_particles))
        kept = {i: b for i, b in self.blocks.items() if i < self.program.num_blocks}
        assert self.program.resized is not None
        self.blocks = {i: self.program.resized(THETA, b) for i, b in kept.items()}
        self._complete()
        return self

    def weight(self) -> float:
        return sum(float(report.weight) for report in self.reports[-1])

    def rows(self, pairs: int) -> list[np.ndarray]:
        """All that persists of the first pairs, and whether they are active."""
        rows = []
        for block in self.blocks.values():
            ids = np.asarray(block.pair_id)
            kept = (block.pair_id, block.active, block.trajectories, block.credit)
            for leaf in jax.tree.leaves(kept):
                one_for_all = len(leaf) != len(ids)
                rows.append(np.asarray(leaf)[... if one_for_all else ids < pairs])
        return [row for row in rows if row.size]

    def _take_up(self, es: Any) -> None:
        self.es, self.program = es, es.build(self.task, 1)
        self.advance: Any = self.program.advance
        if self.program.jittable:
            self.advance = jax.jit(self.program.advance)

    def _complete(self) -> None:
        for index in range(self.program.num_blocks):
            if index not in self.blocks:
                self.blocks[index] = self.program.init(THETA, index)


ES: dict[str, Any] = {
    "pes": PES(20, 3, 0.1, pairs_per_block=4),
    "pes, resets inside": PES(20, 5, 0.1, pairs_per_block=4),
    "pes, staggered": PES(20, 3, 0.1, pairs_per_block=4, start="staggered"),
    "nres": NRES(20, 3, 0.1, pairs_per_block=4),
    "gpes": GPES(20, 3, 0.1, pairs_per_block=4, noise_period=2),
    "full_es": FullES(20, 0.1, pairs_per_block=4),
    "truncated_es": TruncatedES(20, 3, 0.1, pairs_per_block=4),
    "one mean": TruncatedES(20, 3, 0.1, pairs_per_block=4, data="block"),
}


QUICK = ("pes", "nres", "full_es")  # The others are among the slow tests.


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in ES],
)
def test_the_others_keep_every_bit(name: str) -> None:
    """10 pairs in blocks of 4; 13 fill the third block, begin a fourth; 7 end two."""
    left = Run(ES[name], Noisy()).windows(6)
    for num_particles in (26, 14):
        scaled = Run(ES[name], Noisy()).windows(2).scale(num_particles).windows(4)
        common = min(num_particles // 2, 10)
        pairs = zip(scaled.rows(common), left.rows(common), strict=False)
        compared = [np.testing.assert_array_equal(a, b) for a, b in pairs]
        assert len(compared) >= len(jax.tree.leaves(left.blocks[0]))
        assert scaled.weight() == num_particles
        assert np.all(np.isfinite([r.gradient for r in scaled.reports[-1]]))


def test_a_host_task_is_scaled_too() -> None:
    es = PES(12, 3, 0.1, pairs_per_block=4)
    left = Run(es, Noisy(host=True)).windows(3)
    scaled = Run(es, Noisy(host=True)).windows(1).scale(20).windows(2)
    for a, b in zip(scaled.rows(6), left.rows(6), strict=False):
        np.testing.assert_array_equal(a, b)
    assert scaled.weight() == 20


@pytest.mark.parametrize("start", ["lockstep", "staggered"])
def test_new_pairs_spread_their_phases(start: Any) -> None:
    """Of four phases none is left out, though the others are in step."""
    run = Run(PES(20, 3, 0.1, start=start), Noisy()).windows(3).scale(120).windows(8)
    clocks = np.concatenate(
        [np.asarray(b.trajectories.inner_step)[:, 0] for b in run.blocks.values()]
    )[:60]
    counts = np.bincount(clocks[10:] // 3, minlength=4)
    assert counts.sum() == 50 and counts.min() >= 8, counts
    if start == "lockstep":
        assert len(set(clocks[:10])) == 1


def test_pairs_that_come_back_begin_anew() -> None:
    """With another episode, other data and an accumulator of their own."""
    run = Run(PES(20, 3, 0.1, pairs_per_block=4), Noisy()).windows(2)
    run.scale(14).windows(1).scale(20)
    block = run.blocks[1]  # Pairs 4 to 7; 7 was away.
    np.testing.assert_array_equal(block.trajectories.inner_step[:, 0], [9, 9, 9, 0])
    np.testing.assert_array_equal(block.trajectories.episode[:, 0], [0, 0, 0, -1])
    assert np.all(np.asarray(block.credit.accumulator)[3] == 0)
    assert np.all(np.asarray(block.active))
    run.windows(4)
    assert np.all(np.asarray(run.blocks[1].trajectories.episode[3]) >= 0)


@pytest.mark.parametrize("sizes", [(20, 26), (26, 20), (20, 14)])
def test_a_block_saved_at_either_size_goes_on(sizes: tuple[int, int]) -> None:
    """What is read under one number is what was resized in memory."""
    first, then = sizes
    run = Run(ES["pes"], Noisy()).windows(1).scale(first).windows(1)
    saved = {index: to_arrays(block) for index, block in run.blocks.items()}
    other = Run(ES["pes"].scaled(then), Noisy())
    example = jax.eval_shape(lambda: other.program.init(THETA, 0))
    read = {index: from_arrays(example, arrays) for index, arrays in saved.items()}
    other.blocks, other.step = read, run.step
    other.scale(then).windows(2)
    run.scale(then).windows(2)
    for a, b in zip(
        jax.tree.leaves(run.blocks), jax.tree.leaves(other.blocks), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("es", [PES(100, 3, 0.1), FullES(20, 0.1)])
def test_the_recipe_of_a_scaled_run(es: Any) -> None:
    """Blocks keep their size; it matters where it came to, not by which way."""
    twice = es.scaled(300).scaled(8)
    assert twice == es.scaled(8)
    assert twice.grown_from == es.num_particles and twice.num_particles == 8
    original, small = es.build(Noisy(), 0), twice.build(Noisy(), 0)
    for program in (small, es.scaled(300).build(Noisy(), 0)):
        shapes = [jax.eval_shape(p.init, THETA, 0) for p in (original, program)]
        assert shapes[0] == shapes[1]
    assert small.num_blocks == 1 or twice.pairs_per_block == 2


@pytest.mark.parametrize("number", [7, 0, -2])
def test_an_impossible_number_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"num_particles: {number} is not allowed"):
        PES(20, 3, 0.1).scaled(number)


def test_the_run_it_grew_from_is_checked() -> None:
    with pytest.raises(ValueError, match="grown_from: 3 is not allowed"):
        PES(20, 3, 0.1, grown_from=3)


def test_float64_states_are_kept_as_a_block_is_saved() -> None:
    """A simulator's own type is JAX's between windows, before saving and after."""

    @dataclasses.dataclass(frozen=True)
    class Simulator(Noisy):
        host: bool = True

        def init(self, theta: Any, key: Any) -> Any:
            return np.float64(1.0)

    run = Run(PES(4, 3, 0.1, pairs_per_block=2), Simulator()).windows(1)
    block = run.blocks[0]
    example = jax.eval_shape(lambda: run.program.init(THETA, 0))
    again = from_arrays(example, to_arrays(block))
    expected = run.windows(1).blocks[0].trajectories.state
    state = run.advance(THETA, again, np.int32(1))[0].trajectories.state
    np.testing.assert_array_equal(state, expected)
    assert state.dtype == jnp.zeros(()).dtype
