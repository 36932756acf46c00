"""A pair that diverges touches nobody else, whatever the policy."""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pes_cluster as pes
from pes_cluster.core.divergence import DivergenceRule, Judged
from pes_cluster.estimators.evolution.full_es import FullES
from pes_cluster.estimators.evolution.gpes import GPES
from pes_cluster.estimators.evolution.nres import NRES
from pes_cluster.estimators.evolution.pes import PES
from pes_cluster.estimators.evolution.shaping import Shaping
from pes_cluster.estimators.evolution.truncated_es import TruncatedES

THETA = np.array([0.2, -0.1], np.float32)


@dataclasses.dataclass(frozen=True)
class Fragile:
    """Some episodes, by their key, lose their state for good with their third step."""

    broken: float = 0.3
    episode_length: int | None = 6
    host: bool = False

    def initial_theta(self, key: Any) -> Any:
        return THETA

    def init(self, theta: Any, key: Any) -> Any:
        breaks = jax.random.uniform(key) < self.broken
        state = (
            np.float32(1),
            np.int32(0),
            np.asarray(breaks) if self.host else breaks,
        )
        return state if self.host else jax.tree.map(jnp.asarray, state)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        numpy: Any = np if self.host else jnp
        x, t, breaks = state
        noise = jax.random.normal(key, ())
        x = 0.9 * x + theta[0] * (np.asarray(noise) if self.host else noise) + theta[1]
        x = numpy.where(breaks & (t >= 2), np.float32(np.nan), x).astype(np.float32)
        return (x, t + np.int32(1), breaks), x * x

    def final_loss(self, theta: Any, state: Any, key: Any) -> Any:
        return state[0] * state[0]


def _run(es: Any, task: Any, windows: int = 6) -> tuple[list[Any], list[list[Any]]]:
    """The blocks after some windows at one theta, and each window's reports."""
    program = es.build(task, 1)
    advance = jax.jit(program.advance) if program.jittable else program.advance
    blocks = [program.init(THETA, index) for index in range(program.num_blocks)]
    reports = []
    for step in range(windows):
        both = [advance(THETA, block, np.int32(step)) for block in blocks]
        blocks = [block for block, _ in both]
        reports.append([report for _, report in both])
    return blocks, reports


def _diverged(reports: list[list[Any]]) -> set[int]:
    ids = {int(i) for window in reports for one in window for i in one.diverged}
    return ids - {-1}


def _rows(blocks: list[Any], pairs: list[int]) -> list[np.ndarray]:
    """All that persists of some pairs."""
    rows = []
    for block in blocks:
        own = np.isin(np.asarray(block.pair_id), pairs)
        kept = (block.pair_id, block.trajectories, block.credit)
        rows += [np.asarray(leaf)[own] for leaf in jax.tree.leaves(kept)]
    return rows


VARIANTS = {
    "pes": PES(24, 3, 0.1, pairs_per_block=4),
    "pes, resets inside": PES(24, 4, 0.1, pairs_per_block=4),
    "pes, final loss": PES(24, 3, 0.1, pairs_per_block=4, objective="final"),
    "pes, staggered": PES(24, 2, 0.1, pairs_per_block=4, start="staggered"),
    "nres": NRES(24, 3, 0.1, pairs_per_block=4),
    "gpes": GPES(24, 4, 0.1, pairs_per_block=4, noise_period=2),
    "full_es": FullES(24, 0.1, pairs_per_block=4),
    "truncated_es": TruncatedES(24, 3, 0.1, pairs_per_block=4),
}


@functools.cache
def _sound(name: str) -> list[Any]:
    return _run(VARIANTS[name], Fragile(broken=0.0))[0]


CAPPED = ("pes", "pes, final loss", "truncated_es")


@pytest.mark.parametrize(
    ("name", "policy"),
    [(name, "restart_pair") for name in VARIANTS] + [(name, "cap") for name in CAPPED],
)
def test_the_neighbours_keep_every_bit(name: str, policy: Any) -> None:
    es = dataclasses.replace(VARIANTS[name], divergence=policy)
    blocks, reports = _run(es, Fragile())
    diverged = _diverged(reports)
    healthy = sorted(set(range(12)) - diverged)
    assert len(diverged) >= 2 and len(healthy) >= 2
    for one, other in zip(
        _rows(blocks, healthy), _rows(_sound(name), healthy), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    for report in sum(reports, []):
        assert np.all(np.isfinite(report.gradient))
        assert np.isfinite(report.sums["loss"])


def test_without_a_policy_the_sum_would_be_no_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The power check: the losses are as bad as the test above believes."""

    def passes(self: Any, losses: jax.Array, active: jax.Array) -> Judged:
        return Judged(losses, jnp.zeros_like(active), active)

    monkeypatch.setattr(DivergenceRule, "judge", passes)
    _, reports = _run(VARIANTS["pes"], Fragile())
    assert any(np.any(np.isnan(report.gradient)) for report in sum(reports, []))


def _sums(reports: list[list[Any]]) -> list[tuple[np.ndarray, float]]:
    """Gradient sum and weight of every window."""
    return [
        (
            sum(np.asarray(r.gradient) for r in window),
            sum(float(r.weight) for r in window),
        )
        for window in reports
    ]


def test_a_pair_that_is_restarted_is_left_out_whole() -> None:
    """What is left is the sum over the others, divided by their number."""
    es = PES(24, 3, 0.1, pairs_per_block=1, divergence="restart_pair")
    _, reports = _run(es, Fragile(), 1)
    _, sound = _run(es, Fragile(broken=0.0), 1)
    left_out = _diverged(reports)
    kept = [one for pair, one in enumerate(sound[0]) if pair not in left_out]
    (gradient, weight), (expected, expected_weight) = (
        _sums(reports)[0],
        _sums([kept])[0],
    )
    assert 0 < len(left_out) < 12
    np.testing.assert_array_equal(gradient, expected)
    assert weight == expected_weight == 24 - 2 * len(left_out)


def test_a_restarted_pair_begins_a_new_episode_with_a_new_accumulator() -> None:
    es = PES(24, 3, 0.1, pairs_per_block=12, divergence="restart_pair")
    (before,), reports = _run(es, Fragile(), 1)
    (after,), _ = _run(es, Fragile(), 2)
    pairs = sorted(_diverged(reports))
    others = sorted(set(range(12)) - set(pairs))
    clocks, episodes = before.trajectories.inner_step, before.trajectories.episode
    np.testing.assert_array_equal(clocks[np.array(pairs)], 0)
    np.testing.assert_array_equal(episodes[np.array(pairs)], 1)
    np.testing.assert_array_equal(clocks[np.array(others)], 3)
    draws = [
        np.asarray(_run(es, Fragile(), n)[0][0].credit.accumulator) for n in (1, 2)
    ]
    # Window 2 adds its draw to the others' accumulators and replaces these.
    fresh = np.asarray(
        _run(dataclasses.replace(es, truncation_length=6), Fragile(), 2)[0][
            0
        ].credit.accumulator
    )
    np.testing.assert_allclose(draws[1][pairs], fresh[pairs], rtol=1e-6)
    np.testing.assert_allclose(
        draws[1][others], draws[0][others] + fresh[others], rtol=1e-5
    )
    assert np.all(np.asarray(after.trajectories.inner_step)[others] == 0)


@dataclasses.dataclass(frozen=True)
class Cliff:
    """A slope that falls towards a cliff: beyond theta = 1 the loss is no number."""

    limit: float | None = None
    episode_length: int = 3

    def initial_theta(self, key: Any) -> Any:
        return jnp.array([0.8])

    def init(self, theta: Any, key: Any) -> Any:
        return jnp.float32(0)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        loss = jnp.where(theta[0] > 1, jnp.nan, 4 - theta[0])
        if self.limit is not None:
            loss = jnp.where(loss < self.limit, loss, self.limit)
        return state, loss


def _slope(es: Any, task: Any) -> float:
    program = es.build(task, 0)
    theta = task.initial_theta(None)
    _, report = program.advance(theta, program.init(theta, 0), 0)
    return float(report.gradient[0] / report.weight)


def test_capping_turns_away_from_the_cliff_and_leaving_out_does_not() -> None:
    es = PES(2000, 3, 0.2, pairs_per_block=1000)
    left_out = _slope(dataclasses.replace(es, divergence="restart_pair"), Cliff())
    # Of the slope, -3, what pairs within one sigma see: E[z^2 | |z| < 1] = 0.291.
    assert abs(left_out + 3 * 0.291) < 0.1
    assert _slope(es, Cliff()) > 0
    assert _slope(dataclasses.replace(es, loss_cap=10.0), Cliff()) > 5


def test_a_stated_cap_is_that_of_a_task_which_caps_itself() -> None:
    es = PES(200, 3, 0.2, pairs_per_block=100)
    stated = _slope(dataclasses.replace(es, loss_cap=10.0), Cliff())
    assert stated == _slope(es, Cliff(limit=10.0))


def test_where_nothing_diverges_the_policies_are_one() -> None:
    results = [
        _run(dataclasses.replace(VARIANTS["gpes"], divergence=policy), Fragile(0.0))
        for policy in ("cap", "restart_pair", "fail")
    ]
    for other in results[1:]:
        for a, b in zip(
            jax.tree.leaves(results[0]), jax.tree.leaves(other), strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_where_episodes_never_end_a_capped_pair_comes_back() -> None:
    _, reports = _run(PES(24, 3, 0.1), Fragile(episode_length=None), 8)
    first, last = (
        sum(int(one.counts["diverged_pairs"]) for one in reports[window])
        for window in (0, 7)
    )
    restarted = sum(int(one.counts["restarted_pairs"]) for one in sum(reports, []))
    assert restarted >= first > 0
    assert last < first  # A new episode breaks no more often than the first did.


def test_a_mean_state_that_diverged_begins_a_new_episode() -> None:
    """One for the block: its loss takes the whole block along, but not for good."""
    es = TruncatedES(
        24, 3, 0.1, data="block", pairs_per_block=4, divergence="restart_pair"
    )
    blocks, reports = _run(es, Fragile(broken=0.5), 1)
    _, more = _run(es, Fragile(broken=0.5), 12)
    gone = [int(one.counts["restarted_pairs"]) for one in reports[0]]
    assert set(gone) == {0, 4}
    for block, pairs in zip(blocks, gone, strict=True):
        assert int(block.trajectories.inner_step[0, 0]) == (0 if pairs else 3)
    assert any(float(one.weight) == 8 for i in (0, 1, 2) for one in [more[-1][i]])


def test_scores_of_pairs_that_do_not_count_are_not_ranked() -> None:
    es = PES(
        24,
        3,
        0.1,
        pairs_per_block=12,
        divergence="restart_pair",
        shaping=Shaping("centered_ranks"),
    )
    program = es.build(Fragile(), 1)
    assert program.scored is not None
    block, scores, report = program.scored.score(THETA, program.init(THETA, 0), 0)
    left_out = np.asarray(report.diverged) >= 0
    assert 0 < left_out.sum() < 12
    np.testing.assert_array_equal(np.isnan(scores), np.stack([left_out] * 2, 1))
    weights = program.scored.shape(np.asarray(scores), np.asarray(block.active))
    np.testing.assert_array_equal(weights[left_out], 0)
    assert weights.min() == -0.5 and weights.max() == 0.5
    assert np.all(np.isfinite(program.scored.weighted_sum(THETA, block, weights)))


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"divergence": "fail", "loss_cap": 3.0}, "loss_cap: 3.0 is used by"),
        ({"loss_cap": float("inf")}, "loss_cap: inf must be a finite number"),
        ({"loss_cap": -1.0}, "loss_cap: -1.0 must be a finite number from 0 on"),
    ],
)
def test_what_is_refused(fields: Any, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        PES(4, 2, 0.1, **fields)


def _meta_train(
    folder: pathlib.Path, shards: int = 1, steps: int = 5, **fields: Any
) -> tuple[pes.Result, list[Any]]:
    task = Fragile(
        **{key: fields.pop(key) for key in ("broken", "host") if key in fields}
    )
    config = pes.RunConfig(
        task=task,
        estimator=PES(12, 3, 0.1, start="staggered", **fields),
        outer=pes.OuterSettings(pes.Adam(learning_rate=0.01)),
        run=pes.RunSettings(outer_steps=steps),
        cluster=pes.ClusterSettings(pool="local", shards=shards),
    )
    records: list[Any] = []
    return pes.run(config, folder, on_record=records.append), records


@pytest.mark.parametrize(
    "host", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["jax", "host"]
)
@pytest.mark.parametrize("policy", ["cap", "restart_pair"])
def test_the_same_result_on_any_shards_and_after_a_resumption(
    policy: Any, host: bool, tmp_path: pathlib.Path
) -> None:
    fields: dict[str, Any] = {"divergence": policy, "host": host}
    whole, records = _meta_train(tmp_path / "whole", **fields)
    spread, _ = _meta_train(tmp_path / "spread", shards=3, **fields)
    _meta_train(tmp_path / "cut", steps=2, **fields)
    resumed, _ = _meta_train(tmp_path / "cut", shards=2, **fields)
    assert whole.status == "finished", whole.error
    assert whole.theta_sha256 == spread.theta_sha256 == resumed.theta_sha256
    assert sum(record.extra["diverged_pairs"] for record in records) > 0
    restarted = sum(record.extra["restarted_pairs"] for record in records)
    assert (restarted > 0) == (policy == "restart_pair")


def test_a_resumed_run_knows_since_when_pairs_diverge(tmp_path: pathlib.Path) -> None:
    """From the third step on; the run is resumed after that step."""
    _, records = _meta_train(tmp_path, steps=3, broken=0.35)
    _, more = _meta_train(tmp_path, steps=4, broken=0.35)
    counts = [record.extra["diverged_pairs"] for record in records + more]
    assert [count > 0 for count in counts] == [False, False, True, True]
    assert _diverging_since(tmp_path) == 3


def _diverging_since(folder: pathlib.Path) -> float:
    newest = max((folder / "checkpoints").iterdir())
    return json.loads((newest / "manifest.json").read_text())["totals"][
        "diverging_since"
    ]


def test_half_of_the_pairs_end_the_run_in_one_line(tmp_path: pathlib.Path) -> None:
    result, records = _meta_train(tmp_path, broken=0.9)
    assert result.status == "failed" and result.error is not None
    assert result.error.startswith("task Fragile: ")
    assert f"are not finite at outer step {len(records)}, some since" in result.error
    assert np.all(np.isfinite(result.theta))


def test_the_policy_fail_ends_the_run_with_the_first_pair(
    tmp_path: pathlib.Path,
) -> None:
    result, records = _meta_train(tmp_path, divergence="fail", broken=0.1, steps=30)
    assert result.status == "failed" and result.error is not None
    assert [record.extra["diverged_pairs"] for record in records[:-1]] == [0] * (
        len(records) - 1
    )
    assert f"not finite at outer step {len(records)} " in result.error
    assert np.all(np.isfinite(result.theta))
