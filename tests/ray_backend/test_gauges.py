"""A run's gauges, as a monitoring system reads them from the node that it runs on."""

import pathlib
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
import ray

from pes_cluster import runner
from pes_cluster.cluster.control import ControlFolder, Stop
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.telemetry import GAUGES, PREFIX
from pes_cluster.config.run_config import load
from pes_cluster.metrics.record import StepRecord
from pes_cluster.ray_backend.gauges import Gauges

pytestmark = [pytest.mark.ray, pytest.mark.slow]
TOY = pathlib.Path(__file__).parents[2] / "configs" / "toy_regression" / "pes.yaml"
STEP = StepRecord(
    outer_step=4,
    inner_steps=40,
    wall_seconds=2.0,
    loss=3.25,
    eval_loss=7.0,
    gradient_norm=1.5,
    particles=8,
    extra={"shards": 3, "shards_target": 4, "recovered": 2, "replayed": 9},
)


def scraped(run: str) -> dict[str, float]:
    """The gauges of a run on this Ray's only node, by name without its prefixes."""
    (node,) = ray.nodes()
    where = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(where, timeout=10) as answer:
        text = answer.read().decode()
    line = re.compile(rf'ray_{PREFIX}(\w+){{[^}}]*run="{run}"[^}}]*}} (\S+)')
    return {found[1]: float(found[2]) for found in line.finditer(text)}


def eventually(look: Callable[[], Any]) -> Any:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            if found := look():
                return found
        except urllib.error.URLError:
            pass  # The port opens a little later than Ray begins.
        time.sleep(0.5)
    raise AssertionError("never")


def test_the_node_shows_all_gauges_with_their_values() -> None:
    gauges = Gauges("a.b-c_1", outer_steps=100, staleness=1)
    try:
        gauges.on_record(STEP)
        gauges.on_event(Event("checkpoint", 4, {"seconds": 0.5}))
        seen = eventually(lambda: "loss" in (now := scraped("a.b-c_1")) and now)
        age = seen.pop("checkpoint_age_seconds")
        assert 0 <= age < 60
        assert seen == {
            "outer_step": 4,
            "outer_steps": 100,
            "inner_steps": 40,
            "loss": 3.25,
            "eval_loss": 7,
            "gradient_norm": 1.5,
            "particles": 8,
            "shards": 3,
            "shards_target": 4,
            "recovered": 2,
            "replayed_steps": 9,
            "diverged_pairs": 0,
            "nonfinite_losses": 0,
            "checkpoint_seconds": 0.5,
            "checkpoint_failures": 0,
            "staleness": 1,
        }
        # Ray forgets what is not set anew: a run that is silent is still there later.
        older = eventually(
            lambda: (
                (now := scraped("a.b-c_1"))["checkpoint_age_seconds"] > age + 25 and now
            )
        )
        assert older["outer_step"] == 4
    finally:
        gauges.close()


def test_a_run_shows_its_gauges_while_it_goes_on(tmp_path: pathlib.Path) -> None:
    wanted = ["run.outer_steps=1000000", "cluster.fuse=1", "cluster.pool=ray"]
    config = load(TOY, [*wanted, "cluster.shards=2", "run.eval_every=0"])
    steps: list[StepRecord] = []
    found: list[dict[str, float]] = []
    folder = tmp_path / "seen"

    def look() -> None:
        try:
            found.append(
                eventually(lambda: "outer_step" in (now := scraped("seen")) and now)
            )
        finally:
            ControlFolder(folder / "control").ask(Stop())

    looking = threading.Thread(target=look)
    looking.start()
    result = runner.run(config, folder, on_record=steps.append)
    looking.join()
    assert result.status == "stopped"
    (seen,) = found
    assert (seen["particles"], seen["shards"], seen["shards_target"]) == (100, 2, 2)
    assert seen["outer_steps"] == 1000000 and seen["step_seconds"] > 0
    shown = steps[int(seen["outer_step"]) - 1]
    assert seen["loss"] == pytest.approx(shown.loss)
    assert seen["accumulator_norm"] == pytest.approx(shown.extra["accumulator_norm"])
    learned = {gauge.name for gauge in GAUGES} - set(seen)
    assert learned <= {"eval_loss", "checkpoint_seconds"}
