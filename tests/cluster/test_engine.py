"""Delayed theta, and particles or shards whose number changes between two steps."""

import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from pes_cluster import outer
from pes_cluster.cluster.engine import PoolEngine, added, cosine
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.local_pool import LocalPool
from pes_cluster.cluster.pool import Lost, Pool
from pes_cluster.cluster.settings import ClusterSettings, RunSettings
from pes_cluster.cluster.shard_pool import ShardPool
from pes_cluster.core.trees import sha256

from .scripted import OPTIMIZER, Scripted, drive, local, work
from .scripted_transport import Hook, ScriptedTransport, once

RUN = RunSettings(outer_steps=24, eval_every=8, eval_episodes=2)


def on_shards(*hooks: Hook, method: Scripted | None = None) -> PoolEngine:
    cluster = ScriptedTransport({"a": 1, "b": 1, "c": 1}, hooks)
    job = work(method)
    pool = ShardPool(job, cluster, ClusterSettings(), cluster.clock)
    return PoolEngine(pool, job, OPTIMIZER, RUN)


# --- Delayed theta --------------------------------------------------------------------


def by_hand(steps: int) -> Any:
    """theta(k+1) = theta(k) - u(g(theta(k-1))), one call after another."""
    job = work()
    pool = LocalPool(job)
    pool.restore(None, 0)
    update = jax.jit(outer.update(OPTIMIZER))
    state = outer.start(OPTIMIZER, job.initial_theta())
    before = state.theta
    for step in range(steps):
        reports = pool.step(step, jax.tree.map(np.asarray, before))
        assert not isinstance(reports, Lost)
        before = state.theta
        gradient = added([report.gradient for report in reports])
        weight = added([report.weight for report in reports])
        state, _ = update(state, gradient, weight)
    return jax.tree.map(np.asarray, state.theta)


@pytest.mark.parametrize("shards", [1, 3])
def test_every_window_is_at_the_theta_of_one_update_before(
    tmp_path: pathlib.Path, shards: int
) -> None:
    outcome, _ = drive(local(None, shards, RUN), tmp_path, 24, staleness=1)
    assert sha256(outcome.theta) == sha256(by_hand(24))
    fresh, _ = drive(local(None, shards, RUN), tmp_path / "fresh", 24)
    assert sha256(fresh.theta) != sha256(outcome.theta)


def test_a_delayed_run_survives_losses_and_resumes_to_the_same_bits(
    tmp_path: pathlib.Path,
) -> None:
    def crash(cluster: ScriptedTransport, process: Any) -> None:
        cluster.crash(process)

    hooks = [
        once(crash, "advance", step=step, host=host)
        for step, host in [(0, "b"), (7, "a"), (12, "c"), (13, "c")]
    ]
    hooks += [once(crash, "probe", host="a"), once(crash, "evaluate", host="b")]
    engine = on_shards(*hooks)
    told: list[Event] = []
    outcome, records = drive(
        engine, tmp_path / "a", 24, staleness=1, on_event=told.append
    )
    lost = [event for event in told if event.kind == "lost"]
    assert records[-1].extra["recovered"] == len(lost) >= 4
    assert sha256(outcome.theta) == sha256(by_hand(24))
    stopped, _ = drive(on_shards(), tmp_path / "b", 24, stop_after=11, staleness=1)
    assert stopped.status == "stopped"
    resumed, _ = drive(local(None, 2, RUN), tmp_path / "b", 24, staleness=1)
    assert sha256(resumed.theta) == sha256(by_hand(24))


def test_the_next_window_is_under_way_before_the_update(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, order = on_shards(), []
    pool: Any = engine._pool
    submit, update = pool.submit, engine._update

    def submitting(step: int, theta: Any) -> None:
        order.append(f"window {step}")
        submit(step, theta)

    def updating(*arguments: Any) -> Any:
        order.append("update")
        return update(*arguments)

    monkeypatch.setattr(pool, "submit", submitting)
    monkeypatch.setattr(engine, "_update", updating)
    drive(engine, tmp_path, 24, every=24, staleness=1)
    assert order[:4] == ["window 1", "update", "window 2", "update"]
    # Evaluations compare with the theta of now: nothing is under way then.
    assert order.index("window 6") > 0 and "window 7" not in order


def test_the_delay_is_seen_in_the_angle_to_the_fresh_gradient(
    tmp_path: pathlib.Path,
) -> None:
    _, records = drive(local(None, 2, RUN), tmp_path, 24, staleness=1)
    cosines = [r.extra.get("cosine_to_fresh") for r in records]
    assert [i for i, value in enumerate(cosines, 1) if value is not None] == [8, 16, 24]
    assert all(0.5 < value < 1 - 1e-9 for value in cosines if value is not None)
    _, records = drive(local(None, 2, RUN), tmp_path / "fresh", 24)
    assert all("cosine_to_fresh" not in record.extra for record in records)


def test_the_cosine_of_gradients() -> None:
    east, north = {"a": np.array([2.0, 0.0])}, {"a": np.array([0.0, 3.0])}
    assert cosine(east, north) == 0.0
    assert cosine(east, {"a": np.array([-1.0, 0.0])}) == -1.0
    assert cosine(east, {"a": np.array([1.0, 1.0])}) == pytest.approx(0.5**0.5)
    assert cosine(east, {"a": np.zeros(2)}) == 0.0


# --- Numbers that change --------------------------------------------------------------


class Changing(PoolEngine):
    """Changes something before one step."""

    def __init__(self, pool: Pool, at: int, **numbers: int | None) -> None:
        super().__init__(pool, work(), OPTIMIZER, RUN)
        self.at = at
        self.numbers: Any = {"particles": None, "shards": None} | numbers

    def advance(self, state: Any, outer_step: int, limit: int) -> Any:
        if outer_step == self.at:
            assert self.scale(outer_step=outer_step, **self.numbers) is None
        return super().advance(state, outer_step, limit)


def changed(
    folder: pathlib.Path, *hooks: Hook, there: bool = True, **numbers: int | None
) -> Any:
    cluster = ScriptedTransport({"a": 1, "b": 1, "c": 1}, hooks)
    far = ShardPool(work(), cluster, ClusterSettings(), cluster.clock)
    pool: Pool = far if there else LocalPool(work(), 2)
    outcome, records = drive(Changing(pool, 9, **numbers), folder, 24)
    assert outcome.status == "finished", outcome.error
    return sha256(outcome.theta), [r.particles for r in records], pool


@pytest.mark.parametrize("particles", [28, 12, 4])
def test_another_number_of_particles_is_the_same_run_everywhere(
    tmp_path: pathlib.Path, particles: int
) -> None:
    def crash(cluster: ScriptedTransport, process: Any) -> None:
        cluster.crash(process)

    hooks = [once(crash, "advance", step=step, host="a") for step in (8, 9, 10)]
    here, counts, _ = changed(tmp_path / "a", there=False, particles=particles)
    there, others, _ = changed(tmp_path / "b", *hooks, particles=particles)
    assert counts == others == [20] * 9 + [particles] * 15
    assert here == there
    assert here != sha256(drive(local(None, 1, RUN), tmp_path / "c", 24)[0].theta)


def test_a_number_that_the_method_refuses_changes_nothing() -> None:
    engine = local(None, 2)
    engine.restore(None, 0)
    with pytest.raises(ValueError, match="num_particles: 21 is not in fours"):
        engine.scale(particles=21, shards=None, outer_step=0)
    state = outer.start(OPTIMIZER, work().initial_theta())
    advanced = engine.advance(state, 0, 1)
    assert not isinstance(advanced, Lost) and advanced[1][0].particles == 20


def test_before_the_blocks_are_handed_out_only_the_number_is_taken() -> None:
    for engine in (local(None, 2), on_shards()):
        assert engine.scale(particles=28, shards=None, outer_step=0) is None
        assert engine.restore(None, 0) is None
        state = outer.start(OPTIMIZER, work().initial_theta())
        advanced = engine.advance(state, 0, 1)
        assert not isinstance(advanced, Lost) and advanced[1][0].particles == 28


@pytest.mark.parametrize("shards", [1, 2])
def test_another_number_of_shards_keeps_the_bits(
    tmp_path: pathlib.Path, shards: int
) -> None:
    calm = sha256(drive(local(None, 1, RUN), tmp_path / "calm", 24)[0].theta)
    for index, everywhere in enumerate((True, False)):
        folder = tmp_path / str(index)
        bits, _, pool = changed(folder, there=everywhere, shards=shards)
        assert bits == calm
