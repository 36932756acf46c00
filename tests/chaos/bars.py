"""How long single faults hold up a run, by the size of its state, against the bars."""

from collections.abc import Sequence

from tests.chaos.measure import Row, table
from tests.chaos.schedule import DRIVER_KILLED, HOST_CUT, SHARD_KILLED, Fault, Plan

BARS = {SHARD_KILLED: 3.0, HOST_CUT: 10.0, DRIVER_KILLED: 15.0}
COLUMNS = (
    "fault",
    "MB a shard",
    "detected s",
    "recovered s",
    "replayed",
    "bar s",
    "met",
)
SMALL = 1.5  # MB of state a shard up to which the bars hold; 1 MB, and file headers.
CUT_SECONDS = 12.0
FIRST_STEP = 25  # Time for a first snapshot.

# (hidden units, particles, inner steps a window, batch size) for about so many MB.
SIZES = {1: (32, 128, 10, 32), 10: (68, 512, 4, 4), 100: (280, 512, 1, 1)}
OFTEN = (SHARD_KILLED, HOST_CUT, DRIVER_KILLED, SHARD_KILLED, HOST_CUT, SHARD_KILLED)
ONCE = (SHARD_KILLED, HOST_CUT)


def plans() -> list[Plan]:
    """One endless run for each size."""
    return [
        Plan(
            f"{megabytes} MB",
            tuple(
                Fault(kind, FIRST_STEP, draw=index / 8, seconds=CUT_SECONDS)
                for index, kind in enumerate(OFTEN if megabytes == 1 else ONCE)
            ),
            _overrides(*sizes),
            one_by_one=True,
        )
        for megabytes, sizes in SIZES.items()
    ]


def report(measured: Sequence[tuple[float, Row]]) -> tuple[str, bool]:
    """A table, and whether all bars are met.

    Args:
        measured: MB of state a shard, and what a fault cost.
    """
    lines, all_met = [], True
    for megabytes, row in measured:
        kind = row.injection.kind
        bar = BARS[kind] if megabytes <= SMALL or kind == DRIVER_KILLED else None
        met = None if bar is None else row.recovered is not None and row.recovered < bar
        all_met = all_met and met is not False
        said = {None: None, True: "yes", False: "NO"}[met]
        lines.append(
            (kind, megabytes, row.detected, row.recovered, row.replayed, bar, said)
        )
    return table(COLUMNS, lines), all_met


def _overrides(
    hidden: int, particles: int, window: int, batch_size: int
) -> tuple[str, ...]:
    return (
        f"task.hidden=[{hidden},{hidden}]",
        f"task.batch_size={batch_size}",
        f"estimator.num_particles={particles}",
        f"estimator.pairs_per_block={particles // 16}",
        f"estimator.truncation_length={window}",
        "run.outer_steps=1000000",
        "run.eval_every=0",
    )
