"""Jobs on three hosts, by a client that has an address and a token, and nothing else.

The tests are in an order: the last takes a host away.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster_test.conftest import Overseer
from tests.cluster_test.scene import WORKERS, Scene, soon
from tests.hosts.namespace import await_gone
from tests.hosts.ray_nodes import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.timeout(400)]

LONG = 10_000_000  # Outer steps of what is stopped.
ONE_EACH: dict[str, Any] = {"pool": "ray", "shards": 2, "per_shard": {"num_cpus": 4}}

MY_TASK = """
import dataclasses
import pathlib

import jax.numpy as jnp

pathlib.Path("/run/imported_my_task").touch()


@dataclasses.dataclass(frozen=True)
class Bowl:
    episode_length: int = 20

    def initial_theta(self, key):
        return jnp.ones(3)

    def init(self, theta, key):
        return jnp.zeros(3)

    def step(self, theta, state, key):
        return 0.9 * state + theta, jnp.sum((state - 1.0) ** 2)
"""


def toy(estimator: str, outer_steps: int, **cluster: Any) -> str:
    """The toy regression of the shipped configurations, for so many steps."""
    path = ROOT / "configs" / "toy_regression" / f"{estimator}.yaml"
    config = yaml.safe_load(path.read_text())
    config["run"] |= {"outer_steps": outer_steps, "eval_every": 100}
    config["cluster"] = cluster
    config["checkpoint"] = {"every": 50}
    return yaml.safe_dump(config)


def at_home(folder: Path, config: str) -> str:
    """The hash of theta after a run on this machine, without Ray."""
    (folder / "home.yaml").write_text(config)
    words = ["run", "home.yaml", "cluster.pool=local", "--run-dir", "home"]
    done = subprocess.run(
        [sys.executable, "-m", "pes_cluster", *words],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "home" / "result.json").read_text())["theta_sha256"]


def result(scene: Scene, name: str) -> dict[str, Any]:
    return json.loads((scene.runs / name / "result.json").read_text())


def events(scene: Scene, name: str) -> list[str]:
    lines = (scene.runs / name / "events.jsonl").read_text().splitlines()
    return [json.loads(line)["event"] for line in lines]


def steps(scene: Scene, name: str) -> int:
    """Outer steps that a run's metrics tell of."""
    path = scene.runs / name / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def particles(scene: Scene, name: str) -> int:
    """Those of the last outer step that is whole in the metrics."""
    lines = (scene.runs / name / "metrics.jsonl").read_text().split("\n")
    return json.loads(lines[-2])["particles"]


def test_only_the_token_opens_it(scene: Scene) -> None:
    client, jobs = scene.client, f"{scene.nodes.board}/api/jobs/"
    assert client.curl(jobs) == client.curl(jobs, "POST") == 401
    client.write("pes.yaml", toy("pes", LONG))
    client.write("wrong", "wrong")
    assert client.curl(jobs, token="wrong") == 403
    assert client.curl(jobs, token="token") == 200
    client.write("bare", scene.token, mode=0o644)
    for token, words in (
        ("", "there is no token; name a file"),
        ("wrong", "refuses this token"),
        ("bare", "others on this machine may read the token (mode 644); chmod 600"),
    ):
        code, said = client.pes("submit", "pes.yaml", token=token)
        assert code == 1 and words in said and said.count("\n") == 1
    (client.folder / "bare").unlink()
    assert "toy_regression" not in client.pes("list")[1]
    assert not (client.folder.parent / "ray").exists()  # It has no Ray of its own,
    assert not os.listdir(client.folder.parent.parent / "srv")  # and no shared disk.


def kill_driver(scene: Scene, name: str) -> None:
    """Kills a job's driver as the kernel would that needs its memory."""
    (driver,) = scene.drivers(name, host_of(scene, name))
    os.kill(driver, signal.SIGKILL)
    await_gone([driver])


def host_of(scene: Scene, name: str) -> str:
    """The worker that a job's supervisor runs on, once it does."""
    assert soon(lambda: any(scene.supervisors(name, worker) for worker in WORKERS))
    assert not scene.supervisors(name, "head")
    (host,) = [worker for worker in WORKERS if scene.supervisors(name, worker)]
    return host


def test_a_group_is_followed_scaled_killed_stopped_resumed_and_compared(
    scene: Scene, tmp_path: Path
) -> None:
    client = scene.client
    pes, es, tbptt = (f"g.toy_regression-{n}" for n in ("pes", "truncated_es", "tbptt"))
    short = toy("truncated_es", 400, pool="ray", shards=2)
    client.write("pes.yaml", toy("pes", LONG, pool="ray", shards=2))
    client.write("truncated_es.yaml", short)
    client.write("tbptt.yaml", toy("tbptt", 400, pool="local"))
    files = ("pes.yaml", "truncated_es.yaml", "tbptt.yaml")
    code, said = client.pes("submit", *files, "--group", "g")
    assert (code, said) == (0, "".join(f"{n}: submitted\n" for n in (pes, es, tbptt)))
    followed = client.start("logs", "--follow", es)
    for name in (pes, es, tbptt):
        assert host_of(scene, name) in WORKERS
    assert soon(lambda: steps(scene, es) > 100)
    kill_driver(scene, es)

    assert soon(lambda: steps(scene, pes) > 20)
    assert soon(lambda: all(scene.nodes.shards(worker) for worker in WORKERS))
    code, said = client.pes("scale", pes, "--particles", "400")
    assert code == 0 and said.startswith(f"{pes}: scaled to particles 400 after")
    assert soon(lambda: particles(scene, pes) == 400)
    (row,) = [x for x in client.pes("status", pes)[1].splitlines() if pes in x]
    assert " 400 " in row and "running" in row

    assert followed.status() == 0 and "sdk.py" not in followed.said()
    for words in ("was killed by signal 9", "restart 1 of", "step 400/400"):
        assert words in followed.said()
    assert events(scene, es).count("resumed") == 1
    assert result(scene, es)["theta_sha256"] == at_home(tmp_path, short)

    code, said = client.pes("stop", pes)
    assert code == 0 and said.startswith(f"{pes}: stopped")
    assert events(scene, pes)[-2:] == ["checkpoint", "stopped"]
    before = result(scene, pes)
    assert before["status"] == "stopped" and before["outer_steps"] > 20
    assert client.pes("resume", pes) == (0, f"{pes}: goes on, attempt 2\n")
    assert soon(lambda: steps(scene, pes) > before["outer_steps"])

    code, said = client.pes("compare", "g")
    rows = {
        line.split()[0]: line for line in said.splitlines() if line.startswith("g.")
    }
    assert code == 0 and set(rows) == {pes, es, tbptt}
    assert "running" in rows[pes] and "finished" in rows[es] + rows[tbptt]
    assert client.pes("stop", pes)[0] == 0
    assert events(scene, pes).count("resumed") == 1
    after = [json.loads(x) for x in (scene.runs / pes / "metrics.jsonl").open()]
    assert [line["outer_step"] for line in after] == list(range(1, len(after) + 1))
    assert after[0]["particles"] == 100 and after[-1]["particles"] == 400


def test_a_task_of_the_users_own_runs_on_all_hosts(scene: Scene) -> None:
    client, name = scene.client, "mine"
    client.write("my_task.py", MY_TASK)
    mine = yaml.safe_load(toy("pes", LONG, pool="ray", shards=2))
    mine["task"] = {"type": "my_task:Bowl"}
    client.write("mine.yaml", yaml.safe_dump(mine))
    assert client.pes("submit", "mine.yaml", "--name", name)[0] == 0
    assert soon(lambda: steps(scene, name) > 20), client.pes("logs", name)
    for worker in WORKERS:
        assert len(scene.nodes.shards(worker)) == 1
        assert scene.hosts[worker].path("/run/imported_my_task").exists()

    def shards() -> int:
        return sum(len(scene.nodes.shards(worker)) for worker in WORKERS)

    for count in (4, 1):
        code, said = client.pes("scale", name, "--shards", count)
        assert code == 0 and said.startswith(f"{name}: ")
        assert soon(lambda count=count: shards() == count)
    code, said = client.pes("scale", name, "--shards", "0")
    assert code != 0 and said.count("\n") == 1
    assert client.pes("stop", name)[0] == 0
    assert soon(lambda: shards() == 0)


def test_a_node_that_lacks_the_data_is_named_before_anything_is_written(
    scene: Scene,
) -> None:
    source = Path(os.environ.get("PES_DATA_DIR", "")) / "mnist"
    if not source.is_dir():
        pytest.skip("no data sets: PES_DATA_DIR names no folder")
    client, name = scene.client, "data"
    mnist = yaml.safe_load((ROOT / "configs" / "mnist" / "pes.yaml").read_text())
    mnist["task"] |= {"data_dir": "/run/data", "episode_length": 20}
    mnist["estimator"]["num_particles"] = 4
    mnist["cluster"] = ONE_EACH
    client.write("data.yaml", yaml.safe_dump(mnist))
    for worker in WORKERS:
        shutil.copytree(source, scene.hosts[worker].path("/run/kept"))
    waits = client.start("submit", "data.yaml", "--name", name, "--wait")
    # The driver's own node has them, before the driver looks.
    here = host_of(scene, name)
    scene.hosts[here].run("mv", "/run/kept", "/run/data")
    assert waits.status() == 2
    (other,) = set(WORKERS) - {here}
    node = f"node {other} ({scene.hosts[other].ip})"
    last = waits.said().splitlines()[-1]
    assert last.startswith(f"{name}: failed (cluster.per_shard: {node} cannot hold")
    assert "in /run/data/mnist or /run/data; set data_dir" in last
    assert "JAX" not in last and not (scene.runs / name).exists()
    assert "restart" not in client.pes("logs", name)[1]


def test_a_node_without_our_package_is_told_what_to_do(scene: Scene) -> None:
    client, name = scene.client, "bare"
    client.write("bare.yaml", toy("pes", 20, **ONE_EACH))
    # Wherever it is found without our sources in the path; where it is installed.
    find = "import pes_cluster; print(pes_cluster.__path__[0])"
    bare = ("env", "-C", "/", "-u", "PYTHONPATH", sys.executable, "-c", find)
    hidden = {scene.hosts["w2"].run(*bare).strip(), str(ROOT / "pes_cluster")}
    for path in hidden:
        scene.hosts["w2"].run("mount", "-t", "tmpfs", "none", path)
    code, said = client.pes("submit", "bare.yaml", "--name", name, "--wait")
    for path in hidden:
        scene.hosts["w2"].run("umount", path)
    assert code in (1, 2)  # On which of the two the driver was is Ray's to choose.
    assert "has no pes_cluster: install it on every node" in said.splitlines()[-1]
    assert not (scene.runs / name).exists()


def test_what_the_cluster_does_not_hold_is_refused_by_the_client(scene: Scene) -> None:
    client = scene.client
    client.write("pes.yaml", toy("pes", LONG))
    for word, words in (
        ("cluster.shards=13", "13 with 1 CPU each need 13 CPU, the cluster has 12"),
        ("cluster.per_shard.num_gpus=1", "need 1 GPU, the cluster has 0"),
        ("cluster.per_shard.num_cpus=7", "fit on a node"),
    ):
        code, said = client.pes("submit", "pes.yaml", word, "--name", "refused")
        assert code == 1 and words in said and said.count("\n") == 1
    assert "refused" not in client.pes("list")[1]


def test_the_token_is_in_no_command_line_and_no_log(
    scene: Scene, overseer: Overseer
) -> None:
    assert overseer.looks > 20 and not overseer.seen
    assert len(scene.client.said) > 500 and scene.token not in scene.client.said
    places = [host.path("/run") for host in scene.hosts] + [scene.runs, scene.folder]
    held = []
    for place in places:
        found = subprocess.run(
            ["grep", "-rlaF", "--devices=skip", scene.token, str(place)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        held += found.stdout.split()
    assert [Path(path).name for path in held] == ["token"]  # The client's own.


def test_a_job_that_is_waited_for_outlives_the_node_of_its_driver(
    scene: Scene, tmp_path: Path
) -> None:
    client, name = scene.client, "waited"
    config = toy("pes", 800, pool="ray", shards=2)
    client.write("waited.yaml", config)
    waits = client.start("submit", "waited.yaml", "--name", name, "--wait")
    assert soon(lambda: steps(scene, name) > 100)
    scene.hosts[host_of(scene, name)].power_off()
    assert soon(lambda: "goes on, attempt 2" in waits.said())
    assert waits.status(120) == 0
    assert re.search(rf"{name}: was lost with its node.*\n", waits.said())
    assert waits.said().splitlines()[-1] == f"{name}: finished"
    assert result(scene, name)["theta_sha256"] == at_home(tmp_path, config)
    # What ran there has left its log there: of the others all is known.
    code, said = client.pes("status")
    assert code == 0 and f"{name} " in said and "800/800" in said, said
