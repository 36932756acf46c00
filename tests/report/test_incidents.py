"""What befell a run, told as incidents."""

from pes_cluster.report.incidents import clock, incidents
from tests.report.samples import EVENTS


def test_a_loss_and_its_recovery_are_one_and_a_killed_driver_is_noticed() -> None:
    found = incidents(EVENTS)
    kinds = [one.kind for one in found]
    assert kinds == [
        "started",
        "lost and recovered",
        "lost",
        "driver lost and resumed",
        "scaled",
        "stopped",
        "resumed",
        "finished",
    ]
    _, back, gone, killed, _, _, resumed, _ = found
    assert (back.where, back.back_after, back.replayed) == (
        "shard 1, node f7d48a4d",
        5.5,
        3,
    )
    assert back.when == "1970-01-01 00:01:52" and back.outer_step == 60
    assert gone.detail == "silent; not recovered" and gone.back_after is None
    assert killed.back_after == 1000.0 and resumed.back_after is None


def test_each_recovery_answers_one_loss() -> None:
    twice = [
        {"event": kind, "outer_step": 1, "time": float(at), "shard": 0, "seconds": at}
        for at, kind in enumerate(
            ["lost", "recovered", "lost", "recovered", "recovered"]
        )
    ]
    found = [(one.kind, one.back_after) for one in incidents(twice)]
    pair = "lost and recovered"
    assert found == [(pair, 1.0), (pair, 3.0), ("recovered", 4.0)]


def test_the_clock_leaves_out_what_lies_between_sittings() -> None:
    assert clock(EVENTS) == [0.0, 10.0, 12.0, 12.5, 18.0, 18.0, 28.0, 30.0, 30.0, 40.0]
