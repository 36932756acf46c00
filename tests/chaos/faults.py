"""What each kind of fault does to the scene, and what puts it right afterwards."""

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.chaos.scene import WORKERS, Scene
from tests.chaos.schedule import CLUSTER_LOST, NEEDS_REDIS, Fault

LEFT = 2  # Workers that four shards of one CPU need.
SLOW = "10mbit"

Repair = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Struck:
    """A fault that happened.

    Attributes:
        victim: Whom it struck.
        repair: What ends it after its seconds.
    """

    victim: str
    repair: Repair = lambda: None


def strike(scene: Scene, fault: Fault) -> Struck | None:
    """Makes the fault happen; None where it cannot yet."""
    return EFFECTS[fault.kind](scene, fault.draw)


def _shard_killed(scene: Scene, draw: float) -> Struck | None:
    victim = _chosen(scene.with_shards(), draw)
    if victim is not None:
        os.kill(scene.nodes.shards(victim)[0], signal.SIGKILL)
    return victim and Struck(victim)


def _raylet_killed(scene: Scene, draw: float) -> Struck | None:
    victim = _spare(scene, draw)
    if victim is not None:
        os.kill(scene.nodes.raylet(victim), signal.SIGKILL)
    return victim and Struck(victim)


def _host_cut(scene: Scene, draw: float) -> Struck | None:
    victim = _spare(scene, draw)
    if victim is None:
        return None
    scene.hosts[victim].cut()
    return Struck(victim, scene.hosts[victim].heal)


def _host_crashed(scene: Scene, draw: float) -> Struck | None:
    victim = _spare(scene, draw)
    if victim is None:
        return None
    scene.hosts[victim].crash()
    return Struck(victim, lambda: scene.boot(victim))


def _host_paused(scene: Scene, draw: float) -> Struck | None:
    victim = _spare(scene, draw)
    if victim is None:
        return None
    scene.hosts[victim].pause()
    return Struck(victim, scene.hosts[victim].resume)


def _drain_notice(scene: Scene, draw: float) -> Struck | None:
    victim = _spare(scene, draw)
    if victim is not None:
        scene.nodes.notify(victim)
    return victim and Struck(victim)


def _driver_killed(scene: Scene, draw: float) -> Struck | None:
    del draw
    scene.job.kill()
    return Struck("driver")


def _head_lost(scene: Scene, draw: float) -> Struck | None:
    """The head's host crashes; Redis has what the head knew."""
    del draw
    scene.hosts["head"].crash()
    return Struck("head", lambda: scene.boot("head"))


def _cluster_lost(scene: Scene, draw: float) -> Struck | None:
    """The head's host crashes; what it knew is gone, and a new cluster is started."""
    del draw
    scene.hosts["head"].crash()

    def repair() -> None:
        scene.boot("head")
        for host in ("driver", *WORKERS):
            os.kill(scene.nodes.raylet(host), signal.SIGKILL)

    return Struck("head", repair)


def _slow_link(scene: Scene, draw: float) -> Struck | None:
    victim = _chosen(scene.with_shards(), draw)
    if victim is None:
        return None
    scene.hosts[victim].shape(SLOW)
    return Struck(victim, scene.hosts[victim].unshape)


def _disk_full(scene: Scene, draw: float) -> Struck | None:
    del draw
    scene.hosts.fill_disk()
    return Struck("disk", scene.hosts.free_disk)


def _checkpoint_cut_short(scene: Scene, draw: float) -> Struck | None:
    """The newest checkpoint's part loses its end, and the driver dies."""
    manifests = sorted(scene.checkpoints.glob("step_*/manifest.json"))
    if not manifests:
        return None
    parts = sorted(manifests[-1].parent.glob("*.npz"))
    part = _chosen_path(parts, draw)
    os.truncate(part, part.stat().st_size // 2)
    scene.job.kill()
    return Struck(manifests[-1].parent.name)


def _chosen(names: list[str], draw: float) -> str | None:
    return names[int(draw * len(names))] if names else None


def _chosen_path(paths: list[Path], draw: float) -> Path:
    return paths[int(draw * len(paths))]


def _spare(scene: Scene, draw: float) -> str | None:
    """A worker with shards that the run can do without for a while."""
    if len(scene.present()) <= LEFT:
        return None
    return _chosen(scene.with_shards(), draw)


EFFECTS: dict[str, Callable[[Scene, float], Struck | None]] = {
    "shard killed": _shard_killed,
    "raylet killed": _raylet_killed,
    "host cut": _host_cut,
    "host crashed": _host_crashed,
    "host paused": _host_paused,
    "drain notice": _drain_notice,
    "driver killed": _driver_killed,
    NEEDS_REDIS: _head_lost,
    CLUSTER_LOST: _cluster_lost,
    "slow link": _slow_link,
    "disk full": _disk_full,
    "checkpoint cut short": _checkpoint_cut_short,
}
