"""`pes status`: how jobs, and the runs of directories, stand; once, or on and on."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from pes_cluster import status_view, terminal
from pes_cluster.cluster.job import Attempt, named, newest
from pes_cluster.cluster.status import RunStatus
from pes_cluster.job_commands import Address, TokenFile, client, directory_of
from pes_cluster.standing import Standing, of_directory, of_job

if TYPE_CHECKING:
    from pes_cluster.ray_backend.jobs import Jobs


def status(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME|RUN_DIR]...", help="By default all jobs."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on until all have ended.")
    ] = False,
    address: Address = None,
    token_file: TokenFile = None,
) -> None:
    """Show how jobs, or the runs of directories, stand."""
    paths = {name: directory_of(name, address) for name in names or ()}
    chosen = [name for name, path in paths.items() if path is None]
    folders = [path for path in paths.values() if path is not None]
    jobs = None if folders and not chosen else client(address, token_file)
    show = status_view.watch if watch else status_view.show
    with _looking(jobs, chosen, folders, watch) as look:
        show(look, terminal.console())


@contextlib.contextmanager
def _looking(
    jobs: "Jobs | None", names: list[str], folders: list[pathlib.Path], again: bool
) -> Iterator[Callable[[], list[Standing]]]:
    """What tells how jobs and the runs of folders stand; `again`: more than once."""

    def seen(rows: list[tuple[Attempt, RunStatus | None]]) -> list[Standing]:
        return [*map(of_directory, folders), *(of_job(*row) for row in rows)]

    if jobs is None:
        yield lambda: seen([])
    elif not again:
        there = newest(jobs.attempts())
        chosen = [named(there, name) for name in names or there]
        told = jobs.statuses(chosen)
        yield lambda: seen([(one, told.get(one.name)) for one in chosen])
    else:
        from pes_cluster.ray_backend.watching import Watch

        with contextlib.closing(Watch(jobs, names)) as watch:
            yield lambda: seen(watch.look())
