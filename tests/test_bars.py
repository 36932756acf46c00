"""The published experiments, whole, from their files in `configs/`."""

import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest

from pes_cluster.cluster.work import Work
from pes_cluster.config import run_config
from pes_cluster.metrics import jsonl
from pes_cluster.runner import Result, run

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"

# The longest, MNIST, takes 8 to 9 minutes of one core for each of its two runs.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def _run(
    name: str, run_dir: pathlib.Path, *overrides: str
) -> tuple[run_config.RunConfig, Result]:
    config = run_config.load(CONFIGS / name, overrides)
    result = run(config, run_dir)
    assert result.status == "finished", result.error
    return config, result


@pytest.mark.parametrize(
    ("estimator", "low", "high"),
    [
        ("pes", 555, 575),
        ("es_single", 555, 575),
        ("tbptt", 2420, 2426),
        ("rtrl", 2420, 2426),
        ("uoro", 1500, 2600),
        ("truncated_es", 1200, 1900),
    ],
)
def test_toy_regression(
    estimator: str, low: float, high: float, tmp_path: pathlib.Path
) -> None:
    """Medians over the last tenth of 20,000 steps, as measured independently."""
    _, result = _run(f"toy_regression/{estimator}.yaml", tmp_path)
    assert result.outer_steps == 20000
    late = [
        line["eval_loss"]
        for line in jsonl.read(tmp_path / "metrics.jsonl")
        if line["outer_step"] > 18000 and "eval_loss" in line
    ]
    assert len(late) == 200
    median = statistics.median(late)
    print(f"toy_regression {estimator}: median {median:.1f}")
    assert low <= median <= high


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_influence_balancing_by_pes(seed: int, tmp_path: pathlib.Path) -> None:
    _, result = _run("influence_balancing/pes.yaml", tmp_path, f"run.seed={seed}")
    print(f"influence_balancing pes seed {seed}: {result.eval_loss:.2g}")
    assert result.outer_steps == 3000
    assert result.eval_loss is not None
    assert result.eval_loss < 1e-8


def test_influence_balancing_by_rtrl(tmp_path: pathlib.Path) -> None:
    _, result = _run("influence_balancing/rtrl.yaml", tmp_path)
    print(f"influence_balancing rtrl: {result.eval_loss:.2g}")
    assert result.eval_loss is not None
    assert result.eval_loss < 1e-9
    assert float(result.theta) == pytest.approx(-1 / 6, abs=1e-4)


def test_influence_balancing_breaks_truncation(tmp_path: pathlib.Path) -> None:
    losses = {}
    for name in ("tbptt_10", "tbptt_1", "truncated_es"):
        _, result = _run(f"influence_balancing/{name}.yaml", tmp_path / name)
        assert result.eval_loss is not None
        losses[name] = result.eval_loss
    print(f"influence_balancing: {losses}")
    assert losses["tbptt_10"] > 1e12
    assert losses["tbptt_1"] > 100
    assert losses["truncated_es"] == pytest.approx(losses["tbptt_1"], rel=0.02)


def test_mnist_schedule_separates_pes_from_truncated_es(
    tmp_path: pathlib.Path, data_dir: pathlib.Path
) -> None:
    """PES anneals less and ends lower, by more than three standard errors."""
    losses, decays = {}, {}
    for name in ("pes", "truncated_es"):
        config, result = _run(
            f"mnist/{name}.yaml", tmp_path / name, f"task.data_dir={data_dir}"
        )
        losses[name] = _episodes(config, result, 10)
        decays[name] = float(result.theta["log_decay"]) / np.log(10)
    means = {name: np.mean(values) for name, values in losses.items()}
    errors = {n: np.std(v, ddof=1) / np.sqrt(len(v)) for n, v in losses.items()}
    print(f"mnist schedule: F {means} +- {errors}, log10 decay {decays}")
    gap = means["truncated_es"] - means["pes"]
    assert gap > 3 * np.hypot(errors["pes"], errors["truncated_es"])
    assert decays["pes"] < decays["truncated_es"] - 0.3


def _episodes(config: run_config.RunConfig, result: Result, count: int) -> np.ndarray:
    """Full-unroll losses of the final theta on keys that the run did not use."""
    evaluate = Work(config.task, config.method, config.run.seed).evaluation()
    assert evaluate is not None
    unused = result.outer_steps + 1
    indices = range(count)
    return np.array(
        [float(evaluate(result.theta, np.int32(unused), np.int32(i))) for i in indices]
    )


@pytest.mark.ray
@pytest.mark.parametrize("name", ["toy_regression/pes.yaml", "digits/pes.yaml"])
def test_the_result_does_not_depend_on_the_shards(
    name: str, tmp_path: pathlib.Path
) -> None:
    """200 steps on 1, 2 and 4 Ray shards and in process: one hash."""
    common = ("run.outer_steps=200", "run.eval_every=0", "cluster.fuse=1")
    hashes = {}
    for pool, shards in (("local", 1), ("ray", 1), ("ray", 2), ("ray", 4)):
        where = (f"cluster.pool={pool}", f"cluster.shards={shards}")
        folder = tmp_path / f"{pool}_{shards}"
        _, result = _run(name, folder, *common, *where)
        hashes[f"{pool} x {shards}"] = result.theta_sha256
    print(hashes)
    assert len(set(hashes.values())) == 1, hashes


@pytest.mark.ray
def test_a_killed_mlp_run_resumes_on_other_shards_to_the_same_bits(
    tmp_path: pathlib.Path,
) -> None:
    """N = 100, so that blocks are padded; SIGKILL between, then 3 or 4 shards."""
    size = (
        "estimator.num_particles=100",
        "task.episode_length=100",
        "run.eval_every=0",
    )
    common = (*size, "run.outer_steps=60", "checkpoint.every=20")
    _, calm = _run("digits/pes.yaml", tmp_path / "calm", *common, "cluster.pool=local")
    folder = tmp_path / "killed"
    overrides = (*common, "cluster.pool=ray", "cluster.shards=1")
    _kill_after(folder, 20, overrides)
    for shards in (3, 4):
        resumed = tmp_path / f"resumed_{shards}"
        shutil.copytree(folder, resumed)
        where = ("cluster.pool=ray", f"cluster.shards={shards}")
        _, result = _run("digits/pes.yaml", resumed, *common, *where)
        assert result.theta_sha256 == calm.theta_sha256
        lines = jsonl.read(resumed / "metrics.jsonl")
        assert [line["outer_step"] for line in lines] == list(range(1, 61))


def _kill_after(folder: pathlib.Path, step: int, overrides: tuple[str, ...]) -> None:
    """Runs in a process group of its own; kills it all once a checkpoint stands."""
    program = "import sys; from pes_cluster.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "run", str(CONFIGS / "digits/pes.yaml")]
    child = subprocess.Popen(
        [*command, *overrides, "--run-dir", str(folder)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    manifest = folder / "checkpoints" / f"step_{step:08d}" / "manifest.json"
    try:
        deadline = time.monotonic() + 120
        while not manifest.exists() and time.monotonic() < deadline:
            assert child.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        assert manifest.exists()
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
