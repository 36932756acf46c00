"""When a run ends because its pairs, or theta, are no longer numbers. Pure.

What becomes of a single diverged pair is the estimator's policy and happens inside its
block (`core.divergence`); here is what the driver makes of their number.
"""

import dataclasses
from collections.abc import Iterable

from pes_cluster.cluster.engine import Measured
from pes_cluster.core.divergence import Divergence

LIMIT = 0.5  # Of the pairs; from then on the rest is no sample of what theta does.
_NAMED = 8  # Pairs that a message names.


@dataclasses.dataclass(frozen=True)
class Watch:
    """What the driver knows of diverged pairs.

    Attributes:
        task: Name of the task, for messages.
        policy: The estimator's.
        since: The outer step from which on some pair diverged in every step.
    """

    task: str = ""
    policy: Divergence = "cap"
    since: int | None = None

    def totals(self) -> dict[str, float]:
        """What a checkpoint keeps; `go_on_from` takes it back."""
        return {"diverging_since": float(self.since or 0)}

    def go_on_from(self, totals: dict[str, float]) -> "Watch":
        """Returns the watch as it was at a checkpoint."""
        since = int(totals.get("diverging_since", 0))
        return dataclasses.replace(self, since=since or None)

    def over(
        self, outer_step: int, seen: Iterable[Measured]
    ) -> tuple["Watch", str | None]:
        """Goes on over the steps made since `outer_step`; says why the run ends."""
        watch = self
        for step, one in enumerate(seen, start=outer_step + 1):
            watch = watch.after(step, one.diverged)
            failure = watch.failure(step, one.diverged, one.pairs)
            if failure is not None:
                return watch, failure
        return watch, None

    def after(self, outer_step: int, diverged: tuple[int, ...]) -> "Watch":
        """Returns the watch after an outer step with these diverged pairs."""
        since = (self.since or outer_step) if diverged else None
        return dataclasses.replace(self, since=since)

    def failure(
        self, outer_step: int, diverged: tuple[int, ...], pairs: int
    ) -> str | None:
        """Returns why the run ends with this outer step, in one line, if it does.

        Args:
            outer_step: Updates done, the judged one included.
            diverged: Ids of the pairs whose losses were not finite.
            pairs: How many there are.
        """
        if not diverged:
            return None
        if self.policy == "fail":
            return (
                f"task {self.task}: the losses of {_named(diverged)} are not finite at "
                f"outer step {outer_step} (estimator.divergence: fail)"
            )
        if len(diverged) < LIMIT * pairs:
            return None
        return (
            f"task {self.task}: {len(diverged) / pairs:.0%} of the pairs "
            f"({len(diverged)} of {pairs}) have losses that are not finite at outer "
            f"step {outer_step}, some since outer step {self.since}; lower "
            "estimator.sigma or outer.optimizer.learning_rate"
        )


def _named(pairs: tuple[int, ...]) -> str:
    shown = ", ".join(str(pair) for pair in sorted(pairs)[:_NAMED])
    more = f" and {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    return f"pair{'s' if len(pairs) > 1 else ''} {shown}{more}"
