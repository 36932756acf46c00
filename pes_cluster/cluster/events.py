"""What befell a run, as values; the run directory keeps them in `events.jsonl`.

```text
started, resumed        shards
lost                    shard, node, reason
recovered               shard, node, replayed, seconds
joined, drained, moved  node, blocks
scaled                  particles, shards
refused                 command, reason
checkpoint              seconds, bytes
checkpoint_failed       reason
fell_back               reason, dropped: back to the newest durable checkpoint
stopped, finished
failed                  reason
```
"""

import dataclasses
import json
import time
from typing import Any

Field = str | int | float


@dataclasses.dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
        kind: One of the words above.
        outer_step: Updates done when it happened.
        fields: What else is to be said of it.
        time: When it was noticed, in seconds since 1970; not when it was written.
    """

    kind: str
    outer_step: int
    fields: dict[str, Field] = dataclasses.field(default_factory=dict)
    time: float = dataclasses.field(default_factory=time.time)

    def to_json(self) -> str:
        """Returns one line of JSON."""
        head = {
            "time": round(self.time, 3),
            "event": self.kind,
            "outer_step": self.outer_step,
        }
        return json.dumps(head | self.fields)


def from_line(fields: dict[str, Any]) -> Event:
    """Returns the event of a line of `events.jsonl`.

    Raises:
        ValueError: It is no event's.
    """
    rest = dict(fields)
    try:
        kind, outer_step = str(rest.pop("event")), int(rest.pop("outer_step"))
        return Event(kind, outer_step, rest, float(rest.pop("time")))
    except (KeyError, TypeError, ValueError):
        raise ValueError("not an event") from None
