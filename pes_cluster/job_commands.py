"""The commands of the service and of its jobs: parse, call, print.

Ray is loaded only by the commands that need it.
"""

import pathlib
from typing import Annotated

import typer

from pes_cluster.ray_backend import service


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


def register(app: typer.Typer) -> None:
    """Adds the commands to an application."""
    app.command("up")(up)
    app.command("down")(down)
