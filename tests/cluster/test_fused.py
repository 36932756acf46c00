"""Fused outer steps: the same run as step by step, in one compiled loop."""

import pathlib
from typing import Any

import numpy as np
import pytest

from pes_cluster.cluster.checkpoint import CheckpointStore
from pes_cluster.cluster.control import Answer, Asked, Scale
from pes_cluster.cluster.driver import Driver
from pes_cluster.cluster.fused import FusedEngine
from pes_cluster.cluster.plan import Plan
from pes_cluster.cluster.settings import RunSettings
from pes_cluster.cluster.work import Work
from pes_cluster.core.trees import sha256
from pes_cluster.estimators.evolution.pes import PES
from pes_cluster.tasks.toy_regression import ToyRegression

from .scripted import OPTIMIZER, Scripted, drive, local, work

RUN = RunSettings(outer_steps=12, eval_every=4, eval_episodes=3)


def fused(method: Scripted | None = None, fuse: int = 4) -> FusedEngine:
    return FusedEngine(work(method), OPTIMIZER, RUN, fuse)


@pytest.mark.parametrize("fuse", [5, 100])
def test_it_is_the_run_made_step_by_step(tmp_path: pathlib.Path, fuse: int) -> None:
    plain, records = drive(local(run=RUN), tmp_path / "plain")
    looped, others = drive(fused(fuse=fuse), tmp_path / "fused")
    for name, leaf in plain.theta.items():
        np.testing.assert_allclose(looped.theta[name], leaf, rtol=1e-5)
    assert len(others) == len(records) == 12
    for one, other in zip(records, others, strict=True):
        assert (one.outer_step, one.inner_steps) == (
            other.outer_step,
            other.inner_steps,
        )
        assert one.particles == other.particles
        np.testing.assert_allclose(other.loss, one.loss, rtol=1e-5)
        assert (one.eval_loss is None) == (other.eval_loss is None)
        if one.eval_loss is not None and other.eval_loss is not None:
            np.testing.assert_allclose(other.eval_loss, one.eval_loss, rtol=1e-5)
        np.testing.assert_allclose(other.gradient_norm, one.gradient_norm, rtol=1e-4)


@pytest.fixture(scope="module")
def toy_in_one_chunk(tmp_path_factory: pytest.TempPathFactory) -> str:
    return _toy(60, 60, tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize(("fuse", "every"), [(2, 60), (59, 60), (7, 20), (60, 1)])
def test_chunks_of_any_length_give_the_same_bits(
    toy_in_one_chunk: str, fuse: int, every: int, tmp_path: pathlib.Path
) -> None:
    assert _toy(fuse, every, tmp_path) == toy_in_one_chunk


def _toy(
    fuse: int, every: int, folder: pathlib.Path, steps: int = 60, **more: Any
) -> str:
    """The hash of 60 steps of toy regression, with a checkpoint after so many."""
    job = Work(ToyRegression(), PES(20, 10, 0.3), 0)
    engine = FusedEngine(job, OPTIMIZER, RunSettings(outer_steps=steps), fuse)
    plan = Plan(steps, every, "toy", lambda record: None, **more)
    store = CheckpointStore(str(folder))
    outcome = Driver(plan, engine, store, OPTIMIZER, job.initial_theta()).run()
    assert outcome.status == "finished"
    assert sha256(outcome.theta) != sha256(job.initial_theta())
    return sha256(outcome.theta)


def test_chunks_end_at_checkpoints_so_that_a_resumed_run_has_the_same_bits(
    tmp_path: pathlib.Path,
) -> None:
    whole, _ = drive(fused(), tmp_path / "whole")
    cut, records = drive(fused(), tmp_path / "cut", stop_after=4)
    assert (cut.status, cut.outer_step) == ("stopped", 4)
    resumed, rest = drive(fused(), tmp_path / "cut")
    assert rest[0].outer_step == 5
    assert sha256(resumed.theta) == sha256(whole.theta)


@pytest.mark.parametrize("particles", [8, 40])
def test_it_is_scaled_between_two_chunks(
    tmp_path: pathlib.Path, particles: int
) -> None:
    """After step 9: the end of the third chunk."""
    scale = Scale(particles)
    plain, records = drive(local(run=RUN), tmp_path / "plain", **asked(scale, 9))
    looped, others = drive(fused(), tmp_path / "fused", **asked(scale, 3))
    for name, leaf in plain.theta.items():
        np.testing.assert_allclose(looped.theta[name], leaf, rtol=1e-5)
    assert [one.particles for one in others] == [one.particles for one in records]
    assert {one.particles for one in others[9:]} == {particles}


@pytest.mark.parametrize("particles", [8, 40])
def test_scaled_and_resumed_it_has_the_same_bits(
    tmp_path: pathlib.Path, particles: int
) -> None:
    whole = _toy(60, 20, tmp_path / "whole", **asked(Scale(particles), 1))
    _toy(60, 20, tmp_path / "cut", 30, **asked(Scale(particles), 1))
    assert _toy(7, 20, tmp_path / "cut") == whole


def test_a_scale_that_is_refused_changes_nothing(tmp_path: pathlib.Path) -> None:
    plain, _ = drive(fused(), tmp_path / "plain")
    for number, refused in enumerate((Scale(6), Scale(shards=2))):
        answers: list[Answer] = []
        plan = asked(refused, 1, answers)
        outcome, _ = drive(fused(), tmp_path / str(number), **plan)
        assert [answer.done for answer in answers] == [False]
        assert sha256(outcome.theta) == sha256(plain.theta)


def asked(
    command: Scale, boundary: int, answers: list[Answer] | None = None
) -> dict[str, Any]:
    """Of a plan: a run that is asked for something at its so-manieth boundary."""
    answer = [] if answers is None else answers
    coming = [[]] * (boundary - 1) + [[Asked(command, answer.append)]]
    left = iter(coming)
    return {"commands": lambda: next(left, [])}


def test_it_takes_over_from_a_pool_and_hands_back(tmp_path: pathlib.Path) -> None:
    whole, _ = drive(local(), tmp_path / "whole")
    drive(local(shards=2), tmp_path / "cut", outer_steps=4)
    drive(fused(), tmp_path / "cut", outer_steps=8)
    last, _ = drive(local(shards=3), tmp_path / "cut")
    for name, leaf in whole.theta.items():
        np.testing.assert_allclose(last.theta[name], leaf, rtol=1e-5)


def test_the_step_that_diverged_is_found_within_a_chunk(tmp_path: pathlib.Path) -> None:
    outcome, _ = drive(fused(Scripted(nan_at=7), 5), tmp_path)
    assert outcome.status == "failed" and outcome.error is not None
    assert "since outer step 8;" in outcome.error


def test_a_learner_is_fused(tmp_path: pathlib.Path) -> None:
    _, records = drive(fused(Scripted(learner=True)), tmp_path / "fused")
    _, others = drive(local(Scripted(learner=True)), tmp_path / "plain")
    np.testing.assert_allclose(
        [r.loss for r in records], [r.loss for r in others], rtol=1e-5
    )
    assert {record.gradient_norm for record in records} == {None}


@pytest.mark.parametrize("method", [Scripted(shaped=True), Scripted(raise_at=3)])
def test_what_cannot_be_fused_is_refused(method: Scripted) -> None:
    with pytest.raises(ValueError, match="^fuse: .*cluster.fuse=1$"):
        fused(method)
