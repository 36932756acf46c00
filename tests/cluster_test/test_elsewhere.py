"""Other clusters than ours: one that anybody can use, whose nodes come on demand."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster_test.scene import PATIENCE, Client, soon
from tests.cluster_test.test_jobs import toy
from tests.hosts.hosts import Hosts, lacking
from tests.hosts.ray_nodes import RayNodes

pytestmark = [pytest.mark.cluster, pytest.mark.ray, pytest.mark.timeout(300)]

TRUST = {"PES_TRUSTED_NETWORK": "1"}
# A node of two CPUs appears, on the same host, for whatever waits for one.
ON_DEMAND: dict[str, Any] = {
    "cluster_name": "on_demand",
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,  # They share one.
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "max_workers": 2,
    "upscaling_speed": 10.0,
    "idle_timeout_minutes": 5,
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 2}, "node_config": {}, "max_workers": 2},
    },
    "file_mounts_sync_continuously": False,
}
# Ray's launcher fills these in; without it they have to be there.
for key in ("auth", "docker", "file_mounts"):
    ON_DEMAND[key] = {}
for key in (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
):
    ON_DEMAND[key] = []


class Open:
    """A head that asks for no token and has no CPU, and a client that has one."""

    def __init__(self, hosts: Hosts, folder: Path) -> None:
        self.nodes = RayNodes(hosts, folder, folder)
        self.nodes.env |= {"RAY_AUTH_MODE": "disabled", "PES_RUNS": "/srv/runs"} | TRUST
        file = folder / "on_demand.json"
        file.write_text(json.dumps(ON_DEMAND))
        fake = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        old = {"RAY_enable_autoscaler_v2": "0"}
        flags = [f"--autoscaling-config={file}"]
        self.nodes.start_head("head", True, flags, **fake, **old)
        self.nodes.await_started("head")
        self.host, self._log = hosts["head"], folder / "run.log"
        self.client = Client(hosts["client"], self.nodes.board, "any", folder)
        self.client.write("pes.yaml", toy("pes", 100, pool="ray", shards=4))

    def run(self, *words: str, **env: str) -> tuple[int, str]:
        """Runs a command on the head's host; its status, and what it printed."""
        python = [sys.executable, "-m", "pes_cluster", *words]
        named = {"RAY_ADDRESS": self.nodes.address} | env
        with self._log.open("wb") as output:
            process = self.host.start(python, self.nodes.env | named, output)
        return process.wait(PATIENCE), self._log.read_text()


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    reason = lacking()
    if reason:
        pytest.skip(reason)
    with Hosts(["head", "client"]) as hosts:
        yield Open(hosts, tmp_path_factory.mktemp("open"))


def test_a_cluster_that_anybody_can_use_is_refused(elsewhere: Open) -> None:
    client = elsewhere.client
    for token, words in (("token", "takes jobs from anybody"), ("", "is no token")):
        code, said = client.pes("submit", "pes.yaml", token=token)
        assert code == 1 and words in said and said.count("\n") == 1
    (elsewhere.host.path("/run") / "pes.yaml").write_text(toy("pes", 2, pool="ray"))
    command = ("run", "/run/pes.yaml", "--run-dir", "/srv/refused")
    code, said = elsewhere.run(*command, PES_TRUSTED_NETWORK="0")
    assert code == 2 and said.startswith("pes: cluster.pool: the cluster's dashboard")
    assert "takes jobs from anybody who reaches it; start" in said
    assert said.count("\n") == 1
    assert not elsewhere.host.path("/srv/refused").exists()


def test_nodes_that_come_on_demand_are_waited_for(elsewhere: Open) -> None:
    client = elsewhere.client
    words = ("submit", "pes.yaml", "--name", "grown")
    code, said = client.pes(*words, **TRUST)
    assert code == 1 and "4 with 1 CPU each need 4 CPU, the cluster has 0" in said
    more = ("cluster.autoscaling=true", "--wait")
    waits = client.start(*words, *more, **TRUST)
    assert soon(lambda: len(elsewhere.nodes.shards("head")) == 4), waits.said()
    # These nodes share a folder, and the one that came last has put the job's working
    # directory there anew: its driver cannot tell where it is. But it has finished.
    waits.status()
    result = elsewhere.host.path("/srv/runs/grown/result.json").read_text()
    assert json.loads(result)["status"] == "finished"
