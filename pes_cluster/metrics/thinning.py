"""Which records of a long run are kept to show it by.

The rule: the first and the last; of the evaluated steps every 2^a-th, and of the others
every 2^b-th, with the smallest a and b that leave either kind less than half of the
points. So a run that has few enough of both keeps them all, and a longer run keeps no
step that a shorter one has dropped. One pass in bounded memory, whatever the length.
"""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

Line = dict[str, Any]

POINTS = 500
MEANS = ("loss", "gradient_norm", "accumulator_norm")


@dataclasses.dataclass
class Mean:
    """A mean that others can be added to."""

    total: float = 0.0
    count: int = 0

    @property
    def value(self) -> float | None:
        """The mean so far; None where there is no number."""
        mean = self.total / self.count if self.count else math.nan
        return mean if math.isfinite(mean) else None

    def add(self, number: float | None) -> None:
        """Takes a number in; None is passed over."""
        if number is not None:
            self.total += number
            self.count += 1

    def merge(self, other: "Mean") -> None:
        """Takes in what another has seen."""
        self.total += other.total
        self.count += other.count


@dataclasses.dataclass
class Stretch:
    """Records that follow one another: how many they are, and their means."""

    steps: int = 0
    means: dict[str, Mean] = dataclasses.field(
        default_factory=lambda: {name: Mean() for name in MEANS}
    )

    def add(self, record: Line) -> None:
        """Takes the next record in."""
        self.steps += 1
        for name, mean in self.means.items():
            mean.add(record.get(name))

    def merge(self, other: "Stretch") -> None:
        """Takes in the records of another."""
        self.steps += other.steps
        for name, mean in self.means.items():
            mean.merge(other.means[name])

    def told(self) -> Line:
        """What a record says that stands for them all."""
        means = {f"mean_{name}": mean.value for name, mean in self.means.items()}
        return {"steps": self.steps} | means


class Kind:
    """Numbers the records of one kind, and says which of them stay."""

    def __init__(self, limit: int) -> None:
        self._limit, self._stride, self._seen, self._kept = limit, 1, 0, 0

    def next(self) -> int | None:
        """The number of the next record, if it is kept for now."""
        number, self._seen = self._seen, self._seen + 1
        if number % self._stride:
            return None
        self._kept += 1
        return number

    @property
    def is_full(self) -> bool:
        """Whether more are kept than may be; then the stride doubles."""
        return self._kept > self._limit

    def double(self) -> None:
        """Keeps half of them from now on."""
        self._stride *= 2
        self._kept = (self._kept + 1) // 2

    def keeps(self, number: int) -> bool:
        """Whether a record that was kept once is kept still."""
        return number % self._stride == 0


@dataclasses.dataclass
class _Entry:
    record: Line
    kind: Kind
    number: int
    stretch: Stretch  # The records since the entry before, its own included.


def thinned(records: Iterable[Line], points: int = POINTS) -> list[Line]:
    """Returns at most so many of a run's records, by the rule above.

    Each stands for the records since the one before it that is kept: it gains how many
    these are, its own included, as `steps`, and their means as `mean_loss`,
    `mean_gradient_norm` and `mean_accumulator_norm`; None where there is no number.

    Args:
        records: Of one run, in order.
        points: At least 4.
    """
    evaluated, others = Kind(points // 2 - 1), Kind(points // 2 - 1)
    entries: list[_Entry] = []
    pending = Stretch()
    last: Line | None = None
    for last in records:
        pending.add(last)
        kind = others if last.get("eval_loss") is None else evaluated
        number = kind.next()
        if number is None:
            continue
        entries.append(_Entry(last, kind, number, pending))
        pending = Stretch()
        if kind.is_full:
            kind.double()
            entries, pending = _without(entries, kind)
    if last is not None and entries[-1].record is not last:
        entries.append(_Entry(last, others, 0, pending))
    return [entry.record | entry.stretch.told() for entry in entries]


def every_nth(lines: Iterable[Line], limit: int) -> list[Line]:
    """Returns at most so many lines: every 2^k-th, with the smallest k."""
    kind = Kind(limit)
    kept: list[tuple[int, Line]] = []
    for line in lines:
        number = kind.next()
        if number is not None:
            kept.append((number, line))
        if kind.is_full:
            kind.double()
            kept = [one for one in kept if kind.keeps(one[0])]
    return [line for _, line in kept]


def _without(entries: list[_Entry], kind: Kind) -> tuple[list[_Entry], Stretch]:
    """Drops what a kind keeps no longer; the next entry stands for it too."""
    left: list[_Entry] = []
    pending = Stretch()
    for entry in entries:
        pending.merge(entry.stretch)
        # The first record of all stays, being the first of its kind.
        if entry.kind is not kind or kind.keeps(entry.number):
            left.append(dataclasses.replace(entry, stretch=pending))
            pending = Stretch()
    return left, pending
