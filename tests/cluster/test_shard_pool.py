"""Whatever befalls the shards, the run is the one in which nothing did: all rows."""

import pathlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pes_cluster.cluster import storage
from pes_cluster.cluster.failure import Budgets
from pes_cluster.cluster.manifest import MANIFEST
from pes_cluster.cluster.settings import PerShard
from pes_cluster.cluster.shard import Shard
from pes_cluster.cluster.snapshots import Snapshots
from pes_cluster.cluster.storage import CheckpointError

from .befallen import HOSTS, Run, announce, calm, crash, cut, hang, join
from .scripted import Scripted
from .scripted_transport import Process, ScriptedTransport, once

# --- Losses ---------------------------------------------------------------------------


@pytest.mark.parametrize("snapshots", ["driver", "buddies"])
def test_without_losses_nothing_happens(tmp_path: pathlib.Path, snapshots: str) -> None:
    run = Run(tmp_path, snapshots=snapshots)
    assert run.bits == calm()
    assert run.kinds() == []
    assert len(run.cluster.shards()) == 4


@pytest.mark.parametrize("snapshots", ["driver", "buddies"])
@pytest.mark.parametrize("step", [0, 1, 13, 23])
def test_a_process_that_dies_is_rebuilt(
    tmp_path: pathlib.Path, step: int, snapshots: str
) -> None:
    run = Run(
        tmp_path, once(crash, "advance", step=step, host="b"), snapshots=snapshots
    )
    assert run.bits == calm()
    assert run.lost_once()
    assert run.only("lost")["node"] == "b"
    assert run.only("lost")["reason"] == "its process died"
    assert run.records[-1].extra["recovered"] == 1


@pytest.mark.parametrize("method", ["score", "weighted_sum"])
def test_a_loss_between_the_two_round_trips_of_shaped_scores(
    tmp_path: pathlib.Path, method: str
) -> None:
    hook = once(crash, method, host="c")
    run = Run(tmp_path, hook, method=Scripted(shaped=True))
    assert run.bits == calm(shaped=True)
    assert run.lost_once()


@pytest.mark.parametrize("method", ["evaluate", "snapshot", "save", "adopt"])
def test_a_loss_in_any_other_call(tmp_path: pathlib.Path, method: str) -> None:
    run = Run(tmp_path, once(crash, method, host="c"))
    assert run.bits == calm()
    assert run.lost_once()


def test_a_shard_that_hangs_is_killed_before_it_is_replaced(
    tmp_path: pathlib.Path,
) -> None:
    run = Run(tmp_path, once(hang, "advance", step=9, host="b"))
    assert run.bits == calm()
    assert run.only("lost")["reason"] == "no answer by its deadline"
    hung = [process for process in run.cluster.processes if process.hung]
    assert [process.failure is not None for process in hung] == [True]
    # Long before the limit of 600 s: against the steps so far.
    assert 60 <= run.cluster.now < 100


@pytest.mark.parametrize("snapshots", ["driver", "buddies"])
def test_the_blocks_of_a_silent_host_go_to_the_others(
    tmp_path: pathlib.Path, snapshots: str
) -> None:
    run = Run(tmp_path, once(cut, "advance", step=9, host="b"), snapshots=snapshots)
    assert run.bits == calm()
    assert run.kinds()[0] == "lost" and "recovered" in run.kinds()
    assert run.only("lost")["reason"] == "its node died"
    assert run.pool.shards == 3
    assert {process.node for process in run.cluster.shards()} == {"a", "c", "d"}


@pytest.mark.parametrize("snapshots", ["driver", "buddies"])
@pytest.mark.parametrize("method", ["advance", "save"])
def test_all_shards_of_a_lost_host_are_rebuilt_at_once(
    tmp_path: pathlib.Path, snapshots: str, method: str
) -> None:
    def both_are_cut(cluster: ScriptedTransport, made: Any) -> None:
        of_step = method != "advance" or made.arguments[0] == 9
        if done or made.method != method or not of_step:
            return
        # The first of the two has answered by then.
        if made.process is [one for one in cluster.shards() if one.node == "a"][1]:
            done.append(made)
            cluster.cut("a")

    done: list[Any] = []
    hosts = {"a": 2, "b": 2, "c": 2}
    run = Run(tmp_path, both_are_cut, hosts=hosts, shards=4, snapshots=snapshots)
    assert done
    assert run.bits == calm()
    assert run.kinds()[:2] == ["lost", "lost"]
    lost, other = run.events[:2]
    assert lost.fields["node"] == other.fields["node"] == "a"
    assert lost.fields["shard"] != other.fields["shard"]


def test_a_gpu_is_not_asked_to_hold_more_blocks(tmp_path: pathlib.Path) -> None:
    hook = once(crash, "advance", step=13, host="b")
    run = Run(tmp_path, hook, per_shard=PerShard(num_gpus=1))
    assert run.bits == calm()
    assert run.kinds() == ["lost", "recovered"]
    assert run.only("recovered")["shard"] == run.only("lost")["shard"]


def test_the_others_take_over_until_a_new_shard_has_started(
    tmp_path: pathlib.Path,
) -> None:
    run = Run(tmp_path, once(crash, "advance", step=13, host="b"))
    assert run.bits == calm()
    assert run.kinds() == ["lost", "recovered", "joined", "moved"]
    assert run.only("recovered")["node"] != "b"
    assert run.only("joined")["node"] == "b"
    shards = [record.extra["shards"] for record in run.records]
    assert shards[12] == 4 and min(shards) == 3 and shards[-1] == 4
    assert {record.extra["shards_target"] for record in run.records} == {4}


def test_two_hosts_lost_at_once(tmp_path: pathlib.Path) -> None:
    hooks = [once(cut, "advance", step=9, host=host) for host in "bc"]
    run = Run(tmp_path, *hooks)
    assert run.bits == calm()
    assert run.pool.shards == 2


def test_a_shard_that_dies_while_it_is_rebuilt(tmp_path: pathlib.Path) -> None:
    hooks = [once(crash, "advance", step=9, host="b"), once(crash, "adopt", step=None)]
    # The first adoption of all is lost as well: three losses.
    hooks.append(once(crash, "adopt", host="b"))
    run = Run(tmp_path, *hooks)
    assert run.bits == calm()
    assert run.kinds().count("lost") == 3


def test_an_heir_that_dies_after_it_answered_for_its_own_blocks(
    tmp_path: pathlib.Path,
) -> None:
    def heir_dies(cluster: ScriptedTransport, made: Any) -> None:
        held = made.process.held
        if made.method == "advance" and made.arguments[0] == 9 and not done:
            own = getattr(held, "_next_step", {})
            if sorted(own.values()) != [9] * len(own):  # Some are ahead by then.
                done.append(True)
                cluster.crash(made.process)

    done: list[bool] = []
    run = Run(tmp_path, once(cut, "advance", step=9, host="b"), heir_dies)
    assert done
    assert run.bits == calm()


# The same examples every time; other seeds by `--hypothesis-seed`, without it.
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["crash", "hang", "cut", "announce", "join"]),
            st.sampled_from(["advance", "snapshot", "evaluate", "adopt", "save"]),
            st.sampled_from([0, 3, 8, 9, 16, 22]),
            st.sampled_from(["a", "b", "c", "d", None]),
        ),
        max_size=6,
    ),
    st.sampled_from(["driver", "buddies"]),
)
def test_any_sequence_of_faults_gives_the_same_bits(
    tmp_path_factory: pytest.TempPathFactory,
    faults: list[tuple[str, str, int, str | None]],
    snapshots: str,
) -> None:
    happens = {
        "crash": crash,
        "hang": hang,
        "cut": cut,
        "announce": announce(5.0),
        "join": join("e"),
    }
    hooks = [
        once(
            happens[kind],
            method,
            step=step if method == "advance" else None,
            host=host,
        )
        for kind, method, step, host in faults
    ]
    hooks.append(once(join("f", "g"), "advance", step=12))
    allowed = Budgets(preemptions=20)
    folder = tmp_path_factory.mktemp("run")
    run = Run(folder, *hooks, snapshots=snapshots, budgets=allowed)
    if run.cluster.nodes().alive:
        assert run.bits == calm()
    else:  # Every host was struck before others came.
        assert "not started within 60 s" in (run.outcome.error or "")


def test_a_rebuild_without_its_replay_would_be_seen(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power of all tests above."""
    adopt = Shard.adopt

    def as_if_replayed(
        self: Shard, blocks: Any, indices: Any, at_step: int, ring: Any = ()
    ) -> Any:
        return adopt(self, blocks, indices, at_step + len(ring))

    monkeypatch.setattr(Shard, "adopt", as_if_replayed)
    monkeypatch.setattr(Snapshots, "due", lambda *_: False)
    run = Run(tmp_path, once(crash, "advance", step=13, host="b"))
    assert run.lost_once()
    assert run.bits != calm()


# --- The end of a run that cannot go on -----------------------------------------------


def test_the_same_error_on_two_hosts_is_the_tasks_own(tmp_path: pathlib.Path) -> None:
    run = Run(tmp_path, method=Scripted(raise_at=6))
    assert run.outcome.status == "failed"
    assert run.outcome.error is not None
    assert run.outcome.error.endswith(
        "at outer step 7: ArithmeticError: the simulator fell over"
    )
    first, second = [
        event.fields["node"] for event in run.events if event.kind == "lost"
    ]
    assert first != second


def test_an_error_of_one_host_only_is_survived(tmp_path: pathlib.Path) -> None:
    def breaks(cluster: ScriptedTransport, made: Any) -> None:
        if made.process.node == "b" and made.method == "advance":
            made.arguments = (*made.arguments[:2], ["no such block"])

    run = Run(tmp_path, breaks)
    assert run.bits == calm()
    assert {process.node for process in run.cluster.shards()} == {"a", "c", "d"}


def test_a_budget_of_bugs_that_is_used_up_ends_the_run(tmp_path: pathlib.Path) -> None:
    def always(cluster: ScriptedTransport, made: Any) -> None:
        if made.process.node == "b" and made.method == "advance":
            cluster.crash(made.process)

    run = Run(tmp_path, always, budgets=Budgets(bugs=2))
    assert run.outcome.status == "failed"
    assert "cluster.budgets.bugs=2" in (run.outcome.error or "")
    assert "pes resume" in (run.outcome.error or "")
    assert run.kinds().count("lost") == 3


def test_a_durable_checkpoint_refills_the_budgets(tmp_path: pathlib.Path) -> None:
    hooks = [once(crash, "advance", step=step, host="b") for step in (3, 8, 13, 18)]
    run = Run(tmp_path, *hooks, budgets=Budgets(bugs=1))  # Saved every 5 steps.
    assert run.bits == calm()


def test_a_checkpoint_without_its_manifest_refills_nothing(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = storage.write

    def refusing(folder: str, name: str, data: bytes) -> None:
        if name == MANIFEST:
            raise CheckpointError(f"{folder}/{name}: cannot be written (full)")
        write(folder, name, data)

    monkeypatch.setattr(storage, "write", refusing)
    hooks = [once(crash, "advance", step=step, host="b") for step in (3, 8)]
    run = Run(tmp_path, *hooks, budgets=Budgets(bugs=1))
    assert run.outcome.status == "failed" and run.outcome.outer_step == 8
    assert "2 losses since the last checkpoint" in (run.outcome.error or "")


def test_preemptions_are_not_charged_to_the_bugs(tmp_path: pathlib.Path) -> None:
    run = Run(tmp_path, once(cut, "advance", step=9, host="b"), budgets=Budgets(bugs=0))
    assert run.bits == calm()


def test_a_copy_lost_with_its_shard_costs_the_steps_since_the_last_checkpoint(
    tmp_path: pathlib.Path,
) -> None:
    # The ring of hosts is a -> b -> c -> d -> a: c keeps what b computes.
    hooks = [once(cut, "advance", step=9, host=host) for host in "bc"]
    run = Run(tmp_path, *hooks, snapshots="buddies")
    assert run.bits == calm()
    assert "the copy of its blocks is gone too" in str(run.only("fell_back")["reason"])
    assert run.only("fell_back")["dropped"] == 4  # Saved every 5 steps.


def test_a_copy_that_cannot_be_given_is_said_by_the_heir_that_needed_it(
    tmp_path: pathlib.Path,
) -> None:
    hooks = [once(cut, "advance", step=9, host="b"), once(crash, "give")]
    run = Run(tmp_path, *hooks, snapshots="buddies")
    assert run.bits == calm()
    # The heir's own answer brought nothing back.
    assert run.kinds()[:3] == ["lost", "lost", "fell_back"]


def test_a_buddy_that_hangs_does_not_end_the_copies(tmp_path: pathlib.Path) -> None:
    def slowly(cluster: ScriptedTransport, made: Any) -> None:
        if made.method == "advance":
            cluster.now += 3.0  # So that what hangs is overdue within the run.

    hooks = [once(hang, "keep"), slowly]
    run = Run(tmp_path, *hooks, snapshots="buddies", steps=24)
    assert run.bits == calm()
    copies = [made.arguments for made in run.cluster.made if made.method == "keep"]
    assert len(copies) > 2 * len(HOSTS)
    hung = [process for process in run.cluster.processes if process.hung]
    assert [process.failure is not None for process in hung] == [True]


def test_a_host_that_was_lost_is_better_than_none(tmp_path: pathlib.Path) -> None:
    run = Run(tmp_path, once(hang, "advance", step=9), hosts={"a": 1})
    assert run.bits == calm()
    assert run.cluster.now < 100  # Not the 60 s more in which nothing is placed.


def test_an_error_whose_text_varies_has_an_end(tmp_path: pathlib.Path) -> None:
    raised: list[int] = []

    def varies(cluster: ScriptedTransport, made: Any) -> None:
        if made.method == "advance" and made.process.held is not None:
            raised.append(1)
            made.arguments = (*made.arguments[:2], [f"no block {len(raised)}"])

    run = Run(tmp_path, varies, budgets=Budgets(bugs=3))
    assert run.outcome.status == "failed"
    assert len(raised) < 20


@pytest.mark.parametrize("method", ["evaluate", "save", "adopt", "snapshot", "advance"])
def test_what_is_slow_is_not_taken_for_hung(
    tmp_path: pathlib.Path, method: str
) -> None:
    run = Run(tmp_path, seconds={method: 200.0})
    assert run.bits == calm()
    assert run.kinds() == []


def test_a_head_that_comes_back_costs_the_time_that_it_was_away(
    tmp_path: pathlib.Path,
) -> None:
    def lost(cluster: ScriptedTransport, process: Process) -> None:
        cluster.lose_head(30.0)

    run = Run(tmp_path, once(lost, "advance", step=9, host="b"))
    assert run.bits == calm()
    assert run.kinds() == []
    assert 30 < run.cluster.now < 60


def test_a_loss_is_no_measure_of_how_long_steps_take(tmp_path: pathlib.Path) -> None:
    hooks = [
        once(hang, "advance", step=5, host="b"),
        once(hang, "advance", step=20, host="c"),
    ]
    run = Run(tmp_path, *hooks)
    assert run.bits == calm()
    assert run.kinds().count("lost") == 2
    assert run.cluster.now < 250  # The second hang is noticed as soon as the first.


def test_a_loss_whose_blocks_go_to_several_is_recovered_once(
    tmp_path: pathlib.Path,
) -> None:
    method, hosts = Scripted(blocks=8), {"a": 1, "b": 1, "c": 1}
    run = Run(
        tmp_path,
        once(crash, "advance", step=13, host="b"),
        method=method,
        hosts=hosts,
    )
    assert run.outcome.status == "finished"
    assert run.kinds().count("recovered") == 1
