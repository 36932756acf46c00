"""The hosts themselves: each fault is what it is called, and nothing survives."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hosts import traffic
from tests.hosts.hosts import Host, Hosts, inner_pid
from tests.hosts.namespace import await_gone, command, running

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(60)]

PROGRAM = [sys.executable, str(Path(traffic.__file__))]
SMALL = 100  # Bytes: an answer in one packet.


def soon(happens: Callable[[], bool], seconds: float = 15.0) -> bool:
    """Whether it happens within so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if happens():
            return True
        time.sleep(0.02)
    return False


class Talk:
    """Host `two` asks host `one`, again and again, on one connection."""

    def __init__(self, hosts: Hosts, size: int = SMALL, name: str = "counts") -> None:
        self._counts = hosts.disk() / name
        self.server = serve(hosts["one"])
        argv = [*PROGRAM, "ask", hosts["one"].ip, str(size), f"/srv/{name}"]
        self.client = hosts["two"].start(argv, env={})
        assert soon(lambda: self.answers() > 1)

    def answers(self) -> int:
        return len(self.seconds())

    def seconds(self) -> list[float]:
        """What each answer took."""
        if not self._counts.exists():
            return []
        return [float(line) for line in self._counts.read_text().splitlines()]

    def goes_on(self) -> bool:
        before = self.answers()
        return soon(lambda: self.answers() > before + 2)

    def is_silent(self) -> bool:
        """No answer comes, and neither end hears that anything is wrong."""
        time.sleep(0.2)
        before = self.answers()
        time.sleep(0.8)
        ends = (self.server.poll(), self.client.poll())
        return self.answers() == before and ends == (None, None)


def serve(host: Host) -> subprocess.Popen[bytes]:
    server = host.start([*PROGRAM, "serve"], env={})
    port = f":{traffic.PORT:04X} "
    assert soon(lambda: port in host.path("/proc/1/net/tcp").read_text())
    return server


def test_a_cut_link_is_silence_and_healing_brings_the_connection_back(hosts):
    talk = Talk(hosts)
    hosts["one"].cut()
    assert talk.is_silent()
    hosts["one"].heal()
    assert talk.goes_on()


def test_a_paused_host_keeps_its_connections_and_goes_on(hosts):
    talk = Talk(hosts)
    hosts["one"].pause()
    assert talk.is_silent()
    hosts["one"].resume()
    assert talk.goes_on()
    os.kill(inner_pid(talk.server), signal.SIGTERM)
    assert talk.server.wait(10) != 0  # Its end is seen, although it was stopped once.


def test_a_crashed_host_is_heard_of_and_boots_empty_with_its_address(hosts):
    talk, one = Talk(hosts), hosts["one"]
    one.path("/run/mine").touch()
    left = one.pids()
    one.crash()
    assert not any(map(running, left))
    hosts.boot("one")
    assert not one.path("/run/mine").exists()
    assert talk.client.wait(15) != 0  # Reset by the new host, at the latest.
    assert Talk(hosts, name="again").goes_on()


def test_a_host_without_power_says_nothing(hosts):
    talk = Talk(hosts)
    hosts["one"].power_off()
    time.sleep(0.5)
    assert talk.client.poll() is None
    hosts.boot("one")
    assert Talk(hosts, name="again").goes_on()


def test_a_slow_link_is_slow_until_it_is_not(hosts):
    size = 200_000  # Bytes: 0.8 s at 2 Mbit/s, less what the bucket lets pass at once.
    talk = Talk(hosts, size)
    assert min(talk.seconds()) < 0.2
    hosts["one"].shape("2mbit")
    assert soon(lambda: talk.seconds()[-1] > 0.4)
    hosts["one"].unshape()
    assert soon(lambda: talk.seconds()[-1] < 0.2)


def test_the_disk_is_seen_by_all_hosts_and_can_be_full(hosts):
    hosts["one"].run("sh", "-c", "echo hello > /srv/letter")
    assert hosts["two"].run("cat", "/srv/letter") == "hello\n"
    hosts.fill_disk()
    with pytest.raises(OSError, match="No space left"):
        hosts["two"].run("cp", "/etc/passwd", "/srv/another")
    hosts.free_disk()
    hosts["two"].run("cp", "/etc/passwd", "/srv/another")


def test_hosts_have_names_and_own_files(hosts):
    assert hosts["two"].run("hostname") == "two\n"
    hosts["one"].run("touch", "/run/file", "/dev/shm/file")
    assert not hosts["two"].path("/run/file").exists()
    assert not hosts["two"].path("/dev/shm/file").exists()


def traces() -> tuple[str, str]:
    """This machine's own interfaces and mounts."""
    mounts = Path("/proc/self/mounts").read_text()
    return command(["ip", "-brief", "link"]), mounts


def test_two_sets_of_hosts_do_not_meet_and_leave_nothing(hosts):
    before = traces()
    with Hosts(["one", "two"]) as others:
        serve(hosts["one"])
        with pytest.raises(OSError, match="refused"):
            others["two"].run(*PROGRAM, "ask", others["one"].ip, "1", "/run/counts")
        pids = [pid for host in others for pid in host.pids()]
    assert pids and not any(map(running, pids))
    assert traces() == before


def test_hosts_go_with_the_process_that_made_them(hosts):
    del hosts  # Skips where there can be none.
    program = (
        "import time; from tests.hosts.hosts import Hosts; hosts = Hosts(['one']);"
        "print(hosts['one']._space.init, flush=True); time.sleep(60)"
    )
    maker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert maker.stdout is not None
    init = int(maker.stdout.readline())
    assert running(init)
    maker.kill()
    maker.communicate()
    await_gone([init])


def test_a_host_that_cannot_be_made_takes_the_others_with_it(hosts):
    del hosts
    before = traces()
    with pytest.raises(OSError, match="name"):
        Hosts(["one", "a-name-that-no-link-can-have"])
    assert traces() == before
