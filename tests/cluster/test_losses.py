"""What the driver does when answers do not come: rows of the failure table."""

import pathlib
from typing import Any

import pytest

from pes_cluster.cluster.engine import PoolEngine
from pes_cluster.cluster.local_pool import LocalPool
from pes_cluster.cluster.pool import Lost
from pes_cluster.cluster.settings import RunSettings
from pes_cluster.core.trees import sha256

from .scripted import OPTIMIZER, Scripted, drive, local, work


class Losing(LocalPool):
    """Answers one call, by name and number, with a loss."""

    def __init__(self, method: str, call: int, lost: Lost) -> None:
        shaped = method in ("score", "weighted_sum")
        self.job = work(Scripted(shaped=shaped))
        super().__init__(self.job, 2)
        original, calls = getattr(self, method), []

        def losing(*arguments: Any) -> Any:
            calls.append(1)
            return lost if len(calls) == call else original(*arguments)

        setattr(self, method, losing)


def losing(method: str, call: int, user_error: bool = False) -> PoolEngine:
    pool = Losing(method, call, Lost(1, "its process died", user_error))
    run = RunSettings(outer_steps=12, eval_every=4)
    return PoolEngine(pool, pool.job, OPTIMIZER, run)


@pytest.mark.parametrize(
    "method, call, step",
    [
        ("step", 8, 8),
        ("score", 8, 8),
        ("weighted_sum", 8, 8),
        ("evaluate", 2, 8),
        ("save", 2, 11),
    ],
)
def test_a_loss_ends_the_run_and_resuming_gives_the_same_bits(
    tmp_path: pathlib.Path, method: str, call: int, step: int
) -> None:
    outcome, _ = drive(losing(method, call), tmp_path / "cut")
    assert (outcome.status, outcome.error) == (
        "failed",
        f"shard 1 at outer step {step}: its process died; `pes resume` continues the "
        "run",
    )
    assert outcome.resumable
    shaped = Scripted(shaped=method in ("score", "weighted_sum"))
    resumed, rest = drive(local(shaped, 3), tmp_path / "cut")
    whole, _ = drive(local(shaped), tmp_path / "whole")
    assert rest[0].outer_step == 6
    assert sha256(resumed.theta) == sha256(whole.theta)


def test_an_error_of_the_task_itself_promises_no_resuming(
    tmp_path: pathlib.Path,
) -> None:
    outcome, _ = drive(losing("step", 3, user_error=True), tmp_path)
    assert outcome.error == "shard 1 at outer step 3: its process died"
    assert not outcome.resumable


def test_shards_that_never_start_end_the_run(tmp_path: pathlib.Path) -> None:
    outcome, records = drive(losing("restore", 1), tmp_path)
    assert (outcome.status, outcome.outer_step, records) == ("failed", 0, [])
    assert outcome.error is not None and "outer step 1: its process" in outcome.error
    assert outcome.resumable


def test_in_process_the_tasks_own_error_rises(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ArithmeticError, match="the simulator"):
        drive(local(Scripted(raise_at=6)), tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == ["step_00000005"]
