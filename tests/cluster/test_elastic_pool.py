"""Hosts come and go: the same bits. And steps that go on without what is lost."""

import pathlib

import pytest

from pes_cluster.cluster.engine import PoolEngine
from pes_cluster.cluster.settings import ClusterSettings
from pes_cluster.cluster.shard_pool import ShardPool
from pes_cluster.core.trees import sha256

from .befallen import HOSTS, RUN, Run, announce, calm, crash, cut, hang, join
from .scripted import OPTIMIZER, Scripted, drive, work
from .scripted_transport import Process, ScriptedTransport, once

# --- Hosts that come and go -----------------------------------------------------------


def test_hosts_that_join_get_shards(tmp_path: pathlib.Path) -> None:
    run = Run(
        tmp_path,
        once(join("b", "c"), "advance", step=9),
        hosts={"a": 1},
    )
    assert run.bits == calm()
    assert run.pool.shards == 3
    assert run.kinds() == ["joined", "joined", "moved"]
    assert {process.node for process in run.cluster.shards()} == {"a", "b", "c"}


@pytest.mark.parametrize("snapshots", ["driver", "buddies"])
def test_a_drain_notice_evacuates_without_loss(
    tmp_path: pathlib.Path, snapshots: str
) -> None:
    hook = once(announce(30.0), "advance", step=9, host="b")
    run = Run(tmp_path, hook, snapshots=snapshots)
    assert run.bits == calm()
    assert run.kinds() == ["drained", "moved"]
    assert run.only("drained")["node"] == "b"
    assert "b" not in {process.node for process in run.cluster.shards()}


def test_a_drain_waits_for_the_new_shard_to_start(tmp_path: pathlib.Path) -> None:
    hooks = [
        once(announce(30.0), "advance", step=9, host="b"),
        once(join("e"), "advance", step=9, host="c"),
    ]
    run = Run(tmp_path, *hooks)
    assert run.bits == calm()
    assert sorted(run.kinds()) == ["drained", "joined", "moved"]
    assert run.pool.shards == 4


def test_a_notice_that_is_too_short_costs_a_replay(tmp_path: pathlib.Path) -> None:
    run = Run(tmp_path, once(announce(0.15), "advance", step=9, host="b"))
    assert run.bits == calm()


def test_new_shards_that_do_not_start_do_not_hold_the_run_up(
    tmp_path: pathlib.Path,
) -> None:
    run = Run(tmp_path, hosts={"a": 1}, shards=3)
    assert run.bits == calm()
    assert run.pool.shards == 1


@pytest.mark.parametrize("autoscaling", [True, False])
def test_a_lost_node_is_asked_for_where_nodes_are_added_on_demand(
    tmp_path: pathlib.Path, autoscaling: bool
) -> None:
    waiting: list[int] = []

    def add(cluster: ScriptedTransport, process: Process) -> None:
        del process
        waiting.append(len([one for one in cluster.shards() if one.node is None]))
        cluster.join("d")

    hooks = [
        once(cut, "advance", step=9, host="b"),
        once(add, "advance", step=14),
    ]
    hosts = {"a": 1, "b": 1, "c": 1}
    run = Run(tmp_path, *hooks, hosts=hosts, shards=3, autoscaling=autoscaling)
    assert run.bits == calm()
    assert waiting == [1 if autoscaling else 0]
    assert run.kinds() == ["lost", "recovered", "joined", "moved"]
    assert run.pool.shards == 3


def test_fewer_shards_on_demand(tmp_path: pathlib.Path) -> None:
    def fewer(cluster: ScriptedTransport, process: Process) -> None:
        runs[0].resize(2)

    runs: list[ShardPool] = []
    cluster = ScriptedTransport(HOSTS, [once(fewer, "advance", step=9)])
    job = work(Scripted())
    runs.append(ShardPool(job, cluster, ClusterSettings(), cluster.clock))
    engine = PoolEngine(runs[0], job, OPTIMIZER, RUN)
    outcome, _ = drive(engine, tmp_path, outer_steps=24)
    assert sha256(outcome.theta) == calm()[0]
    assert runs[0].shards == 2 and len(cluster.shards()) == 2


def test_a_notice_for_the_drivers_own_node(tmp_path: pathlib.Path) -> None:
    cluster = ScriptedTransport(HOSTS)
    pool = ShardPool(work(), cluster, ClusterSettings(), cluster.clock)
    assert pool.notice() is None
    cluster.here = "a"
    assert pool.notice() is None
    cluster.announce("a", 30.0)
    assert pool.notice() is not None


# --- Going on without the lost --------------------------------------------------------


def test_proceeding_counts_who_reported_and_takes_the_lost_back(
    tmp_path: pathlib.Path,
) -> None:
    hook = once(crash, "advance", step=9, host="b")
    run = Run(tmp_path, hook, on_loss="proceed")
    assert run.outcome.status == "finished", run.outcome.error
    particles = [record.particles for record in run.records]
    whole = particles[0]
    assert particles[:9] == [whole] * 9
    assert 0 < particles[9] < whole
    assert particles[12:] == [whole] * 12
    assert sha256(run.outcome.theta) != calm()[0]


def test_proceeding_waits_where_nobody_is_left(tmp_path: pathlib.Path) -> None:
    hook = once(crash, "advance", step=9, host="a")
    run = Run(tmp_path, hook, hosts={"a": 1}, on_loss="proceed")
    assert run.bits == calm()


def test_proceeding_survives_an_heir_that_dies_too(tmp_path: pathlib.Path) -> None:
    hooks = [once(crash, "advance", step=9), once(crash, "replay")]
    run = Run(tmp_path, *hooks, hosts={"a": 1}, on_loss="proceed")
    assert run.bits == calm()
    assert run.kinds().count("lost") == 2


def test_a_drain_is_obeyed_while_another_host_is_avoided(
    tmp_path: pathlib.Path,
) -> None:
    hooks = [
        once(hang, "advance", step=5, host="b"),
        once(announce(3600.0), "advance", step=9, host="c"),
    ]
    run = Run(tmp_path, *hooks)
    assert run.bits == calm()
    assert run.only("drained")["node"] == "c"
    assert "c" not in {process.node for process in run.cluster.shards()}


def test_a_buddy_that_is_slow_costs_time_and_nothing_else(
    tmp_path: pathlib.Path,
) -> None:
    hook = once(announce(3600.0), "advance", step=9, host="c")
    run = Run(tmp_path, hook, snapshots="buddies", seconds={"keep": 30.0})
    assert run.bits == calm()
    assert run.kinds() == ["drained", "moved"]
    buddies = [one for one in run.cluster.processes if one.kind == "buddy"]
    assert len(buddies) <= 2 * len(HOSTS)


def test_a_shard_lost_while_scaling_is_rebuilt_as_it_was(
    tmp_path: pathlib.Path,
) -> None:
    cluster = ScriptedTransport(HOSTS, [once(crash, "resized", host="d")])
    pool = ShardPool(work(), cluster, ClusterSettings(), cluster.clock)
    assert pool.restore(None, 0) is None
    bigger = work(Scripted(blocks=7))
    assert pool.rescale(bigger) is None
    told = [made.method for made in cluster.made]
    assert told.index("retool") > max(
        i for i, method in enumerate(told) if method == "resized"
    )
