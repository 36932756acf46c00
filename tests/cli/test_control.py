"""`pes scale` and `pes stop` on a live run, and where there is none."""

import contextlib
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pes_cluster import runner
from pes_cluster.cli import main
from pes_cluster.config.run_config import load
from pes_cluster.metrics import jsonl

ROOT = pathlib.Path(__file__).parents[2]
TOY = str(ROOT / "configs" / "toy_regression" / "pes.yaml")
SMALL = ["estimator.num_particles=4", "run.eval_every=0", "cluster.fuse=1"]


@pytest.fixture(autouse=True)
def _here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@contextlib.contextmanager
def live(*more: str) -> Iterator["subprocess.Popen[str]"]:
    """A long run that has made its first steps."""
    command = [sys.executable, "-m", "pes_cluster", "run", TOY]
    command += [*SMALL, "run.outer_steps=10000000", *more, "--run-dir", "a"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step "):
                break
        try:
            yield process
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with a run that has ended."""
    folder = tmp_path_factory.mktemp("ended")
    short = ["cluster.fuse=1", "run.outer_steps=1", "run.eval_every=0"]
    assert main(["run", TOY, *short, "--run-dir", str(folder / "a")]) == 0
    return folder


def _events() -> list[dict[str, object]]:
    lines = pathlib.Path("a/events.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_stop_ends_a_live_run_with_a_checkpoint(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with live() as process:
        assert main(["stop", "a"]) == 0
        process.communicate(timeout=60)
        assert process.returncode == 130
    out = capsys.readouterr().out
    result = json.loads(pathlib.Path("a/result.json").read_text())
    assert result["status"] == "stopped"
    assert out == f"stopped after outer step {result['outer_steps']}\n"
    last = pathlib.Path(f"a/checkpoints/step_{result['outer_steps']:08d}")
    assert (last / "manifest.json").is_file()
    assert list(pathlib.Path("a/control").iterdir()) == []


def test_a_live_run_is_scaled_and_goes_on_so_when_it_is_resumed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with live() as process:
        assert main(["scale", "a", "--particles", "3"]) == 1
        assert main(["scale", "a", "--particles", "8", "--shards", "2"]) == 0
        assert main(["scale", "a", "--shards", "1"]) == 0
        assert process.poll() is None
        assert main(["stop", "a"]) == 0
        process.communicate(timeout=60)
    said = capsys.readouterr()
    (refused,) = said.err.splitlines()
    assert refused.startswith("pes: ") and "even" in refused
    first, second, _ = said.out.splitlines()
    assert first.startswith("scaled to particles 8, shards 2 after outer step ")
    assert second.startswith("scaled to shards 1 after outer step ")
    done = int(first.split()[-1])
    records = jsonl.read(pathlib.Path("a/metrics.jsonl"))
    assert {line["particles"] for line in records[:done]} == {4}
    assert {line["particles"] for line in records[done:]} == {8}
    steps = [event["outer_step"] for event in _events() if event["event"] == "scaled"]
    assert steps[0] == done and len(steps) == 2
    config = load(TOY, [*SMALL, f"run.outer_steps={len(records) + 2}"])
    assert runner.run(config, "a").status == "finished"
    assert jsonl.read(pathlib.Path("a/metrics.jsonl"))[-1]["particles"] == 8


def test_what_is_refused_is_said_and_the_run_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with live("cluster.fuse=10") as process:
        assert main(["scale", "a", "--shards", "2"]) == 1
        assert process.poll() is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pes: ") and "cluster.fuse" in line
    (refused,) = [event for event in _events() if event["event"] == "refused"]
    assert refused["command"] == "scale to shards 2"


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["scale", "a"], "neither particles nor shards"),
        (["scale", "a", "--particles", "0"], "particles: 0"),
        (["scale", "a", "--shards", "-1"], "shards: -1"),
        (["scale", "a", "--particles", "many"], "--particles"),
        (["scale", "nowhere", "--shards", "2"], "nowhere: holds no run"),
        (["scale", "a", "--shards", "2", "--wait", "0.1"], "no process is running"),
        (["stop", "a", "--wait", "0"], "a: no process is running it now"),
    ],
)
def test_wrong_uses(
    arguments: list[str],
    words: str,
    ended: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ended)
    assert main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("pes: ") and words in line
    left = pathlib.Path("a/control")
    assert not left.exists() or list(left.iterdir()) == []
