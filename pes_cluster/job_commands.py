"""The commands of the service and of its jobs: parse, call, print.

Ray is loaded only by the commands that need it.
"""

import contextlib
import dataclasses
import os
import pathlib
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.table import Table

from pes_cluster import __version__, blame, terminal
from pes_cluster.cluster.control import Command
from pes_cluster.cluster.job import (
    Attempt,
    JobError,
    following,
    meant,
    named,
    newest,
)
from pes_cluster.cluster.marks import HISTORY, MARK, spoken
from pes_cluster.cluster.status import RunStatus
from pes_cluster.config import run_config
from pes_cluster.config.run_config import RunConfig
from pes_cluster.metrics.history import History
from pes_cluster.ray_backend import endpoint, service
from pes_cluster.ray_backend.environment import JOB, RUNS
from pes_cluster.run_directory import RunDirectory, RunDirectoryError
from pes_cluster.supervision import supervise_run
from pes_cluster.supervisor import FAILED

if TYPE_CHECKING:
    from pes_cluster.ray_backend.jobs import Jobs

# In the environment of a job:
CONFIG = "PES_JOB_CONFIG"  # Holds the configuration.
SENDER = "PES_JOB_SENDER"  # Names the versions of who submitted it.

FREE_SECONDS = 90.0  # For a driver on a host that was cut off to be gone.

Address = Annotated[
    str | None,
    typer.Option(help="Where the cluster takes jobs; or PES_ADDRESS, or pes up's."),
]
TokenFile = Annotated[
    pathlib.Path | None,
    typer.Option(help="Holds the cluster's token; or RAY_AUTH_TOKEN_PATH."),
]
Name = Annotated[str, typer.Argument(metavar="NAME")]


def up(
    hosts: Annotated[
        int, typer.Option(min=1, help="Ray nodes; from two on, the first only leads.")
    ] = 1,
    runs: Annotated[
        pathlib.Path, typer.Option(help="Folder of the jobs' run directories.")
    ] = pathlib.Path("runs"),
) -> None:
    """Start a Ray cluster on this machine, for jobs."""
    started = service.up(hosts, runs)
    print(f"up at {started.address}; token in {started.token_file}; pes down ends it")


def down() -> None:
    """End what `pes up` started; its jobs save first."""
    print("down" if service.down() else "nothing was up")


def submit(
    configs: Annotated[
        list[str],
        typer.Argument(
            metavar="CONFIG... [KEY.PATH=VALUE]...",
            help="YAML files, one job each; keys to override in all of them.",
        ),
    ],
    address: Address = None,
    token_file: TokenFile = None,
    group: Annotated[str, typer.Option(help="To compare the jobs by.")] = "",
    name: Annotated[str | None, typer.Option(help="Of the job, if it is one.")] = None,
    working_dir: Annotated[
        pathlib.Path,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Travels with the job: your own modules, which are looked for there.",
        ),
    ] = pathlib.Path("."),
    wait: Annotated[
        bool, typer.Option("--wait", help="Until the jobs end, and with their status.")
    ] = False,
    losses: Annotated[
        int,
        typer.Option(min=0, help="Of its node: how many a job outlives, waited for."),
    ] = 5,
) -> int:
    """Submit configurations as jobs; a job of that name that ended goes on."""
    files = [word for word in configs if "=" not in word]
    overrides = [word for word in configs if "=" in word]
    paths = [pathlib.Path(file).absolute() for file in files]
    with contextlib.chdir(working_dir):  # As it will be where the job runs.
        loaded = [run_config.load(path, overrides) for path in paths]
    wanted = _names(loaded, group, name)
    jobs = client(address, token_file)
    there = newest(jobs.attempts())
    # All or none: what can be refused is refused before the first is submitted.
    attempts = [
        following(wanted_name, group, run_config.digest(config), there.get(wanted_name))
        for wanted_name, config in zip(wanted, loaded, strict=True)
    ]
    _remark(jobs.check([config.cluster for config in loaded]))
    entries = [
        _entry(attempt, config, working_dir)
        for attempt, config in zip(attempts, loaded, strict=True)
    ]
    for attempt, entry in zip(attempts, entries, strict=True):
        jobs.submit(attempt, entry)
        print(f"{attempt.name}: {_submitted(attempt)}", flush=True)
    if not wait:
        return 0
    return _waited(jobs, dict(zip(attempts, entries, strict=True)), losses)


def list_jobs(address: Address = None, token_file: TokenFile = None) -> None:
    """List the jobs of a cluster."""
    table = _table("job", "group", "state", "attempts", "began", "seconds")
    for attempt in newest(client(address, token_file).attempts()).values():
        began = "-" if attempt.began is None else time.ctime(attempt.began)
        seconds = terminal.number(_seconds(attempt))
        row = (attempt.name, attempt.group or "-", attempt.state)
        table.add_row(*row, str(attempt.number), began, seconds)
    terminal.console().print(table)


def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="To its end.")] = False,
    address: Address = None,
    token_file: TokenFile = None,
) -> None:
    """Print what a job has printed."""
    from pes_cluster.ray_backend.jobs import advice

    jobs = client(address, token_file)
    attempt = named(newest(jobs.attempts()), name)
    parts = jobs.follow(attempt) if follow else [jobs.log(attempt)]
    line = None
    for part in spoken(parts):
        print(part, end="", flush=True)
        line = line or advice(part)
    _remark(line)


def stop_job(name: str, address: str | None, token_file: pathlib.Path | None) -> None:
    """Stops a job, with a checkpoint, and says how it ended."""
    jobs = client(address, token_file)
    attempt = named(newest(jobs.attempts()), name)
    if not attempt.live:
        raise JobError(f"{name}: is not running ({attempt.state})")
    ended = jobs.stop(attempt)
    print(f"{name}: {ended.state}; pes resume {name} goes on")


def resume_job(name: str, address: str | None, token_file: pathlib.Path | None) -> None:
    """Submits a job again, as it was, to go on from its newest checkpoint."""
    jobs = client(address, token_file)
    before = named(newest(jobs.attempts()), name)
    if before.live:
        raise JobError(f"{name}: is {before.state} already")
    text = jobs.environment(before).get(CONFIG, "")
    config = run_config.parse(text, f"{name}: its configuration")
    least = dataclasses.replace(config.cluster, shards=None)  # It makes do.
    _remark(jobs.check([least]))
    attempt = jobs.resubmit(before, config.cluster)
    print(f"{name}: {_submitted(attempt)}")


def ask_job(
    name: str,
    command: Command,
    seconds: float,
    address: str | None,
    token_file: pathlib.Path | None,
) -> None:
    """Hands a command to a live job, and prints its answer.

    Raises:
        JobError: It refuses, or does not answer in time.
    """
    jobs = client(address, token_file)
    attempt = named(newest(jobs.attempts()), name)
    if not attempt.live:
        raise JobError(f"{name}: is not running ({attempt.state})")
    answer = jobs.ask(name, command, seconds)
    if answer is None:
        raise JobError(f"{name}: no answer within {seconds:g} s; it may still obey")
    if not answer.done:
        raise JobError(f"{name}: {answer.line.removeprefix(f'{name}: ')}")
    print(f"{name}: {answer.line}")


def histories(
    names: Sequence[str], address: str | None, token_file: pathlib.Path | None
) -> list[History]:
    """What jobs have to show, each named alone or by its group.

    Raises:
        JobError: There is no such job or group, or the cluster does not answer.
    """
    jobs = client(address, token_file)
    attempts = jobs.attempts()
    there = newest(attempts)
    chosen = {one.name: one for name in names for one in meant(there, name)}
    told = jobs.histories([one for one in attempts if one.name in chosen])
    return [
        dataclasses.replace(
            told.get(name, History(name)), name=name, status=attempt.state
        )
        for name, attempt in chosen.items()
    ]


def job(
    name: Name,
    file: Annotated[
        pathlib.Path | None, typer.Argument(metavar="[CONFIG]", help="A YAML file.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY.PATH=VALUE]...")
    ] = None,
) -> int:
    """Runs a job on the cluster: what was submitted there calls it.

    `pes submit` leaves the configuration in the environment; a manifest names a file.
    """
    config = _job_config(name, file, overrides or ())
    print(_whereabouts(name, os.environ.get(SENDER, "")), flush=True)
    os.environ[JOB] = name  # For the driver, which says under this name how it stands.
    folder = pathlib.Path(os.environ.get(RUNS) or "~/pes_runs").expanduser()
    directory = RunDirectory(folder / name)
    with tempfile.TemporaryDirectory() as scratch:
        file = pathlib.Path(scratch) / "config.yaml"
        file.write_text(run_config.to_yaml(config), encoding="utf-8")
        command = ["run", str(file), "--run-dir", str(directory.path)]
        _await_free(directory)
        code = supervise_run(command, config, directory)
    _tell_end(name, config, directory)
    return code


def client(address: str | None, token_file: pathlib.Path | None) -> "Jobs":
    """A client of the cluster that is meant.

    Raises:
        JobError: None is, or it does not answer, or refuses.
    """
    found = endpoint.find(address, token_file)
    endpoint.check(found)  # Before Ray is loaded, which takes seconds.
    from pes_cluster.ray_backend.jobs import Jobs

    return Jobs(found)


def directory_of(run: str, address: str | None) -> pathlib.Path | None:
    """The directory that a run is named by; None: it is a job's or a group's name.

    What is there, or looks like a path, is one; else what a cluster is named for, or
    where one is up, is a job.
    """
    path = pathlib.Path(run)
    if address is None and (path.exists() or len(path.parts) != 1):
        return path
    return None if address or cluster_is_named() else path


def cluster_is_named() -> bool:
    """Whether commands without an address know a cluster."""
    return bool(os.environ.get(endpoint.ADDRESS)) or service.running() is not None


def register(app: typer.Typer) -> None:
    """Adds the commands to an application."""
    commands: dict[str, Callable[..., Any]] = {
        "up": up,
        "down": down,
        "submit": submit,
        "list": list_jobs,
        "logs": logs,
    }
    for name, command in commands.items():
        app.command(name)(command)
    app.command("job", hidden=True)(job)


def _names(loaded: list[RunConfig], group: str, name: str | None) -> list[str]:
    if not loaded:
        raise JobError("submit: no configuration is named")
    if name is not None:
        if len(loaded) > 1:
            raise JobError(f"--name: {len(loaded)} configurations, but one name")
        return [name]
    names = [f"{group}.{config.name}" if group else config.name for config in loaded]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise JobError(f"{min(twice)}: two configurations of that name")
    return names


def _entry(attempt: Attempt, config: RunConfig, working_dir: pathlib.Path) -> Any:
    from pes_cluster.ray_backend.jobs import Entry

    return Entry(
        env={
            JOB: attempt.name,
            CONFIG: run_config.to_yaml(config),
            SENDER: _versions(),
            blame.SHOW: "1",  # The job's log is where one looks.
        },
        working_dir=working_dir,
        cluster=config.cluster,
    )


def _remark(line: str | None) -> None:
    if line is not None:
        print(f"pes: {line}", file=sys.stderr)


def _waited(jobs: "Jobs", submitted: dict[Attempt, Any], losses: int) -> int:
    """Waits for jobs; the status of the first that did not finish, or 0."""
    from pes_cluster.ray_backend.waiting import wait

    ended = wait(jobs, submitted, losses, lambda line: print(line, flush=True))
    unfinished = [attempt for attempt in ended if attempt.state != "finished"]
    return (unfinished[0].exit_code or FAILED) if unfinished else 0


def _versions() -> str:
    major, minor = sys.version_info[:2]
    return f"Python {major}.{minor}, pes_cluster {__version__}"


def _whereabouts(name: str, sender: str) -> str:
    """Where a job runs, and on what, if that is not what it was submitted from."""
    here = _versions()
    line = f"{name}: on {socket.gethostname()}, {here}"
    return f"{line}; submitted from {sender}" if sender not in ("", here) else line


def _await_free(directory: RunDirectory) -> None:
    """Waits for an earlier attempt that runs on behind a cut link."""
    end = time.monotonic() + FREE_SECONDS
    while directory.is_running() and time.monotonic() < end:
        time.sleep(1.0)


def _job_config(
    name: str, file: pathlib.Path | None, overrides: Sequence[str]
) -> RunConfig:
    if file is not None:
        return run_config.load(file, overrides)
    if CONFIG not in os.environ:
        raise JobError(f"{name}: pes submit starts jobs, on a cluster; or name a file")
    return run_config.parse(os.environ[CONFIG], CONFIG)


def _tell_end(name: str, config: RunConfig, directory: RunDirectory) -> None:
    """Leaves how the run ended, and what it has to show, in the job's log."""
    result = directory.read_result() or {}
    fields = {
        "phase": result.get("status", "failed"),
        "outer_step": result.get("outer_steps", 0),
        **{n: result.get(n) for n in ("loss", "eval_loss", "error")},
        **{n: result.get(n, 0) for n in ("inner_steps", "wall_seconds")},
    }
    ended = RunStatus(name=name, outer_steps=config.run.outer_steps, **fields)
    print(MARK + ended.to_json(), flush=True)
    with contextlib.suppress(RunDirectoryError):  # There may be nothing to show.
        history = dataclasses.replace(directory.history(), name=name)
        print(HISTORY + history.to_text(), flush=True)


def _submitted(attempt: Attempt) -> str:
    return "submitted" if attempt.number == 1 else f"goes on, attempt {attempt.number}"


def _seconds(attempt: Attempt) -> float | None:
    if attempt.began is None:
        return None
    return (attempt.ended or time.time()) - attempt.began


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < 2 else "right")
    return table
