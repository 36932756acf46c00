"""What each kind of fault does to the scene, and what puts it right afterwards."""

import dataclasses
import os
import signal
from collections.abc import Callable

from tests.chaos.scene import WORKERS, Scene
from tests.chaos.schedule import (
    DISK_FULL,
    DRAIN_NOTICE,
    DRIVER_KILLED,
    HALF_WRITTEN,
    HEAD_LOST,
    HEAD_LOST_REDIS,
    HOST_CUT,
    SHARD_KILLED,
    Fault,
)

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
    try:
        struck = EFFECTS[fault.kind](scene, fault.draw)
    except (IndexError, ProcessLookupError, FileNotFoundError):
        return None  # The process that was to be struck has just gone by itself.
    if struck is None:
        return None
    victim = struck.victim
    scene.afflicted.add(victim)

    def repair() -> None:
        struck.repair()
        scene.afflicted.discard(victim)

    return Struck(victim, repair)


def _shard_killed(scene: Scene, draw: float) -> Struck | None:
    victim = _chosen(scene.with_shards(), draw)
    if victim is None:
        return None
    os.kill(scene.nodes.shards(victim)[0], signal.SIGKILL)
    return Struck(victim)


def _raylet_killed(scene: Scene, draw: float) -> Struck | None:
    victim = _spare(scene, draw)
    if victim is None:
        return None
    os.kill(scene.nodes.raylets(victim)[0], signal.SIGKILL)
    return Struck(victim)


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
    if victim is None:
        return None
    scene.nodes.notify(victim)
    return Struck(victim)


def _driver_killed(scene: Scene, draw: float) -> Struck | None:
    del draw
    scene.job.kill_driver()
    return Struck("driver")


def _head_lost(scene: Scene, draw: float) -> Struck | None:
    """The head's host crashes; Redis has what the head knew."""
    del draw
    if not scene.hosts["head"].up:
        return None
    scene.hosts["head"].crash()
    return Struck("head", lambda: scene.boot("head"))


def _cluster_lost(scene: Scene, draw: float) -> Struck | None:
    """The head's host crashes; what it knew is gone, and a new cluster is started."""
    del draw
    scene.hosts["head"].crash()

    def repair() -> None:
        scene.boot("head")
        for host in ("driver", *WORKERS):
            for raylet in scene.nodes.raylets(host):
                os.kill(raylet, signal.SIGKILL)

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


def _checkpoint_half_written(scene: Scene, draw: float) -> Struck | None:
    """The driver dies, and the newest checkpoint is as such a death can leave it.

    Either the manifest was not reached, or it is there and a part lost its end (to a
    machine that went down with the driver before its disk had everything).
    """
    if len(scene.manifests()) < 2:
        return None
    scene.job.kill_driver()
    manifest = scene.manifests()[-1]
    named = manifest.read_text()  # Others are left from an earlier such death.
    parts = [p for p in sorted(manifest.parent.glob("*.npz")) if p.name in named]
    if draw < 0.5:
        manifest.unlink()
    part = parts[int(draw * len(parts))]
    os.truncate(part, part.stat().st_size // 2)
    return Struck(manifest.parent.name)


def _chosen(names: list[str], draw: float) -> str | None:
    return names[int(draw * len(names))] if names else None


def _spare(scene: Scene, draw: float) -> str | None:
    """A worker with shards that the run can do without for a while."""
    if len(scene.present()) <= LEFT:
        return None
    return _chosen(scene.with_shards(), draw)


EFFECTS: dict[str, Callable[[Scene, float], Struck | None]] = {
    SHARD_KILLED: _shard_killed,
    "raylet killed": _raylet_killed,
    HOST_CUT: _host_cut,
    "host crashed": _host_crashed,
    "host paused": _host_paused,
    DRAIN_NOTICE: _drain_notice,
    DRIVER_KILLED: _driver_killed,
    HEAD_LOST_REDIS: _head_lost,
    HEAD_LOST: _cluster_lost,
    "slow link": _slow_link,
    DISK_FULL: _disk_full,
    HALF_WRITTEN: _checkpoint_half_written,
}
