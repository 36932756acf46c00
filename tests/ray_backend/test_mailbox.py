"""A driver's mailbox on a real Ray: status out, commands in, answers out."""

import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import ray

from pes_cluster.cluster.control import Answer, CommandError, Scale, Stop, to_json
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.status import RunStatus, from_json
from pes_cluster.metrics.history import Files, from_text
from pes_cluster.metrics.record import StepRecord
from pes_cluster.ray_backend import inquiry, mailbox
from pes_cluster.ray_backend.mailbox import NAMESPACE, Mailbox, Post, post_name

pytestmark = pytest.mark.ray
STEP = StepRecord(4, 40, 2.0, 3.0, None, 1.0, 8, {"shards": 2})


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    monkeypatch.setattr(mailbox, "LINGER", 0.5)
    opened = Mailbox(RunStatus("a", 100))
    yield opened
    opened.close()


def eventually(look: Callable[[], Any]) -> Any:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError("never")


def hand_in(name: str, text: str) -> Any:
    post: Any = ray.get_actor(post_name("a"), namespace=NAMESPACE)
    ray.get(post.ask.remote(name, text))
    return post


def test_a_post_gives_each_command_and_each_answer_once() -> None:
    post = Post()
    post.ask("1", "x")
    post.ask("2", "y")
    assert post.exchange("s", {}) == ([("1", "x"), ("2", "y")], 0)
    assert post.exchange("t", {"1": Answer(True, "z")}) == ([], 1)
    assert (post.answer("2"), post.answer("1")) == (None, Answer(True, "z"))
    assert post.answer("1") is None and post.status() == "t"


def test_who_asks_sees_how_the_run_stands(box: Mailbox) -> None:
    box.on_event(Event("started", 0))
    box.on_record(STEP)

    def seen() -> bool:
        found = [from_json(line) for line in inquiry.status(["a", "absent"])]
        return [(one.name, one.outer_step, one.shards) for one in found] == [
            ("a", 4, 2)
        ]

    eventually(seen)


def test_who_watches_sees_all_runs_come_and_go(box: Mailbox) -> None:
    looks = inquiry.watch([], seconds=60.0)
    eventually(lambda: [from_json(line).name for line in next(looks)] == ["a"])
    later = Mailbox(RunStatus("b", 7))
    try:
        both = {"a": 100, "b": 7}
        found = (from_json(line) for line in eventually(lambda: inquiry.status([])))
        assert {one.name: one.outer_steps for one in found} == both
    finally:
        later.close()
    eventually(lambda: [from_json(line).name for line in next(looks)] == ["a"])
    assert list(inquiry.watch([], seconds=0.0)) == []


def test_commands_come_in_order_and_are_answered(box: Mailbox) -> None:
    for name, command in (("1", Scale(particles=8)), ("2", Stop())):
        post = hand_in(name, to_json(command))
    hand_in("3", "nonsense")
    taken: list[Any] = []
    eventually(lambda: taken.extend(box.take()) or len(taken) == 3)
    assert [asked.command for asked in taken[:2]] == [Scale(particles=8), Stop()]
    assert isinstance(taken[2].command, CommandError)
    taken[0].answer(Answer(True, "scaled"))
    assert eventually(lambda: ray.get(post.answer.remote("1"))).line == "scaled"
    assert box.take() == []


def test_a_post_reads_what_the_run_has_to_show_beside_its_other_work(
    tmp_path: pathlib.Path,
) -> None:
    """The file of metrics is a pipe, so that reading it takes as long as we like."""
    files = Files(*(tmp_path / name for name in ("config", "metrics", "e", "r")))
    files.config.write_text("task: {type: toy_regression}\n")
    os.mkfifo(files.metrics)
    box = Mailbox(RunStatus("c", 100), files)
    try:
        post: Any = ray.get_actor(post_name("c"), namespace=NAMESPACE)
        call = post.history.remote()
        with files.metrics.open("w") as metrics:
            box.on_record(STEP)
            eventually(lambda: '"outer_step": 4' in inquiry.status(["c"])[0])
            metrics.write(STEP.to_json() + "\n")
        told = from_text(ray.get(call, timeout=20))
        assert (told.name, told.recorded) == ("c", 1)
        assert told.records[0]["loss"] == 3.0
        assert told.config == "task: {type: toy_regression}\n"
    finally:
        box.close()


def test_a_run_without_a_post_or_files_shows_nothing(box: Mailbox) -> None:
    assert inquiry.history(["a", "absent"]) == []


def test_a_command_without_an_answer_in_time(box: Mailbox) -> None:
    assert inquiry.ask("a", to_json(Stop()), 0.5) is None


def test_a_run_that_is_not_there_is_told(box: Mailbox) -> None:
    answer = inquiry.ask("absent", to_json(Stop()), 0.5)
    assert answer is not None and not answer.done and "absent" in answer.line


def test_a_post_that_is_killed_is_replaced(box: Mailbox) -> None:
    eventually(lambda: inquiry.status(["a"]))
    ray.kill(ray.get_actor(post_name("a"), namespace=NAMESPACE))
    box.on_record(STEP)
    (line,) = eventually(lambda: inquiry.status(["a"]))
    assert from_json(line).outer_step == 4
    hand_in("1", to_json(Stop()))
    (asked,) = eventually(box.take)
    assert asked.command == Stop()


def test_what_an_earlier_driver_left_is_replaced() -> None:
    left = mailbox._opened("b")
    ray.get(left.ask.remote("1", to_json(Stop())))
    later = Mailbox(RunStatus("b", 7))
    try:
        (line,) = eventually(lambda: inquiry.status(["b"]))
        assert from_json(line).outer_steps == 7
        assert later.take() == []
    finally:
        later.close()
