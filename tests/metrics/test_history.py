"""A run's history: bounded, and the same after a journey as text."""

import base64
import json
import pathlib
import zlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pes_cluster.metrics import history
from pes_cluster.metrics.history import Files, from_json, from_text, made, read

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
FIELD = st.one_of(st.none(), st.integers(-(2**62), 2**62), st.floats())
RECORDS = st.lists(
    st.fixed_dictionaries(
        {"outer_step": st.integers(1, 10**6)},
        optional={
            name: FIELD for name in ("loss", "eval_loss", "gradient_norm", "odd")
        },
    ),
    max_size=20,
)
EVENTS = st.lists(
    st.fixed_dictionaries(
        {"event": st.sampled_from(["lost", "checkpoint"]), "outer_step": JSON},
        optional={"time": JSON, "reason": JSON},
    ),
    max_size=20,
)


@settings(max_examples=50)
@given(st.text(), RECORDS, EVENTS)
def test_it_is_the_same_after_a_journey(
    name: str, records: list[dict[str, Any]], events: list[dict[str, Any]]
) -> None:
    result = {"status": "finished", "theta": {"a": [1.0, None], "b": 2}, "error": "x"}
    one = made(name, "task: {}", records, events, result)
    assert from_json(one.to_json()) == one
    assert from_text(one.to_text()) == one
    json.loads(one.to_json(), parse_constant=pytest.fail)
    assert "\n" not in one.to_json() + one.to_text()


def test_a_history_is_small_however_long_the_run() -> None:
    records = (
        {
            "outer_step": step,
            "wall_seconds": 0.123456 * step,
            "loss": 1.0 / 3 / step,
            "eval_loss": 2.0 / 7 / step if step % 10 == 0 else None,
            "gradient_norm": 1e-7 / step,
            **{f"of_the_users_{i}": 1.0 / step for i in range(50)},
        }
        for step in range(1, 50_001)
    )
    events = [
        {"event": kind, "outer_step": step, "time": 1e9, "reason": "x" * 10_000}
        for step in range(5000)
        for kind in ("lost", "recovered", "checkpoint")
    ]
    theta = {"weights": [[0.1] * 100] * 100, "few": [1.0, 2.0]}
    one = made("a", "task: {}", records, events, {"theta": theta})
    assert one.recorded == 50_000 and len(one.records) <= 500
    assert one.counts == {"lost": 5000, "recovered": 5000, "checkpoint": 5000}
    assert len(one.events) == history.EVENTS + 40  # 5000 / 2^7 checkpoints.
    assert one.events[-1]["outer_step"] == 4999
    weights, few = one.theta
    assert (weights.shape, weights.values) == ((100, 100), ())
    assert weights.mean == pytest.approx(0.1)
    assert (few.shape, few.values) == ((2,), (1.0, 2.0))
    assert len(one.to_json()) < 500_000 and len(one.to_text()) < 100_000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not base64!",
        base64.b64encode(b"not compressed").decode(),
        base64.b64encode(zlib.compress(b"{}")).decode(),
        base64.b64encode(zlib.compress(b'{"name": "a", "records": 3}')).decode(),
        base64.b64encode(zlib.compress(bytes(60_000_000))).decode(),
    ],
)
def test_what_is_no_history_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="^not a history$"):
        from_text(text)


def test_what_other_versions_add_is_passed_over() -> None:
    assert from_json('{"name": "a", "colour": "blue"}').name == "a"


def _files(folder: pathlib.Path) -> Files:
    names = ("config.yaml", "metrics.jsonl", "events.jsonl", "result.json")
    return Files(*(folder / name for name in names))


def test_a_run_that_goes_on_is_read_as_far_as_it_is(tmp_path: pathlib.Path) -> None:
    files = _files(tmp_path)
    with pytest.raises(FileNotFoundError):
        read("a", files)
    files.config.write_text("task: {}\n")
    assert read("a", files) == history.History("a", config="task: {}\n")
    files.metrics.write_text('{"outer_step": 1, "loss": null}\n{"outer_step": 2, "lo')
    files.events.write_text('{"event": "started", "outer_step": 0, "time": 1.5}\n')
    one = read("a", files)
    assert [record["outer_step"] for record in one.records] == [1]
    assert one.events == ({"event": "started", "outer_step": 0, "time": 1.5},)
    assert (one.status, one.theta) == ("unfinished", ())


@pytest.mark.parametrize("text", ["{", "[]", '{"theta": {"a": [[1], [2, 3]]}}'])
def test_a_result_that_is_not_understood_is_refused(
    tmp_path: pathlib.Path, text: str
) -> None:
    files = _files(tmp_path)
    files.config.write_text("task: {}\n")
    files.result.write_text(text)
    with pytest.raises(ValueError):
        read("a", files)
