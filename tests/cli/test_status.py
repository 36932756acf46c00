"""`pes status` of a run directory: live, left by its process, and ended."""

import json
import pathlib
import signal
import time
from collections.abc import Callable

import pytest

from pes_cluster.cli import main
from pes_cluster.metrics import jsonl
from pes_cluster.standing import LEFT, Standing, of_directory
from tests.cli.test_control import SMALL, TOY, live

RUN = pathlib.Path("a")


@pytest.fixture(autouse=True)
def _here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_records_of_one_moment_measure_no_speed() -> None:
    """As a fused loop leaves them."""
    short = ["run.outer_steps=40", "run.eval_every=0", "cluster.fuse=20"]
    assert main(["run", TOY, SMALL[0], *short, "--run-dir", "a"]) == 0
    path = RUN / "metrics.jsonl"
    made = [record | {"wall_seconds": 4.0} for record in jsonl.read(path)]
    path.write_text("".join(json.dumps(record) + "\n" for record in made))
    seen = of_directory(RUN).seen
    assert seen is not None and seen.steps_per_second == pytest.approx(10.0)


def _row(capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert main(["status", "./a"]) == 0
    return capsys.readouterr().out.splitlines()[2].split()


def test_a_live_run_is_told_from_one_that_its_process_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with live("run.eval_every=1", "checkpoint.every=5") as process:
        _until(lambda now: bool(now.seen and now.seen.checkpoint_time))
        first = of_directory(RUN)
        _until(lambda now: _step(now) > _step(first))
        assert _row(capsys)[:2] == ["a", "running"]
        process.send_signal(signal.SIGKILL)
    left = of_directory(RUN)
    last = jsonl.read(RUN / "metrics.jsonl")[-1]
    seen = left.seen
    assert first.live and seen is not None
    assert (left.phase, left.live, seen.outer_step) == (LEFT, False, last["outer_step"])
    assert (seen.loss, seen.eval_loss) == (last["loss"], last["eval_loss"])
    assert (seen.particles, seen.shards, seen.shards_target) == (4, 1, 1)
    assert seen.steps_per_second and seen.steps_per_second > 0
    assert main(["status", "./a"]) == 0
    assert "a: no process is running it; pes resume a" in capsys.readouterr().out


def test_an_ended_run_is_shown_as_it_ended(capsys: pytest.CaptureFixture[str]) -> None:
    short = ["run.outer_steps=3", "run.eval_every=2"]
    assert main(["run", TOY, *SMALL[:1], SMALL[2], *short, "--run-dir", "a"]) == 0
    capsys.readouterr()
    shown = _row(capsys)
    result = json.loads((RUN / "result.json").read_text())
    assert shown[:3] == ["a", "finished", "3/3"]
    assert float(shown[4]) == pytest.approx(result["eval_loss"], rel=1e-4)
    assert main(["status", "--watch", "./a"]) == 0  # It is over: no waiting.
    assert capsys.readouterr().out.startswith("a: finished  step 3/3")


def test_a_directory_without_a_run_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    RUN.mkdir()
    assert main(["status", "./a"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("pes: a: holds no run")


def _until(holds: Callable[[Standing], bool]) -> None:
    end = time.monotonic() + 60
    while not holds(of_directory(RUN)):
        assert time.monotonic() < end
        time.sleep(0.05)


def _step(standing: Standing) -> int:
    assert standing.seen is not None
    return standing.seen.outer_step
