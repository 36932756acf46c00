"""What every registered estimator owes every registered task."""

import dataclasses
import importlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.cluster.leaves import from_arrays, to_arrays
from pes_cluster.core.several import program_of
from pes_cluster.core.task import TaskError, parts_of, traits
from pes_cluster.estimators.evolution.pes import PES
from pes_cluster.estimators.registry import ESTIMATORS
from pes_cluster.tasks.character_model import CharacterModel
from pes_cluster.tasks.influence_balancing import InfluenceBalancing
from pes_cluster.tasks.learned_optimizer import LearnedOptimizer
from pes_cluster.tasks.lorenz import Lorenz
from pes_cluster.tasks.mlp_hyperparameters import MLPHyperparameters
from pes_cluster.tasks.mlp_learning_rate_schedule import MLPLearningRateSchedule
from pes_cluster.tasks.multi_task import MultiTask
from pes_cluster.tasks.optimizer_hyperparameters import OptimizerHyperparameters
from pes_cluster.tasks.registry import TASKS
from pes_cluster.tasks.ridge_regression import RidgeRegression
from pes_cluster.tasks.toy_regression import ToyRegression
from tests.helpers.runs import thetas

SMALL: dict[str, Any] = {
    "toy_regression": ToyRegression(),
    "influence_balancing": InfluenceBalancing(),
    "mlp_learning_rate_schedule": MLPLearningRateSchedule(
        hidden=(4,), episode_length=7, batch_size=4
    ),
    "learned_optimizer": LearnedOptimizer(
        hidden=(), optimizer_hidden=(4,), episode_length=7, batch_size=4
    ),
    "character_model": CharacterModel(episode_length=7),
    "ridge_regression": RidgeRegression(num_rows=20, num_features=2),
    "lorenz": Lorenz(episode_length=7),
    "mlp_hyperparameters": MLPHyperparameters(
        hidden=(4,), episode_length=7, batch_size=4
    ),
    "multi_task": MultiTask(
        (ToyRegression(), ToyRegression(initial=(0.0, 0.0), episode_length=7))
    ),
    "optimizer_hyperparameters": OptimizerHyperparameters(
        hidden=(), episode_length=7, batch_size=4, per="tensor"
    ),
}


def _recipe(name: str) -> Any:
    module, _, attribute = ESTIMATORS[name].partition(":")
    cls = getattr(importlib.import_module(module), attribute)
    given = {
        "num_particles": 10,
        "truncation_length": 3,
        "sigma": 0.1,
        "noise_period": 2,
        "pairs_per_block": 2,
        "ranges": (-1.0, 1.0),
    }
    fields = {field.name for field in dataclasses.fields(cls)}
    return cls(**{key: value for key, value in given.items() if key in fields})


def test_every_task_has_a_small_form() -> None:
    assert set(SMALL) == set(TASKS)


SLOW = pytest.mark.slow
NEEDS_AN_END = ("forward_gradient",)  # Beyond those that unroll whole episodes.
# They weigh the particles of a step against each other, which have one task then.
COMPARES = ("ars", "openai_es", "random_search")
THROUGH_TIME = ("tbptt", "bptt", "rtrl", "uoro", "forward_gradient")

ALL = tuple(ESTIMATORS)
# One of each way through a window. What sets the others apart (when noise is drawn, how
# it is credited, how scores are weighed) knows nothing of a task.
KINDS = ("pes", "pes_analytic", "random_search", *THROUGH_TIME)
PAIRS = {
    **dict.fromkeys(TASKS, KINDS),
    **dict.fromkeys(
        ("toy_regression", "influence_balancing", "mlp_learning_rate_schedule"), ALL
    ),
    # An LSTM's weights are too many for a forward derivative of each.
    "character_model": tuple(name for name in KINDS if name != "rtrl"),
    "multi_task": (*KINDS, "openai_es", "ars"),
}
QUICK = {
    "toy_regression": ALL,
    "influence_balancing": ("pes", "nres", "gpes", "tbptt", "bptt"),
    "mlp_learning_rate_schedule": ("pes", "tbptt"),
    "mlp_hyperparameters": ("pes_analytic", *THROUGH_TIME),  # Refused.
    "multi_task": COMPARES,  # Refused.
}


def _differentiates(name: str) -> bool:
    return name in ("pes_analytic", *THROUGH_TIME)


def _marks(name: str, task: str) -> list[pytest.MarkDecorator]:
    if name in QUICK.get(task, ()):
        return []
    return [SLOW if task in QUICK and name in KINDS else pytest.mark.nightly]


def _contracts() -> list[Any]:
    """Tasks and estimators; a pair that proves nothing new is left out."""
    return [
        pytest.param(
            name,
            task,
            marks=_marks(name, task),
        )
        for task in TASKS
        for name in PAIRS[task]
    ]


@pytest.mark.parametrize("name, task_name", _contracts())
def test_contract(name: str, task_name: str) -> None:
    """One trace, states that survive as plain arrays, inert padding, right counts."""
    task, recipe = SMALL[task_name], _recipe(name)
    parts = parts_of(task) or (task,)
    whole = "truncation_length" not in {f.name for f in dataclasses.fields(recipe)}
    if _differentiates(name) and not traits(task).differentiable:
        with pytest.raises(TaskError, match="derivatives say nothing about theta"):
            recipe.build(task, 0)
        return
    no_end = any(part.episode_length is None for part in parts)
    if (whole or name in NEEDS_AN_END) and no_end:
        with pytest.raises(TaskError, match="never ends"):
            recipe.build(task, 0)
        return
    if parts_of(task) and name in COMPARES:
        with pytest.raises(TaskError, match="several tasks need"):
            program_of(recipe, task, 0)
        return
    program = program_of(recipe, task, 0)
    theta = task.initial_theta(jax.random.key(0))
    traces = []

    def traced(theta: Any, block: Any, outer_step: Any) -> Any:
        traces.append(1)
        return program.advance(theta, block, outer_step)

    advance = jax.jit(traced)
    weight, steps = 0.0, 0
    for index in range(program.num_blocks):
        block = program.init(theta, index)
        for outer_step in range(4):
            saved = to_arrays(block)
            block, report = advance(theta, block, np.int32(outer_step))
            again, repeated = advance(
                theta, from_arrays(block, saved), np.int32(outer_step)
            )
            for a, b in zip(
                jax.tree.leaves((block, report)),
                jax.tree.leaves((again, repeated)),
                strict=True,
            ):
                np.testing.assert_array_equal(a, b)
        assert jax.tree.structure(report.gradient) == jax.tree.structure(theta)
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(report.gradient))
        weight += float(report.weight)
        steps += int(report.counts["inner_steps"])
    assert len(traces) == 1
    assert weight == 10 * len(parts)
    length = sum(part.episode_length if whole else 3 for part in parts)
    # Charged for the mean state of each of the five pairs.
    trajectories = 15 if name in ("truncated_es", "pes_analytic") else 10
    assert steps == trajectories * length


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in ("ars", "uoro") else [SLOW])
        for name in ESTIMATORS
    ],
)
def test_the_result_depends_neither_on_the_shards_nor_on_a_stop(
    name: str, tmp_path: pathlib.Path
) -> None:
    hashes = thetas(SMALL["toy_regression"], _recipe(name), tmp_path)
    assert len(set(hashes.values())) == 1, hashes


@pytest.mark.parametrize("name", ESTIMATORS)
def test_particles_can_be_added_and_removed_or_it_is_refused(name: str) -> None:
    """Both or neither: a recipe that scales, and a program that resizes blocks."""
    recipe, task = _recipe(name), SMALL["toy_regression"]
    program, theta = recipe.build(task, 0), task.initial_theta(jax.random.key(0))
    evolution = "evolution" in ESTIMATORS[name]
    assert hasattr(recipe, "scaled") == evolution
    assert (program.resized is not None) == evolution
    if not evolution:
        return
    before = program.init(theta, 2)
    for num_particles, active in ((20, [True, True]), (10, [True, False])):
        resized = recipe.scaled(num_particles).build(task, 0).resized(theta, before)
        np.testing.assert_array_equal(resized.active, active)
        assert jax.tree.structure(resized) == jax.tree.structure(before)
        for a, b in zip(jax.tree.leaves(resized), jax.tree.leaves(before), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)


@dataclasses.dataclass(frozen=True)
class Stopping:
    """Ends by itself once the state has passed a threshold: signs end apart."""

    host: bool = False
    episode_length: int = 9
    terminates: bool = True

    def initial_theta(self, key: Any) -> Any:
        return np.array([0.3, 0.1], np.float32)

    def init(self, theta: Any, key: Any) -> Any:
        return np.zeros(1, np.float32) if self.host else jnp.zeros(1, jnp.float32)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        state = 0.9 * state + theta[0] + theta[1] * state * state
        state = state.astype(np.float32)
        return state, state[0] * state[0] - theta[1], state[0] > 1.1


def _reference(theta: np.ndarray, noise: np.ndarray, length: int) -> tuple[Any, Any]:
    """Rules 3.4 and 3.5 for one pair, loop by loop; noise is eps of each window."""
    task, sigma = Stopping(host=True), 0.5
    state = [np.zeros(1, np.float32)] * 2
    xi, clock = np.zeros((2, 2)), [0, 0]
    gradients = []
    for eps in noise:
        gradient = np.zeros(2)
        for member, sign in enumerate((1.0, -1.0)):
            perturbed = (theta + sign * eps).astype(np.float32)
            weight = xi[member] + sign * eps
            for _ in range(length):
                if clock[member] == 0:
                    state[member] = task.init(perturbed, None)
                state[member], loss, done = task.step(perturbed, state[member], None)
                gradient += weight * loss / sigma**2
                clock[member] += 1
                if done or clock[member] == task.episode_length:
                    clock[member], weight = 0, sign * eps
            xi[member] = 0 if clock[member] == 0 else weight
        gradients.append(gradient)
    return np.array(gradients), xi


@pytest.mark.parametrize("host", [False, True], ids=["jax", "host"])
@pytest.mark.parametrize("length", [2, 4, 9])
def test_signs_that_end_apart_against_loops(host: bool, length: int) -> None:
    task = Stopping(host=host)
    es = PES(num_particles=2, truncation_length=length, sigma=0.5)
    program = es.build(task, 3)
    theta = task.initial_theta(None)
    block, seen, windows = program.init(theta, 0), [], 12
    advance = program.advance if host else jax.jit(program.advance)
    apart = 0
    for step in range(windows):
        block, report = advance(theta, block, step)
        seen.append(np.asarray(report.gradient))
        clocks = np.asarray(block.trajectories.inner_step)
        apart += int(clocks[0, 0] != clocks[0, 1])
    assert apart > 3, "the signs must end apart for the test to mean anything"
    noise = _noise(es, theta, windows)
    expected, xi = _reference(theta, noise, length)
    np.testing.assert_allclose(seen, expected, rtol=2e-4, atol=2e-4)
    kept = np.asarray(block.credit.accumulator)[0] * 0.5**2
    alive = np.asarray(block.trajectories.inner_step)[0] > 0
    signs = np.array([[1.0], [-1.0]])
    np.testing.assert_allclose(
        np.where(alive[:, None], kept * signs, 0), xi, rtol=1e-4, atol=1e-5
    )


def _noise(es: PES, theta: Any, windows: int) -> np.ndarray:
    from pes_cluster.core.perturbations import Perturbations
    from pes_cluster.estimators.evolution.fields import sigma_function

    perturbations = Perturbations(3, sigma_function(es.sigma))
    names = jnp.stack([jnp.arange(windows), jnp.zeros(windows, jnp.int32)], -1)
    z = perturbations.sample(jnp.zeros(1, jnp.int32), names[None], jnp.asarray(theta))
    return np.asarray(z)[0] * 0.5
