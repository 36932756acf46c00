"""A page shows what there is, whatever it is called, and asks for nothing else."""

import dataclasses
import datetime
import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pes_cluster.metrics.history import History
from pes_cluster.report.elements import plain
from pes_cluster.report.page import page
from tests.report.reading import Reader
from tests.report.samples import history

NOW = datetime.datetime(2030, 1, 2, 3, 4, tzinfo=datetime.UTC)
EVIL = (
    "<script>alert(1)</script><img src=x onerror='alert(2)'>\"</style></title>&amp;$x$"
)


def read(*histories: History, title: str = "runs") -> Reader:
    return Reader(page(histories, title, NOW))


def test_a_run_and_all_that_there_is_to_say_of_it() -> None:
    seen = read(history("first"), title="first")
    text = " ".join(text for _, text in seen.texts)
    for said in (
        "Vicol, Metz, Sohl-Dickstein, ICML 2021, Algorithm 2",
        "toy_regression",
        "finished",
        "0.3",
        "200,000",
        "01234567",
        "2.5, -1.25",
        "lost and recovered",
        "5.5 s",
        "driver lost and resumed",
        "not recovered",
        "2.05 kB",
        "2030-01-02 03:04 UTC",
    ):
        assert said in text
    assert seen.tags.count("h1") == 1 and seen.values("lang") == ["en"]
    assert seen.of("title") == ["first – report"]
    assert seen.tags.count("figure") == 5  # Four charts and the timeline.


def test_secrets_of_the_environment_are_not_shown() -> None:
    made = page([history()], "a", NOW)
    assert "hush" not in made and "TOKEN: (not shown)" in made


def test_several_runs_are_side_by_side_and_each_alone() -> None:
    names = ["pes", "nres", "tbptt"]
    seen = read(*(history(name, 10, estimator=name) for name in names))
    assert seen.tags.count("section") == 3
    assert seen.tags.count("figure") == 4 + 3 * 5
    assert [value for value in seen.values("href") if value.startswith("#run-")] == [
        "#run-0",
        "#run-1",
        "#run-2",
    ]
    assert "estimator.type" in seen.of("code")
    assert "task.type" not in seen.of("code")  # It does not differ.


def test_whoever_cannot_see_it_can_read_it() -> None:
    seen = read(history("a"), history("b"))
    charts = [v for t, n, v in seen.attributes if (t, n, v) == ("svg", "role", "img")]
    labels = [v for t, n, v in seen.attributes if t == "svg" and n == "aria-label"]
    assert len(labels) == len(charts) > 0 and all(len(label) > 20 for label in labels)
    assert any("a from " in label and "b from " in label for label in labels)
    for table in re.findall(r"<table>.*?</table>", page([history()], "a", NOW), re.S):
        assert (
            "<caption>" in table and 'scope="col"' in table and 'scope="row"' in table
        )
    levels = [int(tag[1]) for tag in seen.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b - a <= 1 for a, b in zip(levels, levels[1:], strict=False))
    ids = seen.values("id")
    assert len(ids) == len(set(ids))
    assert set(seen.values("for")) <= set(ids)


def test_it_names_nothing_outside_itself() -> None:
    made = page([history("a"), history("b")], "runs", NOW)
    seen = Reader(made)
    assert "http:" not in made and "https:" not in made and "@import" not in made
    links = seen.values("href", "src", "srcset", "action", "data", "poster")
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)", made))
    targets = {link[1:] for link in links if link.startswith("#")}
    assert targets <= set(seen.values("id"))
    assert "script" not in seen.tags


def evil(text: str) -> dict[str, Any]:
    return {
        "config": f"task: {{type: {json.dumps(plain(text))}}}\n",
        "events": [
            {"event": text, "outer_step": 1, "time": 1.0, "node": text},
            {"event": "lost", "outer_step": 1, "shard": text, "reason": text},
        ],
        "result": {
            "status": text,
            "error": text,
            "theta": {text: [1.0]},
            "theta_sha256": text,
        },
    }


@pytest.mark.parametrize("steps", [0, 20])
def test_markup_in_a_text_stays_text(steps: int) -> None:
    seen = read(history(EVIL, steps, **evil(EVIL)), title=EVIL)
    twin = read(history("word", steps, **evil("word")), title="word")
    assert seen.tags == twin.tags
    names = [(tag, name) for tag, name, _ in seen.attributes]
    assert names == [(tag, name) for tag, name, _ in twin.attributes]
    assert EVIL in seen.of("h1") and EVIL in seen.of("p")


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(codec=None), min_size=1, max_size=60))
def test_any_text_stays_text_and_can_be_written(text: str) -> None:
    made = page([history(text, 0, **evil(text), records=[])], text, NOW)
    made.encode("utf-8")
    seen = Reader(made)
    twin = read(history("x", 0, **evil("x"), records=[]), title="x")
    if plain(text).strip():
        assert seen.tags == twin.tags


@pytest.mark.parametrize(
    "changed",
    [
        {"records": []},
        {"records": [{"outer_step": 1, "loss": None}]},
        {"records": [{"outer_step": 1, "loss": 1.0, "eval_loss": 2.0}]},
        {"records": [{"outer_step": None, "loss": "odd", "inner_steps": "odd"}]},
        {"events": []},
        {"events": [{"event": "resumed"}, {"event": "lost"}, {"event": "recovered"}]},
        {"events": [{"event": "failed", "time": 1e300, "outer_step": "odd"}]},
        {"config": ""},
        {"config": "- not\n- a mapping\n"},
        {"config": "{not yaml"},
        {"config": "cluster: 3\n"},
        {"config": "estimator: {type: [1], sigma: {initial: 1.0, rate: 0.5}}\n"},
        {"result": {}},
        {"result": {"theta": {}, "status": None}},
    ],
)
def test_whatever_is_missing_or_odd_there_is_a_page(changed: dict[str, Any]) -> None:
    read(history("a", **({"records": []} | changed)))
    read(history("a", **({"records": []} | changed)), history("b", records=[]))


@pytest.mark.parametrize(
    ("count", "size"),
    [(1, 100_000), (3, 300_000), pytest.param(16, 1_000_000, marks=pytest.mark.slow)],
)
def test_long_runs_and_many_make_no_large_page(count: int, size: int) -> None:
    long = history("a", 3000)
    many = [dataclasses.replace(long, name=f"run {place}") for place in range(count)]
    assert len(page(many, "runs", NOW)) < size


def test_the_same_histories_make_the_same_page() -> None:
    short = history("a", 10)
    assert page([short], "a", NOW) == page([short], "a", NOW)
