"""Hosts that can be cut off, paused, crashed and slowed: all on this machine.

```
  this process ---pipe---> site: a bridge, a small disk that all hosts see at /srv
                             |-- head    10.77.0.10   own /run and /dev/shm,
                             |-- driver  10.77.0.11   own processes, own network
                             `-- w1 ...  10.77.0.12   card with a link to the bridge
```

It needs root, util-linux and iproute2. The bridge has no uplink, and lies in a network
of its own: two sets of hosts never meet, although their addresses are the same.
"""

import contextlib
import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from tests.hosts.namespace import PATIENCE, Namespace, child, command

SUBNET, FIRST = "10.77.0", 10
DISK = "/srv"  # Shared by all hosts, as a network file system is.
LOCAL = "/run"  # Each host's own.
TOOLS = ("unshare", "nsenter", "ip", "tc")


def lacking() -> str | None:
    """Why hosts cannot be made here; None where they can."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"hosts need {', '.join(missing)} (util-linux, iproute2)"
    return None if os.geteuid() == 0 else "hosts need root"


class Host:
    """One host: a name, an address, and whatever runs on it.

    Attributes:
        name: Also the name of its link at the bridge.
        ip: Its address.
        up: Whether it is powered.
    """

    def __init__(self, site: Namespace, name: str, number: int) -> None:
        self._site, self._number = site, number
        self.name, self.ip = name, _address(number)
        self.up = False

    def boot(self, hosts: int) -> None:
        """Powers it, empty, with its name and address, among so many hosts."""
        setup = (
            f"hostname {self.name}",
            f"mount -t tmpfs -o size=2g,mode=755 local {LOCAL}",
            "mount -t tmpfs -o size=1g shm /dev/shm",
            "ip link set lo up",
        )
        self._started: list[subprocess.Popen[bytes]] = []
        self._space = Namespace("\n".join(setup), inside=self._site)
        with contextlib.suppress(OSError):  # A dead host's link may linger.
            self._site.ip(f"link del dev {self.name}")
        far = f"peer name eth0 netns {self._space.init}"
        self._site.ip(
            f"link add name {self.name} type veth {far}",
            f"link set dev {self.name} master bridge up",
        )
        # Known for good: then a cut link is silence, and not "no such host".
        neighbours = [
            f"neigh replace {_address(n)} lladdr {_mac(n)} dev eth0 nud permanent"
            for n in range(hosts)
            if n != self._number
        ]
        self._space.ip(
            f"link set eth0 address {_mac(self._number)}",
            f"addr add {self.ip}/24 dev eth0",
            "link set eth0 up",
            *neighbours,
        )
        self.up = True

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        output: IO[Any] | int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        """Starts a command on the host; its working directory is this one's."""
        line = ["env", f"--chdir={Path.cwd()}", *argv]
        process = subprocess.Popen(
            [*self._space.entering(), *line],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def run(self, *argv: str, env: Mapping[str, str] | None = None) -> str:
        """Runs a short command on the host and returns what it printed."""
        assigned = [f"{name}={value}" for name, value in (env or {}).items()]
        return command([*self._space.entering(), "env", *assigned, *argv])

    def path(self, path: str) -> Path:
        """Where a path of the host is found from outside."""
        return self._space.path(path)

    def pids(self, having: str = "") -> list[int]:
        """Its processes whose command line has these words, oldest first."""
        found = [pid for pid in self._space.pids() if having in _command_line(pid)]
        return sorted(found)

    def cut(self) -> None:
        """Takes the link off the bridge: what is sent is lost without a word."""
        self._site.ip(f"link set dev {self.name} nomaster")

    def heal(self) -> None:
        """Puts the link back."""
        self._site.ip(f"link set dev {self.name} master bridge")

    def pause(self) -> None:
        """Stops every process, as a hung machine does; the kernel still answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Lets every process go on."""
        self._signal_all(signal.SIGCONT)
        for process in self._started:  # `nsenter` stops along with its child.
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)

    def crash(self) -> None:
        """Kills all processes at once; the kernel may still close their sockets."""
        self.up = False
        self._space.end()
        for process in self._started:
            process.wait(PATIENCE)

    def power_off(self) -> None:
        """Kills all processes behind a cut link: nobody hears of it."""
        self.cut()
        self.crash()

    def shape(self, rate: str) -> None:
        """Limits the link in both directions, say to ``10mbit``."""
        limit = f"root tbf rate {rate} burst 64kb latency 200ms"
        self._queue("replace", "eth0", self._space, limit)
        self._queue("replace", self.name, self._site, limit)

    def unshape(self) -> None:
        """Lifts the limit."""
        self._queue("del", "eth0", self._space, "root")
        self._queue("del", self.name, self._site, "root")

    def _queue(self, verb: str, device: str, where: Namespace, limit: str) -> None:
        line = ["tc", "qdisc", verb, "dev", device, *limit.split()]
        command([*where.entering(["--net"]), *line])

    def _signal_all(self, number: int) -> None:
        seen: set[int] = set()
        # Again for those that were being born.
        while fresh := set(self._space.pids()) - seen:
            for pid in fresh:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            seen |= fresh


class Hosts:
    """A site with its hosts; a context manager after which nothing is left."""

    def __init__(self, names: Sequence[str], disk_mb: int = 64) -> None:
        """Powers a host for each name.

        Args:
            names: At most 15 letters each.
            disk_mb: Size of the disk that all hosts see at `DISK`.
        """
        setup = (
            f"mount -t tmpfs -o size={disk_mb}m,mode=755 disk {DISK}",
            "ip link add bridge type bridge",
            "ip link set bridge up",
        )
        self._site = Namespace("\n".join(setup))
        self._hosts = {
            name: Host(self._site, name, number) for number, name in enumerate(names)
        }
        try:
            for name in names:
                self.boot(name)
        except BaseException:
            self.down()
            raise

    def __enter__(self) -> "Hosts":
        return self

    def __exit__(self, *error: object) -> None:
        self.down()

    def __getitem__(self, name: str) -> Host:
        return self._hosts[name]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def boot(self, name: str) -> Host:
        """Powers a host, empty, in the place of one that went."""
        host = self._hosts[name]
        if host.up:
            raise ValueError(f"{name} is up")
        host.boot(len(self._hosts))
        return host

    def down(self) -> None:
        """Ends everything; may be called again."""
        for host in self:
            if host.up:
                host.crash()
        self._site.end()

    def disk(self) -> Path:
        """Where the shared disk is found from outside."""
        return self._site.path(DISK)

    def fill_disk(self) -> None:
        """Leaves no byte free on the shared disk."""
        with (self.disk() / "ballast").open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12):
                _write_on(file, bytes(size))

    def free_disk(self) -> None:
        """Gives the space back."""
        (self.disk() / "ballast").unlink(missing_ok=True)


def inner_pid(process: subprocess.Popen[bytes]) -> int:
    """The command itself: what was started is `nsenter`, which waits for it."""
    return child(process.pid)


def _address(number: int) -> str:
    return f"{SUBNET}.{FIRST + number}"


def _mac(number: int) -> str:
    return f"02:00:0a:4d:00:{FIRST + number:02x}"


def _command_line(pid: int) -> str:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ""
    return line.replace(b"\0", b" ").decode(errors="replace")


def _write_on(file: IO[bytes], piece: bytes) -> None:
    try:
        while file.write(piece) == len(piece):
            pass
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
