"""Commands to a live run: understood, carried out, answered, kept by the checkpoint."""

import functools
import json
import pathlib
import threading
import time
from typing import Any

import pytest

from pes_cluster.cluster.checkpoint import CheckpointStore
from pes_cluster.cluster.control import (
    Answer,
    Asked,
    Command,
    CommandError,
    ControlFolder,
    Scale,
    Stop,
    from_json,
    to_json,
)
from pes_cluster.cluster.engine import PoolEngine
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.leaves import Arrays
from pes_cluster.cluster.local_pool import LocalPool
from pes_cluster.cluster.pool import Lost
from pes_cluster.cluster.settings import RunSettings
from pes_cluster.core.trees import sha256
from pes_cluster.metrics.record import StepRecord

from .scripted import OPTIMIZER, drive, local, work

COMMANDS: list[Command] = [Scale(8), Scale(shards=2), Scale(8, 2), Stop()]


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_survives_its_transport(command: Command) -> None:
    assert from_json(to_json(command)) == command


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "[]",
        "3",
        "{}",
        "null",
        "[" * 100_000,
        b"\xff\x00",
        '{"command": "dance"}',
        '{"command": []}',
        '{"command": "scale"}',
        '{"command": "scale", "particles": "8"}',
        '{"command": "scale", "particles": true}',
        '{"command": "scale", "particles": 8.0}',
        '{"command": "scale", "particles": 0}',
        '{"command": "scale", "particles": -8}',
        '{"command": "scale", "shards": 0}',
        '{"command": "scale", "particles": 8, "hosts": 2}',
        '{"command": "stop", "particles": 8}',
    ],
)
def test_what_is_no_command_is_refused_in_one_line(text: Any) -> None:
    with pytest.raises(CommandError) as raised:
        from_json(text)
    assert str(raised.value) and "\n" not in str(raised.value)


def engine(kind: type[PoolEngine]) -> Any:
    """An engine of a kind that answers some of the driver's questions itself."""
    job = work()
    return kind(LocalPool(job), job, OPTIMIZER, RunSettings())


class Taking(PoolEngine):
    """Takes note of how it is scaled, and does nothing; N in fours, at most 80."""

    lost: Lost | None = None

    @functools.cached_property
    def calls(self) -> list[Any]:
        return []

    def restore(self, blocks: dict[int, Arrays] | None, next_step: int) -> Lost | None:
        self.calls.append("restore")
        return super().restore(blocks, next_step)

    def scale(
        self, *, particles: int | None, shards: int | None, outer_step: int
    ) -> Lost | None:
        if particles is not None and (particles % 4 or particles > 80):
            raise ValueError(f"num_particles: {particles}\nis not in fours")
        asked = {"particles": particles, "shards": shards, "outer_step": outer_step}
        self.calls.append(asked)
        return self.lost


class LosingAShard(Taking):
    """Loses one while it is scaled."""

    lost = Lost(1, "its process died")


class Refusing(PoolEngine):
    """Cannot be scaled."""

    def scale(
        self, *, particles: int | None, shards: int | None, outer_step: int
    ) -> Lost | None:
        raise ValueError("no")


class Script:
    """Asks at given steps, and keeps the answers and events."""

    def __init__(self, **commands: Command | CommandError) -> None:
        self.answers: dict[str, Answer] = {}
        self.events: list[Event] = []
        self._left = commands
        self.step = 0

    def plan(self) -> dict[str, Any]:
        return {
            "commands": self._take,
            "on_event": self.events.append,
            "on_record": lambda record: setattr(self, "step", record.outer_step),
        }

    def _take(self) -> list[Asked]:
        name = f"after_{self.step}"
        if name not in self._left:
            return []

        def answer(given: Answer) -> None:
            self.answers[name] = given

        return [Asked(self._left.pop(name), answer)]

    def told(self) -> list[tuple[str, int]]:
        return [(event.kind, event.outer_step) for event in self.events]


def test_scaled_particles_are_durable_before_the_answer(tmp_path: pathlib.Path) -> None:
    elastic, script = engine(Taking), Script(after_7=Scale(40))
    outcome, _ = drive(elastic, tmp_path, **script.plan())
    asked = {"particles": 40, "shards": None, "outer_step": 7}
    assert elastic.calls == ["restore", asked]
    assert script.answers["after_7"] == Answer(
        True, "scaled to particles 40 after outer step 7"
    )
    told = script.told()
    assert told[told.index(("scaled", 7)) + 1] == ("checkpoint", 7)
    assert outcome.status == "finished"
    found, _ = CheckpointStore(str(tmp_path)).latest()
    assert found is not None and found.manifest.num_particles == 40


def test_a_scaled_run_is_resumed_with_its_particles(tmp_path: pathlib.Path) -> None:
    first = Script(after_7=Scale(40))
    drive(engine(Taking), tmp_path, outer_steps=9, **first.plan())
    elastic = engine(Taking)
    outcome, _ = drive(elastic, tmp_path)
    scaled = {"particles": 40, "shards": None, "outer_step": 9}
    assert elastic.calls == [scaled, "restore"] and outcome.status == "finished"
    found, _ = CheckpointStore(str(tmp_path)).latest()
    assert found is not None and found.manifest.num_particles == 40


@pytest.mark.parametrize("particles", [8, 40])
def test_a_run_scaled_and_killed_ends_with_the_bits_of_one_never_killed(
    tmp_path: pathlib.Path, particles: int
) -> None:
    """On real shards: three before, two after; blocks come or go at step 7."""
    whole, records = drive(
        local(shards=3), tmp_path / "whole", **Script(after_7=Scale(particles)).plan()
    )
    plain, _ = drive(local(), tmp_path / "plain")
    assert sha256(whole.theta) != sha256(plain.theta)
    script = Script(after_7=Scale(particles))

    def dies(record: StepRecord) -> None:
        script.step = record.outer_step
        if record.outer_step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plan = script.plan() | {"on_record": dies}
        drive(local(shards=3), tmp_path / "cut", **plan)
    resumed, rest = drive(local(shards=2), tmp_path / "cut")
    assert rest[0].outer_step == 8 and rest[0].particles == particles
    assert sha256(resumed.theta) == sha256(whole.theta)


def test_a_checkpoint_of_more_particles_than_can_be_had_is_named(
    tmp_path: pathlib.Path,
) -> None:
    drive(engine(Taking), tmp_path, **Script(after_7=Scale(40)).plan())
    outcome, _ = drive(local(), tmp_path, outer_steps=13)
    assert (outcome.status, outcome.resumable) == ("failed", False)
    assert outcome.error is not None and "manifest.json" in outcome.error


def test_shards_are_scaled_without_a_checkpoint(tmp_path: pathlib.Path) -> None:
    elastic, script = engine(Taking), Script(after_7=Scale(shards=3))
    drive(elastic, tmp_path, **script.plan())
    assert elastic.calls[1] == {"particles": None, "shards": 3, "outer_step": 7}
    assert script.answers["after_7"].done
    assert ("scaled", 7) in script.told() and ("checkpoint", 7) not in script.told()


@pytest.mark.parametrize("command", [Scale(6), Scale(84), CommandError("not a\none")])
def test_a_refusal_changes_nothing(
    tmp_path: pathlib.Path, command: Command | CommandError
) -> None:
    plain, _ = drive(local(), tmp_path / "plain")
    script = Script(after_7=command)
    outcome, _ = drive(engine(Taking), tmp_path / "asked", **script.plan())
    answer = script.answers["after_7"]
    assert not answer.done and answer.line and "\n" not in answer.line
    (refused,) = [event for event in script.events if event.kind == "refused"]
    assert refused.outer_step == 7 and refused.fields["reason"] == answer.line
    assert sha256(outcome.theta) == sha256(plain.theta)


def test_a_run_that_cannot_be_scaled_says_so(tmp_path: pathlib.Path) -> None:
    script = Script(after_1=Scale(40))
    drive(engine(Refusing), tmp_path, **script.plan())
    assert script.answers["after_1"] == Answer(False, "no")


def test_a_shard_lost_while_scaling_ends_the_driver(tmp_path: pathlib.Path) -> None:
    """Half scaled, only a new one knows where it stands; it does not ask again."""
    elastic, script = engine(LosingAShard), Script(after_7=Scale(40))
    outcome, _ = drive(elastic, tmp_path, **script.plan())
    assert (outcome.status, outcome.resumable, outcome.outer_step) == (
        "failed",
        True,
        7,
    )
    assert not script.answers["after_7"].done
    resumed, _ = drive(local(), tmp_path)
    assert resumed.status == "finished"


def test_stop_is_answered_once_the_checkpoint_stands(tmp_path: pathlib.Path) -> None:
    script = Script(after_7=Stop())
    outcome, _ = drive(local(), tmp_path, **script.plan())
    assert (outcome.status, outcome.outer_step) == ("stopped", 7)
    assert script.answers["after_7"] == Answer(True, "stopped after outer step 7")
    assert CheckpointStore(str(tmp_path)).steps() == [5, 7]


def test_who_asks_too_late_is_told(tmp_path: pathlib.Path) -> None:
    script = Script(after_12=Scale(40))
    drive(engine(Taking), tmp_path, **script.plan())
    assert script.answers["after_12"] == Answer(False, "the run finished")


def test_a_folder_carries_commands_and_answers(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "control"
    client, driver = ControlFolder(folder), ControlFolder(folder)
    assert driver.take() == []
    first, second = client.ask(Scale(8)), client.ask(Stop())
    asked = driver.take()
    assert [one.command for one in asked] == [Scale(8), Stop()]
    assert client.wait(first, 0) is None
    asked[0].answer(Answer(True, "done"))
    assert client.wait(first, 1) == Answer(True, "done")
    assert driver.take() == []  # What was taken once is not taken again.
    asked[1].answer(Answer(False, "too late"))
    assert client.wait(second, 1) == Answer(False, "too late")
    third = client.ask(Stop())
    assert client.withdraw(third) and not client.withdraw(first)
    assert driver.take() == [] and list(folder.iterdir()) == []


def test_a_command_over_which_a_driver_died_is_refused_by_the_next(
    tmp_path: pathlib.Path,
) -> None:
    folder = tmp_path / "control"
    client = ControlFolder(folder)
    name = client.ask(Scale(8))
    ControlFolder(folder).take()  # Killed before it answers.
    assert not client.withdraw(name)
    (asked,) = ControlFolder(folder).take()
    assert isinstance(asked.command, CommandError)
    asked.answer(Answer(False, "no"))
    assert client.wait(name, 0) == Answer(False, "no")
    assert ControlFolder(folder).take() == [] == list(folder.iterdir())


def test_a_command_that_nobody_has_taken_waits_for_the_next_driver(
    tmp_path: pathlib.Path,
) -> None:
    name = ControlFolder(tmp_path).ask(Scale(8))
    (asked,) = ControlFolder(tmp_path).take()
    assert asked.command == Scale(8)
    asked.answer(Answer(True, "done"))
    assert ControlFolder(tmp_path).wait(name, 0) == Answer(True, "done")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'{"command": "dance"}', None])
def test_a_file_that_is_no_command_is_answered_once(
    tmp_path: pathlib.Path, content: bytes | None
) -> None:
    folder = tmp_path / "control"
    folder.mkdir()
    path = folder / "command_000001_odd.json"
    path.mkdir() if content is None else path.write_bytes(content)
    driver = ControlFolder(folder)
    (asked,) = driver.take()
    assert isinstance(asked.command, CommandError)
    asked.answer(Answer(False, str(asked.command)))
    assert driver.take() == []
    assert not json.loads((folder / "answer_000001_odd.json").read_text())["done"]


def test_scratch_files_are_no_commands(tmp_path: pathlib.Path) -> None:
    (tmp_path / ".command_000001_a.json.123").write_text(to_json(Stop()))
    assert ControlFolder(tmp_path).take() == []


def test_many_ask_at_once(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "control"
    answers: list[Answer | None] = []

    def client() -> None:
        one = ControlFolder(folder)
        answers.append(one.wait(one.ask(Scale(8)), 20))

    clients = [threading.Thread(target=client) for _ in range(8)]
    for thread in clients:
        thread.start()
    driver, deadline = ControlFolder(folder), time.monotonic() + 20
    while len(answers) < 8 and time.monotonic() < deadline:
        for asked in driver.take():
            asked.answer(Answer(True, "done"))
        time.sleep(0.01)
    for thread in clients:
        thread.join(20)
    assert answers == [Answer(True, "done")] * 8
