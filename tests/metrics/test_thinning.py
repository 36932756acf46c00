"""What stays of a run's records, whatever they are."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pes_cluster.metrics.thinning import every_nth, thinned

Record = dict[str, Any]
LOSSES = st.one_of(st.none(), st.floats(-1e6, 1e6))


@st.composite
def runs(draw: st.DrawFn) -> list[Record]:
    """Runs of up to 300 steps, evaluated every few, often or never."""
    steps = draw(st.integers(0, 300))
    every = draw(st.sampled_from([0, 1, 2, 7, 50]))
    losses = draw(st.lists(LOSSES, min_size=1, max_size=20))
    records = []
    for step, loss in zip(range(1, steps + 1), itertools.cycle(losses), strict=False):
        record: Record = {"outer_step": step, "loss": loss}
        if every and step % every == 0:
            record["eval_loss"] = float(step)
        records.append(record)
    return records


def of(records: list[Record], kept: list[Record]) -> list[Record]:
    """The records that were kept, as they came in."""
    by_step = {record["outer_step"]: record for record in records}
    return [by_step[record["outer_step"]] for record in kept]


@given(runs(), st.integers(4, 100))
def test_it_keeps_the_ends_and_never_too_many(
    records: list[Record], points: int
) -> None:
    kept = thinned(records, points)
    assert len(kept) <= points
    steps = [record["outer_step"] for record in kept]
    assert steps == sorted(set(steps))
    assert [
        record | was for record, was in zip(kept, of(records, kept), strict=True)
    ] == kept
    if records:
        assert steps[0] == 1 and steps[-1] == len(records)


@given(runs(), st.integers(4, 100))
def test_each_kind_keeps_a_power_of_two_and_no_less_than_it_must(
    records: list[Record], points: int
) -> None:
    kept = of(records, thinned(records, points))
    limit = points // 2 - 1
    for evaluated in (True, False):
        kind = [one for one in records if ("eval_loss" in one) is evaluated]
        stride = 1
        while len(kind[::stride]) > limit:
            stride *= 2
        expected = kind[::stride]
        left = [one for one in kept if ("eval_loss" in one) is evaluated]
        assert left in (expected, [*expected, *records[-1:]])


@given(runs(), st.integers(4, 100))
def test_what_is_kept_stands_for_all_the_records(
    records: list[Record], points: int
) -> None:
    kept = thinned(records, points)
    assert sum(record["steps"] for record in kept) == len(records)
    begin = 0
    for record in kept:
        stretch = records[begin : begin + record["steps"]]
        begin += record["steps"]
        assert stretch[-1]["outer_step"] == record["outer_step"]
        losses = [one["loss"] for one in stretch if one["loss"] is not None]
        mean = sum(losses) / len(losses) if losses else None
        assert record["mean_loss"] == pytest.approx(mean, abs=1e-6)


@given(runs(), st.integers(1, 300), st.integers(4, 50))
def test_a_longer_run_keeps_nothing_that_a_shorter_one_has_dropped(
    records: list[Record], length: int, points: int
) -> None:
    short = {one["outer_step"] for one in thinned(records[:length], points)}
    dropped = set(range(1, min(length, len(records)) + 1)) - short
    later = thinned(records, points)[:-1]  # The last one stays, whatever it is.
    assert not dropped & {one["outer_step"] for one in later}


def test_means_beside_a_huge_loss_keep_their_digits() -> None:
    losses = [3e15, *[0.1] * 999]
    kept = thinned(
        ({"outer_step": i, "loss": loss} for i, loss in enumerate(losses)), 10
    )
    assert kept[-1]["mean_loss"] == pytest.approx(0.1, rel=1e-12)


@given(st.integers(0, 300), st.integers(1, 40))
def test_every_nth(count: int, limit: int) -> None:
    lines = [{"number": number} for number in range(count)]
    kept = every_nth(lines, limit)
    stride = next(2**k for k in range(20) if len(lines[:: 2**k]) <= limit)
    assert kept == lines[::stride]
