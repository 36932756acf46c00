"""The command line: parse, call, print.

Exit status: 0 done; 1 the run failed; 2 wrong use; 75 failed, but for reasons of where
it ran, so that `pes resume` may go on; 128 + n stopped by signal n (130 Ctrl-C, 143
SIGTERM), after which `pes resume` goes on.
"""

import contextlib
import logging
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from pes_cluster import (
    __version__,
    blame,
    history_commands,
    job_commands,
    status_command,
    terminal,
)
from pes_cluster.cluster.control import (
    Command,
    CommandError,
    ControlFolder,
    Scale,
    Stop,
)
from pes_cluster.cluster.job import JobError
from pes_cluster.config import recipes, run_config
from pes_cluster.config.decode import ConfigError
from pes_cluster.core.task_error import TaskError
from pes_cluster.history_commands import short
from pes_cluster.job_commands import Address, TokenFile, directory_of
from pes_cluster.metrics.progress import reporter
from pes_cluster.ray_backend.service import ServiceError
from pes_cluster.run_directory import (
    DiskError,
    RunDirectory,
    RunDirectoryError,
    fresh,
)
from pes_cluster.supervision import RESTARTS, supervise_run
from pes_cluster.supervisor import FAILED, RESUMABLE, USAGE

if TYPE_CHECKING:
    from pes_cluster import runner

INTERRUPTED = 130

# Typer brings a Click of its own and names only this leaf of its wrong uses.
_UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    help="Meta-training with Persistent Evolution Strategies.",
    epilog="Exit status: 0 done, 1 the run failed, 2 wrong use, 75 failed where it ran "
    "and may be resumed, 130 or 143 stopped by a signal after a checkpoint; pes resume "
    "goes on.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
config_app = typer.Typer(help="Show configurations and what they may hold.")
app.add_typer(config_app, name="config")

ConfigFile = Annotated[
    pathlib.Path, typer.Argument(metavar="CONFIG", help="A YAML file.")
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY.PATH=VALUE]...", help="Override keys; YAML values."),
]
RunDir = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's directory, or a job's name.")
]
Wait = Annotated[float, typer.Option(min=0.0, help="Seconds to wait for its answer.")]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return int(app(arguments, prog_name="pes", standalone_mode=False) or 0)
    except DiskError as error:
        return _refuse(str(error), RESUMABLE)
    except (ConfigError, TaskError, RunDirectoryError, CommandError) as error:
        return _refuse(str(error))
    except (ServiceError, JobError) as error:
        return _refuse(str(error), FAILED)
    except _UsageError as error:
        return _refuse(error.format_message())
    except (typer.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:
        if error.filename is None or blame.is_theirs(error):
            return _unforeseen(error)
        return _refuse(f"{str(error.filename):.200}: {error.strerror}")
    except Exception as error:  # Of a task's own code, say, which may raise anything.
        return _unforeseen(error)


job_commands.register(app)
history_commands.register(app)
app.command("status")(status_command.status)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.")
    ] = False,
) -> None:
    """Meta-training with Persistent Evolution Strategies."""
    if version:
        print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


@app.command("run")
def run_command(
    config: ConfigFile,
    overrides: Overrides = None,
    run_dir: Annotated[
        pathlib.Path | None,
        typer.Option(help="Where to keep the run; one that is there is continued."),
    ] = None,
) -> int:
    """Run a configuration, or continue its run in a directory."""
    return _run(run_config.load(config, overrides or ()), run_dir)


@app.command("resume")
def resume_command(
    run: RunDir, address: Address = None, token_file: TokenFile = None
) -> int:
    """Continue a run from its newest checkpoint."""
    path = directory_of(run, address)
    if path is None:
        job_commands.resume_job(run, address, token_file)
        return 0
    return _run(RunDirectory(path).saved_config(), path)


@app.command("supervise")
def supervise_command(
    config: ConfigFile,
    overrides: Overrides = None,
    run_dir: Annotated[
        pathlib.Path | None,
        typer.Option(help="Where to keep the run; one that is there is continued."),
    ] = None,
    restarts: Annotated[
        int, typer.Option(min=0, help="Allowed without a newer checkpoint.")
    ] = RESTARTS,
) -> int:
    """Run a configuration, and start it again when its process dies."""
    settings = run_config.load(config, overrides or ())
    directory = RunDirectory(run_dir or fresh(settings.name))
    command = ["run", str(config), *(overrides or ())]
    command += ["--run-dir", str(directory.path)]
    return supervise_run(command, settings, directory, restarts)


@app.command("scale")
def scale_command(
    run: RunDir,
    particles: Annotated[
        int | None, typer.Option(help="Go on with so many; both signs counted.")
    ] = None,
    shards: Annotated[int | None, typer.Option(help="Go on with so many.")] = None,
    wait: Wait = 10.0,
    address: Address = None,
    token_file: TokenFile = None,
) -> int:
    """Change a live run's number of particles or shards."""
    command = Scale(particles, shards)
    path = directory_of(run, address)
    if path is None:
        job_commands.ask_job(run, command, wait, address, token_file)
        return 0
    return _ask(path, command, wait)


@app.command("stop")
def stop_command(
    run: RunDir,
    wait: Wait = 10.0,
    address: Address = None,
    token_file: TokenFile = None,
) -> int:
    """Stop a live run at its next step, with a checkpoint."""
    path = directory_of(run, address)
    if path is None:
        job_commands.stop_job(run, address, token_file)
        return 0
    return _ask(path, Stop(), wait)


@config_app.command("show")
def show_command(config: ConfigFile, overrides: Overrides = None) -> None:
    """Print a configuration in full, as it would be run."""
    print(run_config.to_yaml(run_config.load(config, overrides or ())), end="")


@config_app.command("list")
def list_command() -> None:
    """List the tasks, estimators, learners and optimisers by name."""
    kinds = {
        "task": recipes.TASK,
        "estimator": recipes.ESTIMATOR,
        "learner": recipes.LEARNER,
        "outer.optimizer": recipes.OPTIMIZER,
    }
    for section, kind in kinds.items():
        print(f"{section}: {', '.join(sorted(kind.registry))}")


def _run(config: run_config.RunConfig, run_dir: pathlib.Path | None) -> int:
    from pes_cluster import runner  # Loads JAX, which who only asks can do without.

    console = terminal.console()
    with _notes(console), reporter(config.run.outer_steps, console) as shown:
        result = runner.run(config, run_dir, on_record=shown.show)
    _print_result(result, console)
    match result.status:
        case "finished":
            return 0
        case "stopped":
            print(f"stopped; continue with: pes resume {short(result.run_dir)}")
            return 128 + (result.stopped_by or 2)
        case "failed":
            print(f"pes: {result.error}", file=sys.stderr)
            return RESUMABLE if result.resumable else FAILED


def _ask(run_dir: pathlib.Path, command: Command, seconds: float) -> int:
    """Hands a command to a live run, and prints its answer."""
    directory = RunDirectory(run_dir)
    directory.saved_config()
    folder = ControlFolder(directory.control)
    try:
        name = folder.ask(command)
    except OSError as error:
        raise directory.unwritable(error) from error
    answer = folder.wait(name, seconds)
    if answer is None and not directory.is_running() and folder.withdraw(name):
        return _refuse(f"{short(run_dir)}: no process is running it now")
    if answer is None:
        line = (
            f"no answer within {seconds:g} s; the run will {command} at its next step"
        )
        return _refuse(line, RESUMABLE)
    if not answer.done:
        return _refuse(answer.line, FAILED)
    print(answer.line)
    return 0


def _print_result(result: "runner.Result", console: Console) -> None:
    table = Table(show_header=False, box=box.SIMPLE)
    values = {
        "status": result.status,
        "eval loss": result.eval_loss,
        "window loss": result.loss,
        "outer steps": result.outer_steps,
        "inner steps": result.inner_steps,
        "seconds": result.wall_seconds,
        "theta sha256": result.theta_sha256[:16],
    }
    for name, value in values.items():
        table.add_row(name, terminal.number(value))
    console.print(table)
    chart = result.run_dir / "plots" / "loss.png"
    where = f"results: {short(result.run_dir)}"
    print(f"{where}  chart: {short(chart)}" if chart.exists() else where)


@contextlib.contextmanager
def _notes(console: Console) -> Iterator[None]:
    """Shows the package's own log above the progress while a run goes on."""
    handler = RichHandler(console=console, show_time=False, show_path=False)
    logger = logging.getLogger("pes_cluster")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _refuse(message: str, status: int = USAGE) -> int:
    print(f"pes: {' '.join(message.split())}", file=sys.stderr)
    return status


def _unforeseen(error: Exception) -> int:
    blame.show(error)
    return _refuse(blame.line(error), FAILED)
