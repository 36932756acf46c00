"""Several tasks behind one theta: the mean of independent estimates, on any cluster."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import pes_cluster as pes
from pes_cluster.config.decode import ConfigError
from pes_cluster.config.run_config import differences, digest, from_dict, to_dict
from pes_cluster.core import keys
from pes_cluster.core.evaluation import evaluator
from pes_cluster.core.several import check, part_seed, program_of
from pes_cluster.core.task import TaskError
from pes_cluster.estimators.evolution.shaping import Shaping
from pes_cluster.tasks.influence_balancing import InfluenceBalancing
from pes_cluster.tasks.multi_task import MultiTask
from pes_cluster.tasks.toy_regression import ToyRegression

LONG, SHORT = ToyRegression(), ToyRegression(initial=(0, 0), episode_length=20)
BOTH = MultiTask((LONG, SHORT))
THETA = np.array([-4.0, -3.0], np.float32)


def reports(method: Any, task: Any, seed: int = 0) -> list[Any]:
    """The reports of three windows of every block."""
    program, found = program_of(method, task, seed), []
    advance = jax.jit(program.advance)
    for index in range(program.num_blocks):
        block = program.init(THETA, index)
        for outer_step in range(3):
            block, report = advance(THETA, block, np.int32(outer_step))
            found.append(report)
    return found


def test_its_estimate_is_the_mean_of_the_tasks_estimates() -> None:
    """With the states, clocks and noise of each task as if it were alone."""
    assert len({part_seed(seed, index) for seed in (0, 1) for index in (0, 1)}) == 4
    method = pes.PES(num_particles=8, truncation_length=5, sigma=0.3, pairs_per_block=2)
    alone = [
        reports(method, task, part_seed(0, index))
        for index, task in enumerate((LONG, SHORT))
    ]
    for one, other, both in zip(*alone, reports(method, BOTH), strict=True):
        total = np.asarray(one.gradient) + np.asarray(other.gradient)
        np.testing.assert_allclose(both.gradient, total, rtol=1e-5)
        assert both.weight == one.weight + other.weight == 8
        loss = one.sums["loss"] + other.sums["loss"]
        assert both.sums["loss"] == pytest.approx(float(loss), rel=1e-6)
        assert both.counts["inner_steps"] == 2 * one.counts["inner_steps"]


def test_its_evaluation_is_the_mean() -> None:
    first, second = (
        float(evaluator(task)(THETA, keys.theta_key(0))) for task in (LONG, SHORT)
    )
    mean = evaluator(BOTH)(THETA, keys.theta_key(0))
    assert float(mean) == pytest.approx((first + second) / 2, rel=1e-6)


SECTIONS = {
    "task": {
        "type": "multi_task",
        "tasks": [
            {"type": "toy_regression"},
            {"type": "toy_regression", "episode_length": 20},
        ],
    },
    "estimator": {
        "type": "pes",
        "num_particles": 12,
        "truncation_length": 5,
        "sigma": 0.3,
    },
    "outer": {"optimizer": {"type": "adam", "learning_rate": 0.01}},
    "run": {"outer_steps": 6, "eval_every": 3},
    "cluster": {"pool": "local"},
}


@pytest.mark.slow
def test_the_same_result_on_any_shards_and_after_a_resumption(tmp_path: Path) -> None:
    config = from_dict(SECTIONS)
    assert isinstance(config.task, MultiTask)
    calm = pes.run(config, tmp_path / "calm")
    assert calm.status == "finished", calm.error
    cluster = pes.ClusterSettings(pool="local", shards=3)
    half = dataclasses.replace(
        config,
        cluster=cluster,
        run=pes.RunSettings(outer_steps=3, eval_every=3),
    )
    assert pes.run(half, tmp_path / "half").outer_steps == 3
    again = pes.run(config, tmp_path / "half")
    assert again.outer_steps == 6
    assert again.theta_sha256 == calm.theta_sha256


def test_a_configuration_names_each_task() -> None:
    config = from_dict(SECTIONS)
    assert from_dict(to_dict(config)) == config
    other = from_dict(to_dict(config))
    assert digest(other) == digest(config)
    shorter = {"type": "toy_regression", "episode_length": 9}
    changed = from_dict(SECTIONS | {"task": {"type": "multi_task", "tasks": [shorter]}})
    assert digest(changed) != digest(config)
    assert differences(config, changed)
    # Where a task's files lie does not change what is in them.
    places = [
        from_dict(
            SECTIONS
            | {
                "task": {
                    "type": "multi_task",
                    "tasks": [{"type": "character_model", "data_dir": place}],
                }
            }
        )
        for place in ("here", "there")
    ]
    assert digest(places[0]) == digest(places[1])


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ("toy_regression", r"task.tasks: found .*; must be a list"),
        ([{"type": "toy"}], r"task.tasks\[0\].type: unknown task"),
        ([{"type": "lorenz"}, {"type": "lorenz", "dt": 1}], r"task.tasks\[1\].dt: unk"),
    ],
)
def test_a_wrong_task_among_them_is_named(tasks: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        from_dict(SECTIONS | {"task": {"type": "multi_task", "tasks": tasks}})


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(TaskError, match="MultiTask is made of no tasks"):
        check(MultiTask(()))
    with pytest.raises(
        TaskError, match="one theta, but that of ToyRegression is .*Inf"
    ):
        check(MultiTask((LONG, InfluenceBalancing())))
    ranks = pes.PES(
        num_particles=4,
        truncation_length=5,
        sigma=0.3,
        shaping=Shaping("centered_ranks"),
    )
    with pytest.raises(TaskError, match="an estimator without shaping"):
        program_of(ranks, BOTH, 0)
