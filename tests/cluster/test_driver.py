"""The driver over the local pool: order, phases, resuming, and how runs end."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import optax
import pytest

from pes_cluster.cluster.phases import Ended, Running, Saving, after_step
from pes_cluster.cluster.settings import RunSettings
from pes_cluster.cluster.work import Work
from pes_cluster.core.trees import sha256
from pes_cluster.estimators.evolution.pes import PES
from pes_cluster.learners.least_mean_squares import LeastMeanSquares

from .scripted import OPTIMIZER, Scripted, drive, local, work

EVALUATED = RunSettings(outer_steps=12, eval_every=4, eval_episodes=3)


def by_hand(steps: int) -> Any:
    """The same run, written as a plain loop over plain functions."""
    job = work()
    program, theta = job.program(), job.initial_theta()
    advance = jax.jit(program.advance)
    blocks = [program.init(theta, index) for index in range(program.num_blocks)]
    transformation = OPTIMIZER.transformation()
    memory = transformation.init(theta)
    for step in range(steps):
        total = jax.tree.map(np.zeros_like, theta)
        for index, block in enumerate(blocks):
            blocks[index], report = advance(theta, block, step)
            total = jax.tree.map(np.add, total, report.gradient)
        gradient = jax.tree.map(lambda leaf: leaf / 20, total)
        updates, memory = transformation.update(gradient, memory, theta)
        theta = optax.apply_updates(theta, updates)
    return theta


def test_the_driver_does_what_a_plain_loop_does(tmp_path: pathlib.Path) -> None:
    outcome, records = drive(local(), tmp_path)
    assert (outcome.status, outcome.outer_step) == ("finished", 12)
    expected = by_hand(12)
    for name, leaf in outcome.theta.items():
        np.testing.assert_allclose(leaf, expected[name], rtol=1e-5)
    assert [record.outer_step for record in records] == list(range(1, 13))
    assert records[-1].inner_steps == 12 * 5 * 8 and records[-1].particles == 20


@pytest.mark.parametrize("shards", [2, 3, 4, 9])
@pytest.mark.parametrize("shaped", [False, True])
def test_the_hash_does_not_depend_on_the_number_of_shards(
    tmp_path: pathlib.Path, shards: int, shaped: bool
) -> None:
    method = Scripted(shaped=shaped)
    one, seen = drive(local(method, 1, EVALUATED), tmp_path / "one")
    many, others = drive(local(method, shards, EVALUATED), tmp_path / "many")
    assert sha256(one.theta) == sha256(many.theta)
    assert sha256(one.theta) != sha256(work().initial_theta())
    assert [r.eval_loss for r in seen] == [r.eval_loss for r in others]
    evaluated = [r.outer_step for r in seen if r.eval_loss is not None]
    assert evaluated == [4, 8, 12]


@pytest.mark.parametrize("before, after", [(1, 1), (1, 4), (3, 2)])
@pytest.mark.parametrize("shaped", [False, True])
def test_a_resumed_run_has_the_bits_of_one_that_never_stopped(
    tmp_path: pathlib.Path, before: int, after: int, shaped: bool
) -> None:
    method = Scripted(shaped=shaped)
    whole, records = drive(local(method), tmp_path / "whole")
    # Killed after step 8: what came after the checkpoint at 5 is lost.
    killed = local(method, before)
    with pytest.raises(KeyboardInterrupt):
        drive(_killed_after(killed, 8), tmp_path / "cut")
    resumed, rest = drive(local(method, after), tmp_path / "cut")
    assert sha256(resumed.theta) == sha256(whole.theta)
    assert [r.outer_step for r in rest] == list(range(6, 13))
    assert [r.loss for r in rest] == [r.loss for r in records[5:]]
    assert resumed.inner_steps == whole.inner_steps


def _killed_after(engine: Any, steps: int) -> Any:
    advance, calls = engine.advance, []

    def dies(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) > steps:
            raise KeyboardInterrupt
        return advance(*arguments)

    engine.advance = dies
    return engine


def test_asked_to_stop_it_stops_at_the_boundary_with_a_checkpoint(
    tmp_path: pathlib.Path,
) -> None:
    whole, _ = drive(local(), tmp_path / "whole")
    stopped, records = drive(local(), tmp_path / "cut", stop_after=3)
    assert (stopped.status, stopped.outer_step, len(records)) == ("stopped", 3, 3)
    resumed, _ = drive(local(), tmp_path / "cut")
    assert resumed.status == "finished"
    assert sha256(resumed.theta) == sha256(whole.theta)


def test_a_finished_run_is_extended(tmp_path: pathlib.Path) -> None:
    whole, _ = drive(local(), tmp_path / "whole")
    drive(local(), tmp_path / "short", outer_steps=7)
    longer, _ = drive(local(), tmp_path / "short")
    assert sha256(longer.theta) == sha256(whole.theta)


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path: pathlib.Path) -> None:
    outcome, records = drive(local(Scripted(nan_at=6)), tmp_path)
    assert (outcome.status, outcome.outer_step) == ("failed", 7)
    assert outcome.error is not None and "since outer step 7;" in outcome.error
    assert "\n" not in outcome.error
    folders = sorted(folder.name for folder in tmp_path.iterdir())
    assert folders == ["step_00000005"]


def test_a_learner_updates_nothing(tmp_path: pathlib.Path) -> None:
    outcome, records = drive(local(Scripted(learner=True)), tmp_path)
    assert sha256(outcome.theta) == sha256(work().initial_theta())
    assert records[-1].gradient_norm is None and records[0].loss != records[1].loss


def test_a_real_learner_without_a_task_resumes(tmp_path: pathlib.Path) -> None:
    from pes_cluster.cluster.checkpoint import CheckpointStore
    from pes_cluster.cluster.driver import Driver
    from pes_cluster.cluster.engine import PoolEngine
    from pes_cluster.cluster.local_pool import LocalPool
    from pes_cluster.cluster.plan import Plan

    job = Work(None, LeastMeanSquares(), 0)

    def go(folder: pathlib.Path, steps: int) -> list[float]:
        losses: list[float] = []
        plan = Plan(steps, 2, "lms", lambda record: losses.append(record.loss))
        store = CheckpointStore(str(folder))
        engine = PoolEngine(LocalPool(job, 2), job, OPTIMIZER, RunSettings())
        driver = Driver(plan, engine, store, OPTIMIZER, job.initial_theta())
        assert driver.run().status == "finished"
        return losses

    whole = go(tmp_path / "whole", 4)
    assert go(tmp_path / "cut", 2) + go(tmp_path / "cut", 4) == whole
    assert len(set(whole)) == 4


def test_blocks_of_another_configuration_are_refused_in_one_line(
    tmp_path: pathlib.Path,
) -> None:
    from pes_cluster.tasks.toy_regression import ToyRegression

    drive(local(), tmp_path, outer_steps=5)
    engine = local()
    job = Work(ToyRegression(), PES(20, 10, 0.3), 0)
    engine._pool = type(engine._pool)(job)
    outcome, _ = drive(engine, tmp_path)
    assert outcome.status == "failed" and outcome.error is not None
    assert str(tmp_path) in outcome.error and "\n" not in outcome.error


@pytest.mark.parametrize(
    "step, due, stop, failure, expected",
    [
        (3, False, False, None, Running(3)),
        (5, True, False, None, Saving(5, Running(5))),
        (3, False, True, None, Saving(3, Ended("stopped", 3))),
        (12, False, True, None, Saving(12, Ended("finished", 12))),
        (5, True, True, "why", Ended("failed", 5, "why")),
    ],
)
def test_what_follows_a_step(
    step: int, due: bool, stop: bool, failure: str | None, expected: Any
) -> None:
    assert after_step(step, 12, due, stop, failure) == expected


def test_records_say_what_json_can_say(tmp_path: pathlib.Path) -> None:
    _, records = drive(local(), tmp_path, outer_steps=1)
    odd = dataclasses.replace(records[0], loss=float("nan"))
    assert '"loss": null' in odd.to_json() and "eval_loss" not in odd.to_json()
