"""The commands that show what runs have done: plot, compare, report."""

import datetime
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from pes_cluster import compare, job_commands, terminal, whole_file
from pes_cluster.job_commands import Address, TokenFile, directory_of
from pes_cluster.metrics.history import History
from pes_cluster.run_directory import RunDirectoryError, unwritable

# What the rows of a comparison show in a terminal; a page shows them all.
_COLUMNS = (
    "run",
    "status",
    "eval_loss",
    "loss",
    "outer_steps",
    "inner_steps",
    "particles",
    "seconds",
    "steps_per_second",
)

Runs = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN_DIR...|NAME|GROUP", help="Or jobs, or a group of them, by name."
    ),
]


def plot(
    run_dirs: Annotated[list[pathlib.Path], typer.Argument(metavar="RUN_DIR...")],
) -> None:
    """Draw the chart of each run."""
    for path in run_dirs:
        chart = path / "plots" / "loss.png"
        _written(chart, lambda path=path: compare.plot(path))
        print(f"chart: {short(chart)}")


def compare_runs(
    runs: Runs,
    out: Annotated[
        pathlib.Path | None, typer.Option(help="Where to put the chart, a PNG.")
    ] = None,
    address: Address = None,
    token_file: TokenFile = None,
) -> None:
    """Compare runs, or the jobs of a group, in a table and a chart."""
    histories, _, beside = _histories(runs, address, token_file)
    chart = out or beside("comparison.png")
    _written(chart, lambda: compare.chart(histories, chart))
    _print_rows(histories)
    print(f"chart: {short(chart)}")


def report(
    runs: Runs,
    out: Annotated[
        pathlib.Path | None, typer.Option(help="Where to put the page.")
    ] = None,
    address: Address = None,
    token_file: TokenFile = None,
) -> None:
    """Show a run, or several side by side, on one page of HTML."""
    from pes_cluster.report.page import page

    histories, title, beside = _histories(runs, address, token_file)
    if not any(history.records for history in histories):
        raise RunDirectoryError(f"{' '.join(runs)}: {compare.NO_RECORDS}")
    target = out or beside("report.html")
    made = page(histories, title, datetime.datetime.now(datetime.UTC))
    _written(target, lambda: whole_file.write(target, made))
    _print_rows(histories)
    print(f"results: {' '.join(runs)}  report: {short(target)}")


def register(app: typer.Typer) -> None:
    """Adds the commands to an application."""
    commands: dict[str, Callable[..., Any]] = {
        "plot": plot,
        "compare": compare_runs,
        "report": report,
    }
    for name, command in commands.items():
        app.command(name)(command)


def short(path: pathlib.Path) -> str:
    """Returns a path as seen from the working directory, where it lies below."""
    full, here = path.resolve(), pathlib.Path.cwd()
    return str(full.relative_to(here) if full.is_relative_to(here) else full)


def _histories(
    runs: Sequence[str], address: str | None, token_file: pathlib.Path | None
) -> tuple[list[History], str, Callable[[str], pathlib.Path]]:
    """What runs have to show, their title, and where a file goes that shows them.

    A single run has its own title, several that of what holds them: the folder that
    they lie in, or the names that jobs were asked for by. A file goes to a run's own
    directory, to that folder, and for jobs to the current one, their name before it.
    """
    paths = [directory_of(run, address) for run in runs]
    names = [run for run, path in zip(runs, paths, strict=True) if path is None]
    if not names:
        here = [path for path in paths if path is not None]
        histories = compare.read(here)
        alone = len(histories) == 1
        folder = here[0] if alone else compare.holder(here)
        title = histories[0].name if alone else folder.resolve().name
        return histories, title, lambda name: folder / name
    if len(names) < len(runs):
        raise RunDirectoryError(
            f"{names[0]}: is no run directory; compare either directories or jobs"
        )
    prefix = re.sub(r"[^\w.-]+", "_", "-".join(names))
    histories = job_commands.histories(names, address, token_file)
    title = histories[0].name if len(histories) == 1 else ", ".join(names)
    return histories, title, lambda name: pathlib.Path(f"{prefix}.{name}")


def _written(path: pathlib.Path, write: Callable[[], object]) -> None:
    try:
        write()
    except OSError as error:
        raise unwritable(path, error) from error


def _print_rows(histories: Sequence[History]) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for index, field in enumerate(_COLUMNS):
        justify = "left" if index < 2 else "right"
        heading = field.replace("_per_second", "/s").replace("_", " ")
        table.add_column(heading, justify=justify, no_wrap=True)
    for row in compare.rows(histories):
        table.add_row(*(terminal.number(getattr(row, field)) for field in _COLUMNS))
    terminal.console().print(table)
