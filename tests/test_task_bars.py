"""What the tasks' configurations reach, against closed forms, truth and chance."""

import json
import math
import pathlib

import jax
import numpy as np
import pytest

from pes_cluster.cluster.work import Work
from pes_cluster.config import run_config
from pes_cluster.runner import Result, run

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"

ES_STAYS = ("truncated_es", 0.95, 1.05)

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]


def _run(
    name: str, run_dir: pathlib.Path, *overrides: str
) -> tuple[run_config.RunConfig, Result]:
    config = run_config.load(CONFIGS / name, ["cluster.pool=local", *overrides])
    result = run(config, run_dir)
    assert result.status == "finished", result.error
    return config, result


def _episodes(config: run_config.RunConfig, theta: object, count: int) -> np.ndarray:
    """Full-unroll losses on keys that the run did not use."""
    evaluate = Work(config.task, config.method, config.run.seed).evaluation()
    assert evaluate is not None
    unused = np.int32(10**6)
    return np.array([float(evaluate(theta, unused, np.int32(i))) for i in range(count)])


@pytest.mark.parametrize("initial", [5, -1])
def test_pes_finds_the_penalty_of_the_closed_form(
    initial: int, tmp_path: pathlib.Path
) -> None:
    """With N = 100 and a third of the published rate, whose noise alone is 0.2."""
    config, result = _run(
        "ridge_regression/pes.yaml",
        tmp_path,
        *(f"task.initial={initial}", "estimator.num_particles=100"),
        "outer.optimizer.learning_rate=1e-3",
    )
    task, grid = config.task, np.linspace(-5, 6, 1101)
    losses = [float(task.evaluate(x, jax.random.key(0))) for x in np.float32(grid)]
    best = grid[np.argmin(losses)]
    print(f"ridge_regression pes from {initial}: {result.theta:.3f}, best {best:.2f}")
    assert result.theta == pytest.approx(best, abs=0.05)


def test_truncated_es_finds_another_penalty(tmp_path: pathlib.Path) -> None:
    _, result = _run("ridge_regression/truncated_es.yaml", tmp_path)
    print(f"ridge_regression truncated_es: {result.theta:.3f}")
    assert result.theta == pytest.approx(1.14, abs=0.1)


def test_nres_comes_near_the_parameters_of_the_lorenz_system(
    tmp_path: pathlib.Path,
) -> None:
    config, result = _run("lorenz/nres.yaml", tmp_path)
    first = _episodes(config, config.task.initial_theta(jax.random.key(0)), 1)[0]
    before = np.abs(np.subtract(config.task.initial, np.log([10, 28])))
    after = np.abs(result.theta - np.log([10, 28]))
    print(f"lorenz nres: theta {result.theta}, loss {result.eval_loss} from {first}")
    assert result.eval_loss < 0.25 * first
    assert (after < 0.5 * before).all()


def test_a_learned_optimizer_learns_to_train_on_digits(tmp_path: pathlib.Path) -> None:
    """It starts at chance, and ends far below."""
    config, result = _run(
        "learned_optimizer/pes.yaml",
        tmp_path,
        *("task.dataset=digits", "task.image_size=null"),
        *("run.outer_steps=300", "run.eval_every=0"),
    )
    start = config.task.initial_theta(jax.random.key(0))
    length = config.task.episode_length
    before, after = (_episodes(config, x, 10) / length for x in (start, result.theta))
    print(f"learned_optimizer pes: {before.mean():.3f} to {after.mean():.3f}")
    assert before.mean() > 0.95 * math.log(10)
    assert after.mean() < 0.8 * math.log(10)


@pytest.mark.data
@pytest.mark.parametrize(("estimator", "low", "high"), [("pes", 0, 0.6), ES_STAYS])
def test_29_hyperparameters_of_a_network_that_learns_late(
    estimator: str,
    low: float,
    high: float,
    tmp_path: pathlib.Path,
    data_dir: pathlib.Path,
) -> None:
    """From a start at chance: the loss falls only beyond a window's ten steps."""
    place = f"task.data_dir={json.dumps(str(data_dir))}"
    config, result = _run(f"fashion_mnist/{estimator}.yaml", tmp_path, place)
    losses = _episodes(config, result.theta, 10)
    chance = config.task.episode_length * math.log(10)
    print(f"fashion_mnist {estimator}: {losses.mean():.1f}, chance {chance:.1f}")
    assert low < losses.mean() / chance < high
