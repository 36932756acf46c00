"""A Ray cluster of this machine alone, as `pes up` starts and `pes down` ends it.

It has the settings of a real one: token, health checks, a dashboard on loopback. Its
nodes, and all that they start, carry a mark in their environment: what has the mark is
ended, and nothing else.
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence

from pes_cluster.ray_backend.environment import DRIVER, NODE, RUNS

LOOPBACK = "127.0.0.1"
START_SECONDS = 90.0
SAVE_SECONDS = 60.0  # For the jobs to write their checkpoints.
STOP_SECONDS = 3.0  # Between asking Ray's processes to end and killing them.
DRIVERS = 64  # As many jobs at once as a node may hold the drivers of.
STORE_BYTES = 512 * 2**20  # Of shared memory, for each node.
_MARK = "PES_SERVICE"
_STARTED = "Ray runtime started"
_JOB = b"\0pes_cluster\0job\0"  # In the command line of a job's supervisor.


class ServiceError(Exception):
    """The service cannot be started or ended; one line."""


@dataclasses.dataclass(frozen=True)
class Service:
    """A running service; what its state file holds.

    Attributes:
        address: Where jobs are submitted.
        token_file: Holds the token, for its owner only.
        mark: The mark of its processes.
        folder: Of Ray's sockets and logs; goes with the service.
    """

    address: str
    token_file: str
    mark: str
    folder: str


def home() -> pathlib.Path:
    """The folder of the service's state: `PES_HOME`, or `~/.pes_cluster`."""
    return pathlib.Path(os.environ.get("PES_HOME") or "~/.pes_cluster").expanduser()


def running() -> Service | None:
    """The service that is up, if one is."""
    service = _recorded()
    return service if service and _marked(service.mark) else None


def up(hosts: int = 1, runs: pathlib.Path = pathlib.Path("runs")) -> Service:
    """Starts the service; on return jobs may be submitted.

    Args:
        hosts: Ray nodes; from two on, the first only leads.
        runs: Folder of the jobs' run directories.

    Raises:
        ServiceError: It is up already, or does not start; then nothing is left. Or
            there can be no such folder of runs.
    """
    before = running()
    if before is not None:
        raise ServiceError(f"up already at {before.address}; pes down ends it")
    _make(runs)
    down()
    lead, board = _free_port(6379), _free_port(8265)
    service = Service(
        address=f"http://{LOOPBACK}:{board}",
        token_file=str(_write_token()),
        mark=secrets.token_hex(16),
        folder=tempfile.mkdtemp(prefix="pes_"),  # Short: sockets lie below. Mode 700.
    )
    _write(_state(), json.dumps(dataclasses.asdict(service)))
    env = environment(service, runs.absolute())
    try:
        for flags in nodes(hosts, len(os.sched_getaffinity(0)), lead, board):
            _start(service, flags, env)
        _await_board(service)
    except BaseException:  # Ctrl-C as well: nothing half started may stay.
        down()
        raise
    return service


def down() -> bool:
    """Ends what `up` started; False: nothing was there.

    Raises:
        ServiceError: The state file is not understood.
    """
    service = _recorded()
    if service is None:
        return False
    was_up = bool(_marked(service.mark))
    _end(service.mark)
    shutil.rmtree(service.folder, ignore_errors=True)
    pathlib.Path(service.token_file).unlink(missing_ok=True)
    _state().unlink()
    return was_up


def nodes(hosts: int, cores: int, lead: int, board: int) -> list[list[str]]:
    """The flags of `ray start` for each node, the head first; pure.

    Args:
        hosts: How many.
        cores: This machine's, dealt out evenly.
        lead: Port of the head.
        board: Port of the dashboard, where jobs are submitted.
    """
    workers = hosts - 1
    head = ["--head", f"--port={lead}", "--include-dashboard=true"]
    head += [f"--dashboard-host={LOOPBACK}", f"--dashboard-port={board}"]
    holds = [f"--resources={json.dumps({DRIVER: DRIVERS})}"]
    if workers == 0:
        return [[*head, f"--num-cpus={cores}", *holds]]
    each = [f"--address={LOOPBACK}:{lead}", f"--num-cpus={max(cores // workers, 1)}"]
    # Each would otherwise count all GPUs of the machine as its own.
    gpus = [[] if number == 0 else ["--num-gpus=0"] for number in range(workers)]
    leads = [*head, "--num-cpus=0", "--num-gpus=0"]
    return [leads, *([*each, *holds, *more] for more in gpus)]


def environment(service: Service, runs: pathlib.Path) -> dict[str, str]:
    """The environment of the service's nodes."""
    # A Ray or a run around us must not leak in.
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("RAY_", "PES_"))
    }
    folder = str(pathlib.Path(sys.executable).parent)  # `python` is ours in every job.
    path = os.pathsep.join([folder, inherited.get("PATH", os.defpath)])
    return inherited | {
        **NODE,
        "PATH": path,
        "RAY_AUTH_TOKEN_PATH": service.token_file,
        RUNS: str(runs),
        _MARK: service.mark,
    }


def _recorded() -> Service | None:
    """The service of the state file, whether it lives or not."""
    try:
        return Service(**json.loads(_state().read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise ServiceError(f"{_state()}: cannot be read ({error})") from None


def _start(service: Service, flags: Sequence[str], env: dict[str, str]) -> None:
    """Starts a node and returns once it runs."""
    log = pathlib.Path(service.folder) / f"node_{time.monotonic_ns()}.log"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", *flags, "--block"]
    command += [f"--node-ip-address={LOOPBACK}", "--disable-usage-stats"]
    command += ["--dashboard-agent-listen-port=0", f"--temp-dir={_folder(service)}"]
    command += ["--include-log-monitor=false"]  # It sends on what shards print.
    command += [f"--object-store-memory={STORE_BYTES}"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=service.folder,
            start_new_session=True,
        )
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        said = log.read_text(errors="replace")
        if _STARTED in said:
            return
        if process.poll() is not None:
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            why = lines[-1] if lines else f"status {process.returncode}"
            raise ServiceError(f"Ray does not start: {why}")
        time.sleep(0.1)
    raise ServiceError(f"Ray does not start within {START_SECONDS:g} s")


def _folder(service: Service) -> pathlib.Path:
    """A folder for a node: nodes that share one replace each other's working copies.

    The logs alone are shared, since of several nodes on a machine Ray looks for the log
    of any job in the folder of the first.
    """
    made = pathlib.Path(tempfile.mkdtemp(prefix="n", dir=service.folder))
    for other in pathlib.Path(service.folder).glob("n*/session_latest"):
        session = made / other.resolve().name
        session.mkdir()
        (session / "logs").symlink_to((other / "logs").resolve())
        break
    return made


def _await_board(service: Service) -> None:
    """Waits until the dashboard takes jobs."""
    token = pathlib.Path(service.token_file).read_text()
    request = urllib.request.Request(
        f"{service.address}/api/jobs/", headers={"Authorization": f"Bearer {token}"}
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end, why = time.monotonic() + START_SECONDS, "no answer"
    while time.monotonic() < end:
        try:
            with opener.open(request, timeout=5):
                return
        except (urllib.error.URLError, OSError) as error:
            why = str(error)
        time.sleep(0.2)
    raise ServiceError(f"{service.address}: the dashboard does not start ({why})")


def _end(mark: str) -> None:
    """Ends all processes of a mark: jobs first, which save; then Ray."""
    _send(signal.SIGTERM, functools.partial(_marked, mark, _JOB), SAVE_SECONDS)
    everything = functools.partial(_marked, mark)
    _send(signal.SIGTERM, everything, STOP_SECONDS)
    _send(signal.SIGKILL, everything, STOP_SECONDS)
    if everything():
        raise ServiceError(f"processes {everything()} do not end")


def _send(number: int, processes: Callable[[], list[int]], seconds: float) -> None:
    """Signals processes, and waits so long for all to be gone."""
    for process in processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, number)
    end = time.monotonic() + seconds
    while processes() and time.monotonic() < end:
        time.sleep(0.1)


def _marked(mark: str, command: bytes = b"") -> list[int]:
    """The ids of the processes that carry a mark; a zombie has none."""
    wanted, found = f"{_MARK}={mark}".encode(), []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            marked = wanted in (entry / "environ").read_bytes().split(b"\0")
            if marked and command in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
    return found


def _free_port(wanted: int) -> int:
    """The port that is wanted where nobody has it, else any."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOOPBACK, port))
            return probe.getsockname()[1]
    raise ServiceError("no port is free")


def _make(runs: pathlib.Path) -> None:
    """Makes the folder of runs: a job would find out late that there cannot be one."""
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ServiceError(f"--runs {runs}: is a file, not a folder") from None
    except OSError as error:
        line = f"--runs {runs}: cannot be made ({error.strerror})"
        raise ServiceError(line) from None


def _write_token() -> pathlib.Path:
    path = home() / "token"
    _write(path, secrets.token_hex(32))
    return path


def _write(path: pathlib.Path, text: str) -> None:
    """Writes a file that only its owner may read."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with open(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w"
        ) as file:
            file.write(text)
    except OSError as error:
        raise ServiceError(f"{path}: cannot be written ({error.strerror})") from None


def _state() -> pathlib.Path:
    return home() / "service.json"
