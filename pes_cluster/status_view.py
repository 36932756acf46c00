"""How runs stand, for people: a table, live on a terminal; lines anywhere else."""

import time
from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pes_cluster.cluster.status import RunStatus, seconds_left
from pes_cluster.standing import LEFT, Standing
from pes_cluster.terminal import number

HEADINGS = (
    *("job", "phase", "step", "loss", "eval loss", "particles", "shards"),
    *("recovered", "checkpoint", "steps/s", "ETA"),
)
SECONDS_BETWEEN_LINES = 10.0  # Of a job that only makes steps.

Look = Callable[[], Sequence[Standing]]

_STYLES = {"running": "green", "failed": "red", LEFT: "yellow", "stopped": "yellow"}
_NONE = "-"


def cells(standing: Standing, now: float) -> tuple[str, ...]:
    """The texts of a row, in the order of `HEADINGS`.

    Args:
        standing: How a run stands.
        now: Seconds since 1970.
    """
    first, seen = (standing.name, standing.phase), standing.seen
    if seen is None:
        return (*first, *[_NONE] * (len(HEADINGS) - len(first)))
    saved, left = seen.checkpoint_time, seconds_left(seen)
    return (
        *first,
        f"{seen.outer_step}/{seen.outer_steps}",
        number(seen.loss),
        number(seen.eval_loss),
        number(seen.particles),
        _shards(seen),
        number(seen.recovered),
        _NONE if saved is None else f"{duration(max(now - saved, 0.0))} ago",
        number(seen.steps_per_second),
        _NONE if left is None else duration(left),
    )


def table(standings: Sequence[Standing], now: float) -> Table:
    """How runs stand, a row each."""
    shown = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for index, heading in enumerate(HEADINGS):
        justify = "left" if index < 2 else "right"
        shown.add_column(heading, justify=justify, no_wrap=index == 1)
    for standing in standings:
        name, phase, *rest = cells(standing, now)
        row = [Text(name), Text(phase, _STYLES.get(phase, "")), *map(Text, rest)]
        if _lacks_shards(standing.seen):
            row[HEADINGS.index("shards")].stylize("yellow")
        shown.add_row(*row)
    return shown


def line(standing: Standing, now: float) -> str:
    """How a run stands, in one line; what is not known is left out."""
    name, phase, *rest = cells(standing, now)
    named = zip(HEADINGS[2:], rest, strict=True)
    known = [f"{heading} {text}" for heading, text in named if text != _NONE]
    return f"{name}: {'  '.join([phase, *known])}"


def remarks(standings: Sequence[Standing]) -> list[str]:
    """What is to be said below the table: why runs failed, and what goes on."""
    said = []
    for standing in standings:
        if standing.phase == "failed" and standing.seen and standing.seen.error:
            said.append(f"{standing.name}: {standing.seen.error}")
        if standing.phase == LEFT:
            goes_on = f"pes resume {standing.name} goes on"
            said.append(f"{standing.name}: no process is running it; {goes_on}")
    return said


def show(look: Look, console: Console) -> None:
    """Prints how runs stand."""
    standings = look()
    console.print(table(standings, time.time()))
    _remark(standings, console)


def watch(look: Look, console: Console, period: float = 1.0) -> None:
    """Shows how runs stand until all have ended, or Ctrl-C.

    Args:
        look: Tells how they stand now; never waits for long.
        console: A terminal gets a table that is brought up to date in its place,
            anything else a line for each run when something has changed.
        period: Seconds between two looks.
    """
    try:
        if console.is_terminal:
            _watch_live(look, console, period)
        else:
            _watch_in_lines(look, console, period)
    except KeyboardInterrupt:
        return  # How one leaves; the jobs go on.


def _watch_live(look: Look, console: Console, period: float) -> None:
    standings = look()
    with Live(table(standings, time.time()), console=console, auto_refresh=False) as on:
        while True:
            on.update(table(standings, time.time()), refresh=True)
            if not any(standing.live for standing in standings):
                break
            time.sleep(period)
            standings = look()
    _remark(standings, console)


def _watch_in_lines(look: Look, console: Console, period: float) -> None:
    changes = Changes()
    while True:
        standings = look()
        for standing in changes.among(standings, time.monotonic()):
            console.out(line(standing, time.time()), highlight=False)
        if not any(standing.live for standing in standings):
            break
        time.sleep(period)
    _remark(standings, console)


def _remark(standings: Sequence[Standing], console: Console) -> None:
    for said in remarks(standings):
        console.print(Text(said, "yellow"), soft_wrap=True)


class Changes:
    """Which runs have changed enough since they were last told of.

    Another phase, another number of particles or shards, a recovery: at once. Steps:
    every `SECONDS_BETWEEN_LINES`.
    """

    def __init__(self) -> None:
        self._told: dict[str, tuple[tuple[object, ...], int, float]] = {}

    def among(self, standings: Sequence[Standing], now: float) -> list[Standing]:
        """Those to tell of now (seconds of any clock); they count as told."""
        return [standing for standing in standings if self._changed(standing, now)]

    def _changed(self, standing: Standing, now: float) -> bool:
        seen = standing.seen
        step = seen.outer_step if seen else 0
        state = (standing.phase, seen is None)
        if seen is not None:
            state += (seen.particles, seen.shards, seen.shards_target, seen.recovered)
        before, told_step, at = self._told.get(standing.name, ((), -1, 0.0))
        moved = step != told_step and now - at >= SECONDS_BETWEEN_LINES
        if state == before and not moved:
            return False
        self._told[standing.name] = (state, step, now)
        return True


def duration(seconds: float) -> str:
    """Seconds in the unit that people would use: 45 s, 12 min, 7.5 h, 3.1 d."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 120 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} d"


def _shards(seen: RunStatus) -> str:
    if seen.shards is None or seen.shards_target is None:
        return number(seen.shards)
    return f"{seen.shards}/{seen.shards_target}"


def _lacks_shards(seen: RunStatus | None) -> bool:
    if seen is None or seen.shards is None or seen.shards_target is None:
        return False
    return seen.shards < seen.shards_target
