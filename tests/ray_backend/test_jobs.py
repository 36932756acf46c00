"""Jobs on a Ray of this machine; first, what a client decides without one."""

import json
import logging
import os
import pathlib
import subprocess
import sys
import threading
import time
import zipfile

import pytest
from ray._private.runtime_env.packaging import create_package

from pes_cluster.cluster.settings import ClusterSettings, PerShard
from pes_cluster.ray_backend import endpoint, jobs, service
from tests.cli.board import Board

ROOT = pathlib.Path(__file__).parents[2]
TOY = ROOT / "configs" / "toy_regression"
LONG = ["run.outer_steps=10000000", "run.eval_every=0", "cluster.fuse=1"]
PATIENCE = 90.0


def test_only_the_marked_lines_of_a_log_are_for_us() -> None:
    log = 'INFO noise\npes-cluster: {"a": 1}\nsays pes-cluster: no\npes-cluster: 2'
    assert jobs.marked(log) == ['{"a": 1}', "2"]


def test_another_ray_is_refused_and_another_patch_of_it_is_not() -> None:
    assert endpoint.other_version("2.60.0", "2.60.3") is None
    line = endpoint.other_version("2.60.0", "2.59.0")
    assert line is not None and "2.59.0" in line and "2.60.0" in line


def test_a_driver_goes_to_the_nodes_for_drivers() -> None:
    there = {"CPU": 6.0, "driver": 64.0}
    placed = jobs.placement(ClusterSettings(), there)
    assert placed == {"entrypoint_resources": {"driver": 1}}
    assert jobs.placement(ClusterSettings(), {"CPU": 6.0}) == {}


def test_a_driver_that_computes_itself_takes_the_room_of_a_shard() -> None:
    local = ClusterSettings(pool="local", per_shard=PerShard(2.0, 1.0))
    placed = jobs.placement(local, {})
    assert placed == {"entrypoint_num_cpus": 2.0, "entrypoint_num_gpus": 1.0}


def test_the_token_does_not_travel_with_the_job(tmp_path: pathlib.Path) -> None:
    folder, outside = tmp_path / "work", tmp_path / "outside"
    for name in ("keys/token", "my [to]ken!", "task.py", "other/token"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    outside.write_text("x")
    (folder / "link").symlink_to(outside)
    everything = {"keys/token", "my [to]ken!", "task.py", "other/token", "link"}

    def stays(token_file: pathlib.Path) -> set[str]:
        package = tmp_path / "package.zip"
        package.unlink(missing_ok=True)
        names = jobs.excluded(folder, token_file)
        create_package(str(folder), package, include_gitignore=True, excludes=names)
        with zipfile.ZipFile(package) as zipped:
            return everything - set(zipped.namelist())

    assert stays(tmp_path / "elsewhere") == set()
    for name in ("keys/token", "my [to]ken!", "link"):
        assert stays(folder / name) == {name}


def test_what_ray_leaves_out_of_a_working_directory_is_not_told() -> None:
    loud = logging.getLogger("ray._private.runtime_env.working_dir")
    loud.setLevel(logging.NOTSET)
    with Board(str(TOY / "pes.yaml")) as board:
        thread = threading.Thread(target=board.serve_forever)
        thread.start()
        jobs.Jobs(endpoint.Endpoint(board.address))
        board.shutdown()
        thread.join()
    assert not loud.isEnabledFor(logging.WARNING) and loud.isEnabledFor(logging.ERROR)


def test_a_log_without_our_package_is_told_what_to_do() -> None:
    line = jobs.advice("/usr/bin/python: No module named pes_cluster\n")
    assert line is not None and "install it on every node" in line
    assert jobs.advice("ModuleNotFoundError: No module named 'my_tasks'") is None


class Client:
    """A process of a user elsewhere, who has the address and the token alone."""

    def __init__(self, folder: pathlib.Path, address: str, token: str) -> None:
        self.folder = folder
        folder.mkdir()
        self.write("the_token", token)
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("RAY", "PES"))}
        path = {"PYTHONPATH": str(ROOT), "PES_HOME": str(folder / "home")}
        self._env = kept | path | {"PES_ADDRESS": address}

    def write(self, name: str, token: str) -> None:
        """Keeps a token as it should be kept."""
        (self.folder / name).touch(mode=0o600)
        (self.folder / name).write_text(token)

    def pes(self, *arguments: object, token: str = "the_token") -> tuple[int, str]:
        """Runs a command; its status, and what it printed."""
        words = [str(word) for word in arguments]
        done = subprocess.run(
            [sys.executable, "-m", "pes_cluster", *words],
            cwd=self.folder,
            env=self._env | ({"RAY_AUTH_TOKEN_PATH": token} if token else {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert "Traceback" not in done.stdout
        return done.returncode, done.stdout

    def until(self, words: str, *arguments: str) -> str:
        """Asks until it is told these words."""
        end, said = time.monotonic() + PATIENCE, ""
        while time.monotonic() < end:
            said = self.pes(*arguments)[1]
            if words in said:
                return said
            time.sleep(0.5)
        raise AssertionError(f"{words!r} is not in {said!r}")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_jobs_are_submitted_scaled_stopped_resumed_and_compared(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PES_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    started = service.up(runs=tmp_path / "runs")
    try:
        token = pathlib.Path(started.token_file).read_text()
        client = Client(tmp_path / "client", started.address, token)
        _slice(client, tmp_path / "runs")
    finally:
        service.down()
    events = (tmp_path / "runs" / "g.toy_regression-pes" / "events.jsonl").read_text()
    kinds = [json.loads(line)["event"] for line in events.splitlines()]
    assert kinds[0] == "started" and kinds[-2:] == ["checkpoint", "stopped"]
    assert kinds.count("resumed") == 1 and kinds.count("scaled") == 1


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_job_of_several_hosts_keeps_its_working_directory(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PES_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    started = service.up(hosts=3, runs=tmp_path / "runs")
    try:
        token = pathlib.Path(started.token_file).read_text()
        client = Client(tmp_path / "client", started.address, token)
        words = ["run.outer_steps=20", "run.eval_every=0", "--name", "several"]
        words += ["cluster={pool: ray, shards: 2}", "--wait"]
        code, said = client.pes("submit", TOY / "pes.yaml", *words)
        log = client.pes("logs", "several")[1]
        table = client.pes("compare", "several")[1]
    finally:
        service.down()
    assert (code, said.splitlines()[-1]) == (0, "several: finished"), log
    assert "step 20/20" in log and "restart" not in log
    assert table.splitlines()[2].split()[:2] == ["several", "finished"], table


def _slice(client: Client, runs: pathlib.Path) -> None:
    pes, short = "g.toy_regression-pes", "g.toy_regression-tbptt"
    client.write("wrong", "wrong")
    assert client.pes("list", token="")[0] == 1
    assert "asks for a token" in client.pes("submit", TOY / "pes.yaml", token="")[1]
    assert "refuses this token" in client.pes("list", token="wrong")[1]

    code, said = client.pes("submit", TOY / "pes.yaml", *LONG, "--group", "g")
    assert (code, said) == (0, f"{pes}: submitted\n")
    assert client.pes("submit", TOY / "pes.yaml", *LONG, "--group", "g")[0] == 1
    brief = ["run.outer_steps=20", "cluster.fuse=1"]
    assert client.pes("submit", TOY / "tbptt.yaml", *brief, "--group", "g")[0] == 0
    client.until(" steps/s", "logs", pes)

    code, said = client.pes("scale", pes, "--particles", "401")
    assert code == 1 and "even" in said
    code, said = client.pes("scale", pes, "--particles", "400")
    assert code == 0 and said.startswith(f"{pes}: scaled to particles 400 after")
    client.until("/10000000", "status", pes)

    assert client.pes("stop", pes)[1].startswith(f"{pes}: stopped")
    result = json.loads((runs / pes / "result.json").read_text())
    assert result["status"] == "stopped"
    assert "is not running (stopped)" in client.pes("scale", pes, "--shards", "1")[1]
    assert client.pes("resume", pes) == (0, f"{pes}: goes on, attempt 2\n")
    client.until("400", "status", pes)

    code, said = client.pes("logs", "--follow", short)
    assert code == 0 and "step 20/20" in said
    code, said = client.pes("compare", "g")
    rows = {line.split()[0]: line.split() for line in said.splitlines()[2:]}
    assert rows[short][1] == "finished" and rows[short][4] == "20"
    assert rows[pes][1] == "running" and float(rows[pes][3]) > 0
    assert said.splitlines()[-1] == "chart: g.comparison.png"
    _report(client, pes, short)


def _report(client: Client, live: str, ended: str) -> None:
    """What runs tells its history, what has ended has left it, out of sight."""
    code, said = client.pes("report", "g")
    assert code == 0 and said.splitlines()[-1] == "results: g  report: g.report.html"
    page = (client.folder / "g.report.html").read_text()
    assert page.count("<section") == 2 and live in page and ended in page
    # Both sittings of the one that was resumed.
    assert "resumed" in page and "scaled" in page
    code, said = client.pes("report", ended, "--out", "one.html")
    assert code == 0 and "20" in said
    assert "pes-history" not in client.pes("logs", ended)[1]
    code, said = client.pes("report", "nobody")
    assert code == 1 and "no such job or group; jobs there" in said
