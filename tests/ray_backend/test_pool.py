"""The pool of actors: the same result as in one process, whatever happens to them."""

import functools
import importlib
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from pes_cluster import outer
from pes_cluster.cluster.checkpoint import CheckpointError, CheckpointStore
from pes_cluster.cluster.driver import Driver
from pes_cluster.cluster.engine import PoolEngine
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.failure import Budgets
from pes_cluster.cluster.local_pool import LocalPool
from pes_cluster.cluster.plan import Outcome, Plan
from pes_cluster.cluster.pool import Lost, Pool
from pes_cluster.cluster.settings import ClusterSettings, PerShard, RunSettings
from pes_cluster.cluster.work import Work
from pes_cluster.core.trees import sha256
from pes_cluster.estimators.evolution.pes import PES
from pes_cluster.metrics.record import StepRecord
from pes_cluster.ray_backend import pool as pool_module
from pes_cluster.ray_backend import transport
from pes_cluster.ray_backend.pool import RayPool
from pes_cluster.ray_backend.session import RayStartError
from pes_cluster.tasks.toy_regression import ToyRegression

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

STEPS = 20
ADAM = outer.Adam(0.01)
WORK = Work(ToyRegression(), PES(100, 10, 0.3), 0)


def settings(shards: int, **per_shard: Any) -> ClusterSettings:
    return ClusterSettings(shards=shards, per_shard=PerShard(**per_shard))


def no_budget(shards: int) -> ClusterSettings:
    return ClusterSettings(shards=shards, budgets=Budgets(bugs=0))


@contextmanager
def ray_pool(shards: int, work: Work = WORK, **per_shard: Any) -> Iterator[RayPool]:
    with closing(RayPool(work, settings(shards, **per_shard))) as pool:
        yield pool


def drive(
    pool: Pool,
    folder: Path,
    on_record: Callable[[StepRecord], None] = lambda record: None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> Outcome:
    """Runs, or continues what the folder holds; evaluates and saves every 5 steps."""
    run = RunSettings(outer_steps=STEPS, eval_every=5, eval_episodes=3)
    store = CheckpointStore(str(folder))
    plan = Plan(STEPS, 5, "digest", on_record, on_event=on_event)
    engine = PoolEngine(pool, WORK, ADAM, run)
    driver = Driver(plan, engine, store, ADAM, WORK.initial_theta())
    return driver.run()


@functools.cache
def uninterrupted() -> tuple[str, tuple[float, ...]]:
    """Theta's hash and the losses in one process."""
    seen: list[StepRecord] = []
    with tempfile.TemporaryDirectory() as folder:
        outcome = drive(LocalPool(WORK), Path(folder), on_record=seen.append)
    return sha256(outcome.theta), tuple(record.loss for record in seen)


def process_of(pool: RayPool, shard: int) -> int:
    """The process of a shard's actor."""
    return ray.get(
        pool._members[shard].actor.__ray_call__.remote(lambda self: os.getpid())
    )


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_any_number_of_shards_gives_the_result_of_one_process(shards, tmp_path):
    seen: list[StepRecord] = []
    with ray_pool(shards) as pool:
        outcome = drive(pool, tmp_path, on_record=seen.append)
    assert outcome.status == "finished", outcome.error
    losses = tuple(record.loss for record in seen)
    assert (sha256(outcome.theta), losses) == uninterrupted()
    assert seen[-1].extra["shards"] == shards


def kill_at(pool: RayPool, step: int) -> Callable[[StepRecord], None]:
    """Kills a shard's process once so many steps are done."""
    victim = process_of(pool, 1)

    def kill(record: StepRecord) -> None:
        if record.outer_step == step:
            os.kill(victim, signal.SIGKILL)

    return kill


def test_a_killed_shard_is_rebuilt_to_the_same_bits(tmp_path):
    told: list[Event] = []
    with ray_pool(2) as pool:
        outcome = drive(pool, tmp_path, kill_at(pool, 13), told.append)
    lost, recovered = (one for one in told if one.kind in ("lost", "recovered"))
    assert outcome.status == "finished", outcome.error
    assert sha256(outcome.theta) == uninterrupted()[0]
    assert (lost.kind, lost.outer_step, lost.fields["shard"]) == ("lost", 13, 1)
    assert str(lost.fields["reason"]).startswith("its process died")
    assert (recovered.kind, recovered.fields["shard"]) == ("recovered", 1)
    assert recovered.fields["node"] == ray.get_runtime_context().get_node_id()


def test_a_run_that_lost_a_shard_for_good_resumes_on_another_number(tmp_path):
    with closing(RayPool(WORK, no_budget(2))) as pool:
        outcome = drive(pool, tmp_path, on_record=kill_at(pool, 13))
    assert (outcome.status, outcome.outer_step) == ("failed", 13)
    assert outcome.error is not None and "\n" not in outcome.error
    assert outcome.error.startswith("shard 1 at outer step 14: its process died")
    with ray_pool(3) as pool:
        outcome = drive(pool, tmp_path)
    assert outcome.status == "finished", outcome.error
    assert sha256(outcome.theta) == uninterrupted()[0]


def test_a_shard_that_hangs_counts_as_lost_after_the_deadline():
    with closing(RayPool(WORK, no_budget(2))) as pool:
        assert pool.restore(None, 0) is None
        stopped = process_of(pool, 1)
        pool._calls._limit = 1.0
        os.kill(stopped, signal.SIGSTOP)
        began = time.monotonic()
        lost = pool.step(0, WORK.initial_theta())
        assert time.monotonic() - began < 20
        os.kill(stopped, signal.SIGCONT)
    # The other one may still be compiling then.
    assert isinstance(lost, Lost) and not lost.user_error
    assert "no answer by its deadline" in lost.reason


def test_the_users_module_in_the_working_directory_is_found(user_folder):
    bowl = importlib.import_module("my_tasks").Bowl()
    work = Work(bowl, PES(10, 5, 0.1), 0)
    with ray_pool(2, work) as pool:
        assert pool.restore(None, 0) is None
        there = pool.step(0, work.initial_theta())
    local = LocalPool(work)
    local.restore(None, 0)
    here = local.step(0, work.initial_theta())
    assert not isinstance(there, Lost) and not isinstance(here, Lost)
    assert [np.asarray(report.gradient).tobytes() for report in there] == [
        np.asarray(report.gradient).tobytes() for report in here
    ]


def test_an_error_of_the_users_task_comes_back_with_its_message(user_folder):
    task = importlib.import_module("my_tasks").Broken()
    work = Work(task, PES(10, 5, 0.1), 0)
    with ray_pool(2, work) as pool:
        lost = pool.restore(None, 0) or pool.step(0, work.initial_theta())
        assert "recovered" not in [event.kind for event in pool.events()]
    # On one host it was tried twice.
    assert isinstance(lost, Lost) and lost.user_error
    assert "RuntimeError: broken in two (particle 0+, episode 0, inner step 0)" in (
        lost.reason
    )
    assert "\n" not in lost.reason


def test_a_node_on_which_a_shard_cannot_be_built_is_named_at_the_start(
    user_folder, monkeypatch
):
    monkeypatch.setenv("BOUND_DATA", "here")  # And in no shard.
    task = importlib.import_module("my_tasks").Bound()
    with pytest.raises(RayStartError) as refused:
        RayPool(Work(task, PES(10, 5, 0.1), 0), settings(2))
    line, node = str(refused.value), ray.nodes()[0]["NodeManagerAddress"]
    assert line.startswith("per_shard: node ") and f"({node}) cannot hold" in line
    assert line.endswith("FileNotFoundError: /data/bound: is not here")


def test_an_actor_that_cannot_be_imported_tells_of_its_node():
    said = (
        "ray::ShardProcess.__init__ (pid=7, ip=10.0.0.9, actor_id=1)\n"
        "ModuleNotFoundError: No module named 'pes_cluster.ray_backend'"
    )
    line = transport.unimported(said)
    assert line is not None and line.startswith("node 10.0.0.9 has no pes_cluster")
    assert transport.unimported("ModuleNotFoundError: No module named 'x'") is None


def test_an_error_that_cannot_be_sent_is_the_tasks_own_all_the_same(user_folder):
    task = importlib.import_module("my_tasks").Jammed()
    work = Work(task, PES(10, 5, 0.1), 0)
    with ray_pool(1, work) as pool:
        lost = pool.restore(None, 0) or pool.step(0, work.initial_theta())
    assert isinstance(lost, Lost) and lost.user_error and not lost.resumable
    assert "Unsendable: it is jammed (particle 0+" in lost.reason


def test_a_shard_that_cannot_write_its_part_raises_as_in_one_process(tmp_path):
    (tmp_path / "file").touch()
    with ray_pool(2) as pool:
        pool.restore(None, 0)
        with pytest.raises(CheckpointError, match="cannot be written"):
            pool.save(str(tmp_path / "file" / "inside"))


def test_evaluation_is_spread_and_comes_back_in_the_order_of_the_episodes():
    theta = WORK.initial_theta()
    with ray_pool(3) as pool:
        pool.restore(None, 0)
        spread = pool.evaluate(theta, 7, 5)
    local = LocalPool(WORK)
    local.restore(None, 0)
    assert spread == local.evaluate(theta, 7, 5)


def test_shards_are_placed_on_gpus():
    with ray_pool(2, num_gpus=1, env={"JAX_PLATFORMS": "cpu"}) as pool:
        assert pool.restore(None, 0) is None
        assert ray.available_resources().get("GPU", 0.0) == 0.0
        assert not isinstance(pool.step(0, WORK.initial_theta()), Lost)


def test_one_shard_for_each_gpu_by_default():
    chosen = PerShard(num_gpus=1, env={"JAX_PLATFORMS": "cpu"})
    with closing(RayPool(WORK, ClusterSettings(per_shard=chosen))) as pool:
        assert pool.shards == 2


def test_a_run_that_goes_on_makes_do_with_what_its_cluster_has_left():
    chosen = PerShard(num_gpus=1, env={"JAX_PLATFORMS": "cpu"})
    asked = ClusterSettings(shards=3, per_shard=chosen)
    with closing(RayPool(WORK, asked, begun=True)) as pool:
        assert pool.shards == 2 and pool.shards_target == 3


def test_more_gpus_than_there_are_is_refused_in_one_line():
    with pytest.raises(RayStartError) as caught:
        RayPool(WORK, settings(3, num_gpus=1))
    assert str(caught.value) == (
        "shards: 3 with 1 GPU each need 3 GPU, the cluster has 2; lower "
        "cluster.shards or cluster.per_shard.num_gpus, or set "
        "cluster.autoscaling=true where nodes are added on demand"
    )


def test_a_label_that_no_node_has_is_refused_in_bounded_time(monkeypatch):
    monkeypatch.setattr(pool_module, "START_SECONDS", 2.0)
    with pytest.raises(RayStartError, match=r"per_shard.*zone.*nowhere"):
        RayPool(WORK, settings(1, labels={"zone": "nowhere"}))


def test_closing_ends_the_processes():
    with ray_pool(2) as pool:
        pool.restore(None, 0)
        processes = [process_of(pool, shard) for shard in range(2)]
    deadline = time.monotonic() + 20
    while any(map(alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, processes))


def alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_the_users_environment_wins():
    chosen = transport.environment(PerShard(num_cpus=2.5, env={"A": "1"}))
    assert (chosen["NPROC"], chosen["JAX_PLATFORMS"], chosen["A"]) == ("2", "cpu", "1")
    forced = PerShard(num_gpus=1, env={"JAX_PLATFORMS": "cpu"})
    assert transport.environment(forced)["JAX_PLATFORMS"] == "cpu"


def test_large_thetas_are_shared_and_small_ones_sent_along():
    small, large = np.zeros(25_000), np.zeros(25_001)
    assert transport.sendable(small) is small
    assert isinstance(transport.sendable(large), ray.ObjectRef)


def test_where_nodes_are_on_demand_the_first_shards_do_not_wait_for_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_module, "START_SECONDS", 5.0)
    growing = ClusterSettings(shards=6, autoscaling=True)
    with closing(RayPool(WORK, growing)) as pool:
        assert pool.shards == 4  # As many as there are CPUs.
        assert pool.shards_target == 6
