"""What a job's log says to clients, and what to people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pes_cluster.cluster.marks import HISTORY, MARK, marked, spoken

LOG = f"step 1\n{MARK}{{}}\nsays {MARK}no\n{HISTORY}{'x' * 100}\n\nstep 2"
FOR_PEOPLE = f"step 1\nsays {MARK}no\n\nstep 2"


def test_each_mark_finds_its_own() -> None:
    assert marked(LOG) == ["{}"]
    assert marked(LOG, HISTORY) == ["x" * 100]


@given(st.lists(st.integers(0, len(LOG))))
def test_people_see_the_rest_however_it_comes(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(LOG)]
    parts = [LOG[a:b] for a, b in zip(ends, ends[1:], strict=False)]
    assert "".join(spoken(parts)) == FOR_PEOPLE


@pytest.mark.parametrize("log", ["", "\n", "a", f"{MARK}a", f"{HISTORY}a\n"])
def test_short_logs(log: str) -> None:
    told = "" if log.startswith((MARK, HISTORY)) else log
    assert "".join(spoken([log])) == told
