"""What the commands do when they are used rightly."""

import errno
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import tomllib
from typing import Any

import pytest

import pes_cluster
from pes_cluster import job_commands, plots, runner
from pes_cluster.cli import main
from pes_cluster.config.run_config import load
from pes_cluster.metrics import jsonl
from pes_cluster.metrics.history import History
from pes_cluster.metrics.record import StepRecord
from tests.report.reading import Reader

ROOT = pathlib.Path(__file__).parents[2]
TOY = str(ROOT / "configs" / "toy_regression" / "pes.yaml")
NANO = [
    TOY,
    "estimator.num_particles=4",
    "cluster.fuse=1",
    "run.eval_every=2",
    "checkpoint.every=4",
]


@pytest.fixture(autouse=True)
def _here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _result(run_dir: str) -> dict[str, Any]:
    return json.loads((pathlib.Path(run_dir) / "result.json").read_text())


def _steps(run_dir: str) -> list[int]:
    records = jsonl.read(pathlib.Path(run_dir) / "metrics.jsonl")
    return [record["outer_step"] for record in records]


def test_run_then_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *NANO, "run.outer_steps=6", "--run-dir", "a"]) == 0
    out = capsys.readouterr().out
    assert "step 6/6" in out
    assert out.splitlines()[-1] == "results: a  chart: a/plots/loss.png"
    result = _result("a")
    assert result["status"] == "finished"
    assert result["outer_steps"] == 6
    assert result["inner_steps"] == 6 * 4 * 10
    assert _steps("a") == [1, 2, 3, 4, 5, 6]
    assert list(result["theta"]) == ["theta"]  # A bare array has no path of its own.
    before = pathlib.Path("a/result.json").read_bytes()
    assert main(["run", *NANO, "run.outer_steps=6", "--run-dir", "a"]) == 0
    assert "the run is finished" in capsys.readouterr().out
    assert pathlib.Path("a/result.json").read_bytes() == before
    assert _steps("a") == [1, 2, 3, 4, 5, 6]


def test_a_longer_run_continues_to_the_same_bits() -> None:
    assert main(["run", *NANO, "run.outer_steps=9", "--run-dir", "whole"]) == 0
    assert main(["run", *NANO, "run.outer_steps=5", "--run-dir", "parts"]) == 0
    more = ["run.outer_steps=9", "cluster.shards=2", "--run-dir", "parts"]
    assert main(["run", *NANO, *more]) == 0
    assert _result("parts")["theta_sha256"] == _result("whole")["theta_sha256"]
    assert _steps("parts") == list(range(1, 10))


def test_without_a_run_dir_it_makes_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *NANO, "run.outer_steps=1"]) == 0
    (run_dir,) = pathlib.Path("runs").iterdir()
    assert run_dir.name.startswith("toy_regression-pes-")
    assert str(run_dir) in capsys.readouterr().out


def test_killed_and_resumed_to_the_same_bits() -> None:
    """SIGKILL between checkpoints, in a process of its own."""
    _interrupted(signal.SIGKILL)
    assert not pathlib.Path("a/result.json").exists()
    assert main(["resume", "a"]) == 0
    assert _steps("a") == list(range(1, 3001))
    assert main(["run", *_LONG, "--run-dir", "whole"]) == 0
    assert _result("a")["theta_sha256"] == _result("whole")["theta_sha256"]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)]
)
def test_a_signal_stops_with_a_checkpoint(number: signal.Signals, status: int) -> None:
    assert _interrupted(number) == status
    result = _result("a")
    done = result["outer_steps"]
    assert result["status"] == "stopped"
    assert _steps("a")[-1] == done
    newest = sorted(pathlib.Path("a/checkpoints").iterdir())[-1]
    assert newest.name == f"step_{done:08d}"
    assert (newest / "manifest.json").is_file()


_LONG = [*NANO, "run.outer_steps=3000", "run.eval_every=0", "checkpoint.every=150"]


def _interrupted(number: signal.Signals) -> int:
    """Starts a long run, signals it after its first checkpoint, returns its status."""
    program = "import sys; from pes_cluster.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "run", *_LONG, "--run-dir", "a"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 300/"):
                process.send_signal(number)
                break
        process.stdout.read()
        return process.wait(60)


def test_plot_and_compare(capsys: pytest.CaptureFixture[str]) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        extra = [f"run.seed={seed}", "run.outer_steps=4", "--run-dir", f"all/{name}"]
        assert main(["run", *NANO, *extra]) == 0
    chart = pathlib.Path("all/a/plots/loss.png")
    chart.unlink()
    capsys.readouterr()
    assert main(["plot", "all/a"]) == 0
    assert capsys.readouterr().out == "chart: all/a/plots/loss.png\n"
    assert chart.stat().st_size > 5000
    assert main(["compare", "all/a", "all/b"]) == 0
    out = capsys.readouterr().out
    assert "finished" in out
    assert out.splitlines()[-1] == "chart: all/comparison.png"
    assert pathlib.Path("all/comparison.png").stat().st_size > 5000


def test_compare_and_report_say_the_same_and_where_it_lies(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, steps in (("a", 4), ("b", 8)):
        extra = [f"run.outer_steps={steps}", "--run-dir", f"all/{name}"]
        assert main(["run", *NANO, *extra]) == 0
    capsys.readouterr()
    assert main(["report", "all/a", "all/b/", "all/b"]) == 0
    *table, last = capsys.readouterr().out.splitlines()
    assert last == "results: all/a all/b/ all/b  report: all/report.html"
    seen = Reader(pathlib.Path("all/report.html").read_text())
    assert seen.of("h1") == ["all"] and seen.tags.count("section") == 2
    assert main(["compare", "all/a", "all/b", "--out", "chart.png"]) == 0
    *again, last = capsys.readouterr().out.splitlines()
    assert (again, last) == (table, "chart: chart.png")
    assert pathlib.Path("chart.png").read_bytes().startswith(b"\x89PNG")
    assert main(["report", "all/b"]) == 0
    assert capsys.readouterr().out.endswith("  report: all/b/report.html\n")
    # The run goes on where its report lies.
    assert main(["run", *NANO, "run.outer_steps=9", "--run-dir", "all/b"]) == 0


def test_config_show_and_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", TOY, "run.seed=3"]) == 0
    shown = capsys.readouterr().out
    pathlib.Path("copy.yaml").write_text(shown)
    assert main(["config", "show", "copy.yaml"]) == 0
    assert capsys.readouterr().out == shown
    assert "seed: 3" in shown
    assert main(["config", "list"]) == 0
    assert "estimator: ars, bptt, es_single" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["--version"], ["--help"], [], ["run", "--help"]]
)
def test_help_and_version(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 0
    assert capsys.readouterr().out


def test_a_failed_run_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    wild = ["outer.optimizer={type: sgd, learning_rate: 1e38}", "run.outer_steps=50"]
    assert main(["run", *NANO, *wild, "--run-dir", "a"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "not finite" in line
    assert _result("a")["status"] == "failed"


def test_a_run_of_another_process_is_left_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", *NANO, "run.outer_steps=1", "--run-dir", "a"]) == 0
    with open("a/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        capsys.readouterr()
        assert main(["run", *NANO, "run.outer_steps=2", "--run-dir", "a"]) == 2
    assert f"another process (process {os.getpid()} on" in capsys.readouterr().err
    assert _result("a")["outer_steps"] == 1


class FullDisk:
    """Refuses the lines of metrics while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        write = jsonl.LinesFile._write_whole

        def refusing(file: jsonl.LinesFile, line: bytes) -> None:
            if self.full and file._path.name == "metrics.jsonl":
                raise OSError(errno.ENOSPC, "No space left on device")
            write(file, line)

        monkeypatch.setattr(jsonl.LinesFile, "_write_whole", refusing)


def test_a_full_disk_for_a_while_loses_no_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = FullDisk(monkeypatch)
    config = load(TOY, [*NANO[1:], "run.outer_steps=9"])

    def fill(record: StepRecord) -> None:
        disk.full = 2 < record.outer_step < 7

    assert runner.run(config, "a", on_record=fill).status == "finished"
    assert _steps("a") == list(range(1, 10))


def test_a_disk_that_stays_full_is_one_line_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = FullDisk(monkeypatch)
    assert main(["run", *NANO, "run.outer_steps=3", "--run-dir", "a"]) == 0
    disk.full = True
    capsys.readouterr()
    assert main(["run", *NANO, "run.outer_steps=9", "--run-dir", "a"]) == 75
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "pes: a: cannot be written (No space left on device)"
    assert _steps("a") == [1, 2, 3]
    disk.full = False
    # Step 9 is saved, so no step is made again; its line and those before it are there.
    assert main(["run", *NANO, "run.outer_steps=9", "--run-dir", "a"]) == 0
    assert _steps("a") == list(range(1, 10))
    assert main(["run", *NANO, "run.outer_steps=9", "--run-dir", "whole"]) == 0
    assert _result("a")["theta_sha256"] == _result("whole")["theta_sha256"]


def test_a_chart_for_which_there_is_no_room_fails_no_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(records: object, name: str, path: pathlib.Path) -> None:
        path.parent.mkdir()
        path.write_bytes(b"half a picture")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(plots, "curves", full)
    assert main(["run", *NANO, "run.outer_steps=2", "--run-dir", "a"]) == 0
    assert _result("a")["status"] == "finished"
    assert not pathlib.Path("a/plots/loss.png").exists()
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == "results: a"


def test_what_befell_the_run_is_kept() -> None:
    assert main(["run", *NANO, "run.outer_steps=5", "--run-dir", "a"]) == 0
    assert main(["run", *NANO, "run.outer_steps=6", "--run-dir", "a"]) == 0
    lines = jsonl.read(pathlib.Path("a/events.jsonl"))
    assert [(line["event"], line["outer_step"]) for line in lines] == [
        ("started", 0),
        ("checkpoint", 4),
        ("checkpoint", 5),
        ("finished", 5),
        ("resumed", 5),
        ("checkpoint", 6),
        ("finished", 6),
    ]
    times = [line["time"] for line in lines]
    assert times == sorted(times) and abs(times[-1] - time.time()) < 60


@pytest.mark.parametrize("path", ["elsewhere", "memory://cli/run"])
def test_checkpoints_lie_where_the_configuration_says(path: str) -> None:
    there = ["run.outer_steps=5", f"checkpoint.path={path}", "--run-dir", "a"]
    assert main(["run", *NANO, *there]) == 0
    assert not pathlib.Path("a/checkpoints").exists()
    if path == "elsewhere":  # As seen from the run's directory, wherever one stands.
        assert pathlib.Path("a/elsewhere/step_00000005/manifest.json").is_file()
    assert main(["run", *NANO, *there, "run.outer_steps=6"]) == 0
    assert jsonl.read(pathlib.Path("a/events.jsonl"))[-3]["event"] == "resumed"


def test_a_run_killed_at_its_very_beginning_is_begun() -> None:
    folder = pathlib.Path("a")
    folder.mkdir()
    for name in ("lock", ".config.yaml.123"):
        (folder / name).write_text("")
    assert main(["run", *NANO, "run.outer_steps=1", "--run-dir", "a"]) == 0


@pytest.mark.ray
def test_ray_and_local_pool_end_with_the_same_bits() -> None:
    steps = "run.outer_steps=8"
    assert main(["run", *NANO, steps, "--run-dir", "local"]) == 0
    on_ray = ["cluster.pool=ray", "cluster.shards=2", "--run-dir", "ray"]
    assert main(["run", *NANO, steps, *on_ray]) == 0
    assert _result("ray")["theta_sha256"] == _result("local")["theta_sha256"]
    local, ray = (
        jsonl.read(pathlib.Path(d) / "metrics.jsonl") for d in ("local", "ray")
    )
    assert [line["loss"] for line in local] == [line["loss"] for line in ray]
    assert {line["shards"] for line in ray} == {2}


def test_the_package_loads_without_jax_and_ray() -> None:
    program = (
        "import sys, pes_cluster; "
        "assert not {'jax', 'ray', 'matplotlib'} & set(sys.modules); "
        "[getattr(pes_cluster, name) for name in pes_cluster.__all__]; "
        "assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


def test_version_is_the_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert pes_cluster.__version__ == project["version"]


def test_a_report_of_jobs_is_called_by_their_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record: dict[str, Any] = {"outer_step": 1, "inner_steps": 4, "loss": 2.0}
    told = [History(name, records=(record,)) for name in "ab"]
    monkeypatch.setenv("PES_ADDRESS", "http://127.0.0.1:1")
    monkeypatch.setattr(job_commands, "histories", lambda *_: told)
    assert main(["report", "a", "b"]) == 0
    page = pathlib.Path("a-b.report.html").read_text(encoding="utf-8")
    assert "<title>a, b" in page
