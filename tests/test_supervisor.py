"""The supervisor: what it decides, and that it does so with real processes."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from pes_cluster import supervisor
from pes_cluster.supervisor import Exit, Restart, Spent, Stop, after_exit

KILLED = Exit(-9)
RAISED = Exit(1)


@pytest.mark.parametrize(
    "ended, spent, expected",
    [
        (Exit(0), Spent(), Stop(0)),
        # Wrong use, a failure that would come again, a stop: over at once.
        (Exit(2), Spent(), Stop(2)),
        (Exit(1, explained=True), Spent(), Stop(1)),
        (Exit(1, explained=True, progressed=True), Spent(), Stop(1)),
        (Exit(143), Spent(), Stop(143)),
        (Exit(130), Spent(), Stop(130)),
        (Exit(-15, asked=True), Spent(), Stop(143)),
        (Exit(75, asked=True), Spent(), Stop(75)),
        # Killed, or failed where it ran: again, at first at once.
        (KILLED, Spent(), Restart(0, Spent(1, accepted=True))),
        (Exit(75), Spent(), Restart(0, Spent(1, accepted=True))),
        (KILLED, Spent(1), Restart(1, Spent(2, accepted=True))),
        (KILLED, Spent(2), Restart(2, Spent(3, accepted=True))),
        (KILLED, Spent(9), Restart(60, Spent(10, accepted=True))),
        (KILLED, Spent(10), Stop(137)),
        (Exit(75), Spent(10), Stop(75)),
        # A newer checkpoint refills the budget.
        (Exit(-9, progressed=True), Spent(10, 1), Restart(0, Spent(1, 0, True))),
        # The same arguments were accepted before: now something else is wrong.
        (Exit(2), Spent(1, accepted=True), Restart(1, Spent(2, accepted=True))),
        # Nobody said why: once more, but not twice from one checkpoint.
        (RAISED, Spent(), Restart(0, Spent(1, 1, True))),
        (RAISED, Spent(1, 1), Stop(1)),
        (Exit(1, progressed=True), Spent(1, 1), Restart(0, Spent(1, 1, True))),
    ],
)
def test_what_follows_an_exit(
    ended: Exit, spent: Spent, expected: Restart | Stop
) -> None:
    assert after_exit(ended, spent, restarts=10) == expected


def test_no_restart_was_allowed() -> None:
    assert after_exit(KILLED, Spent(), restarts=0) == Stop(137)


def test_any_run_of_exits_ends() -> None:
    """Whatever is not progress is paid for."""
    for ended in (KILLED, Exit(75), RAISED, Exit(3)):
        spent, rounds = Spent(), 0
        while isinstance(decision := after_exit(ended, spent, 10), Restart):
            spent, rounds = decision.spent, rounds + 1
        assert rounds == (1 if ended == RAISED else 10)


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


def supervised(
    script: str, newest: Callable[[], int | None] = lambda: None, restarts: int = 2
) -> int:
    return supervisor.supervise(shell(script), restarts, newest, lambda: False)


@pytest.fixture(autouse=True)
def _here(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LONGEST_DELAY", 0.1)


@pytest.mark.usefixtures("impatient")
def test_it_is_started_again_until_it_is_done(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = "echo x >> tries; [ $(wc -l < tries) = 3 ] || kill -9 $$"
    assert supervised(script) == 0
    assert (tmp_path / "tries").read_text().count("x") == 3
    first, second = capsys.readouterr().err.splitlines()
    assert first == "pes: the driver was killed by signal 9 (Killed); restart 1 of 2"
    assert second.endswith("restart 2 of 2 in 0.1 s")


@pytest.mark.usefixtures("impatient")
def test_the_budget_is_refilled_by_checkpoints(tmp_path: pathlib.Path) -> None:
    """Six drivers die, each after a newer checkpoint, on a budget of two."""
    tries = tmp_path / "tries"

    def newest() -> int | None:
        return len(tries.read_text()) if tries.exists() else None

    script = "printf x >> tries; [ $(wc -c < tries) = 6 ] || kill -9 $$"
    assert supervised(script, newest) == 0
    tries.unlink()
    assert supervised(script, lambda: 7) == 137
    assert tries.read_text() == "xxx"


def test_what_a_dead_driver_leaves_running_is_killed(tmp_path: pathlib.Path) -> None:
    # As Ray does: in a process group of its own.
    script = "set -m; sleep 300 & echo $! > left; kill -9 $$"
    assert supervised(script, restarts=0) == 137
    left = int((tmp_path / "left").read_text())
    deadline = time.monotonic() + 10
    while _alive(left) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(left)


def _alive(pid: int) -> bool:
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False
    return state.split()[0] != "Z"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_passed_on_and_ends_it(
    tmp_path: pathlib.Path, number: signal.Signals
) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo saved > saved; exit {128 + number}' {name}; touch up; "
    timer = threading.Thread(target=_signal_once_up, args=(tmp_path / "up", number))
    timer.start()
    handler = signal.getsignal(number)
    assert supervised(script + "while :; do sleep 0.05; done") == 128 + number
    timer.join()
    assert (tmp_path / "saved").exists()
    assert signal.getsignal(number) is handler


def _signal_once_up(up: pathlib.Path, number: signal.Signals) -> None:
    deadline = time.monotonic() + 10
    while not up.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(os.getpid(), number)


def test_a_signal_between_two_drivers_ends_it(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "LONGEST_DELAY", 30.0)
    monkeypatch.setattr(supervisor, "after_exit", lambda *_: Restart(30.0, Spent()))
    timer = threading.Thread(
        target=_signal_once_up, args=(tmp_path / "up", signal.SIGTERM)
    )
    timer.start()
    began = time.monotonic()
    assert supervised("touch up; kill -9 $$") == 143
    timer.join()
    assert time.monotonic() - began < 10


TOY = str(pathlib.Path(__file__).parents[1] / "configs" / "toy_regression" / "pes.yaml")
NANO = [
    TOY,
    "estimator.num_particles=4",
    "cluster.fuse=1",
    "run.eval_every=0",
    "run.outer_steps=3000",
    "checkpoint.every=150",
]


def _started(*more: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "pes_cluster", *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _until(process: "subprocess.Popen[str]", text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(text):
            return
    raise AssertionError(f"it ended without {text!r}")


def _driver(run_dir: pathlib.Path) -> int:
    return int((run_dir / "lock").read_text().split()[1])


def test_a_killed_driver_comes_back_and_ends_with_the_same_bits(
    tmp_path: pathlib.Path,
) -> None:
    """SIGKILL twice; then the result of a run that nobody touched."""
    run_dir = tmp_path / "a"
    with _started("supervise", *NANO, "--run-dir", "a") as process:
        for mark in ("step 450/", "step 1200/"):
            _until(process, mark)
            os.kill(_driver(run_dir), signal.SIGKILL)
        process.communicate(timeout=120)
    assert process.returncode == 0
    with _started("run", *NANO, "--run-dir", "whole") as process:
        process.communicate(timeout=120)
    results = [
        json.loads((tmp_path / name / "result.json").read_text())
        for name in ("a", "whole")
    ]
    assert results[0]["theta_sha256"] == results[1]["theta_sha256"]
    lines = (run_dir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["outer_step"] for line in lines] == list(range(1, 3001))
    events = [
        json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()
    ]
    resumed = [event for event in events if event["event"] == "resumed"]
    assert len(resumed) == 2


def test_a_signal_to_all_its_processes_at_once_is_one(tmp_path: pathlib.Path) -> None:
    """As a cluster ends a job: the supervisor passes on what the driver has heard."""
    with _started("supervise", *NANO, "--run-dir", "a") as process:
        _until(process, "step 300/")
        os.kill(_driver(tmp_path / "a"), signal.SIGTERM)
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 143
    result = json.loads((tmp_path / "a/result.json").read_text())
    assert result["status"] == "stopped"


def test_sigterm_reaches_the_driver_which_saves(tmp_path: pathlib.Path) -> None:
    with _started("supervise", *NANO, "--run-dir", "a") as process:
        _until(process, "step 300/")
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 143
    steps = [int(path.name[5:]) for path in (tmp_path / "a/checkpoints").iterdir()]
    result = json.loads((tmp_path / "a/result.json").read_text())
    assert result["status"] == "stopped" and max(steps) == result["outer_steps"]
    with pytest.raises(ProcessLookupError):
        os.kill(_driver(tmp_path / "a"), 0)


@pytest.mark.parametrize(
    "more, status", [(["run.sed=1"], 2), (["task={type: 'no_mod:T'}"], 2)]
)
def test_a_wrong_use_is_not_tried_again(more: list[str], status: int) -> None:
    with _started("supervise", *NANO, *more, "--run-dir", "a") as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == status
    assert len(out.splitlines()) == 1 and out.startswith("pes: ")


def test_divergence_is_not_tried_again() -> None:
    wild = "outer.optimizer={type: sgd, learning_rate: 1e38}"
    with _started("supervise", *NANO, wild, "--run-dir", "a") as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "restart" not in out
    assert "not finite" in out
