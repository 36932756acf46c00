"""What the driver does when checkpoints or blocks cannot be had; and what it tells."""

import dataclasses
import pathlib
import shutil
from typing import Any

import pytest

from pes_cluster.cluster import storage
from pes_cluster.cluster.checkpoint import CheckpointStore
from pes_cluster.cluster.engine import PoolEngine
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.phases import MAX_FALLS, Attempt, checkpoint_due
from pes_cluster.cluster.pool import Lost
from pes_cluster.cluster.storage import CheckpointError
from pes_cluster.core.trees import sha256

from .scripted import drive, local

GONE = Lost(1, "its copies died with it", resumable=True)


class Recorder:
    """Keeps the events of a run."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def of(self, kind: str) -> list[Event]:
        return [event for event in self.events if event.kind == kind]


@pytest.fixture
def told() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    outcome, _ = drive(local(), tmp_path_factory.mktemp("whole"))
    return sha256(outcome.theta)


def losing(*calls: int, method: str = "advance", lost: Lost = GONE) -> PoolEngine:
    """An engine whose calls of these numbers, from 1, are answered with a loss."""
    engine = local()
    original, made = getattr(engine, method), []

    def answer(*arguments: Any, **named: Any) -> Any:
        made.append(1)
        return lost if len(made) in calls else original(*arguments, **named)

    setattr(engine, method, answer)
    return engine


def telling(**answers: Any) -> PoolEngine:
    """An engine that answers `notice` or `events` from a script, one a call."""
    engine = local()
    for name, script in answers.items():
        left = iter(script)
        default: Any = [] if name == "events" else None
        setattr(engine, name, lambda left=left, default=default: next(left, default))
    return engine


def test_a_run_tells_what_befell_it(tmp_path: pathlib.Path, told: Recorder) -> None:
    drive(local(shards=2), tmp_path, on_event=told)
    assert told.kinds() == ["started", *["checkpoint"] * 3, "finished"]
    assert [event.outer_step for event in told.of("checkpoint")] == [5, 10, 12]
    assert told.events[0].fields == {"shards": 2}
    stored = sum(f.stat().st_size for f in tmp_path.glob("step_00000012/*.npz"))
    assert told.of("checkpoint")[-1].fields["bytes"] == stored
    again = Recorder()
    drive(local(), tmp_path, outer_steps=13, on_event=again)
    assert again.kinds() == ["resumed", "checkpoint", "finished"]
    assert again.events[0].outer_step == 12


def test_what_befell_the_shards_is_told_and_counted(
    tmp_path: pathlib.Path, told: Recorder
) -> None:
    lost = Event("lost", 2, {"shard": 1, "reason": "killed"}, time=5.0)
    back = Event("recovered", 2, {"shard": 1, "replayed": 7, "seconds": 0.5})
    engine = telling(events=[[], [], [], [lost, back], [dataclasses.replace(back)]])
    _, records = drive(engine, tmp_path, on_event=told)
    assert told.of("lost") == [lost] and len(told.of("recovered")) == 2
    assert records[0].extra["recovered"] == 0
    assert records[-1].extra["recovered"] == 2 and records[-1].extra["replayed"] == 14
    assert records[-1].extra["shards"] == 1
    # The count goes on in the next sitting.
    _, records = drive(local(), tmp_path, outer_steps=13)
    assert records[-1].extra["replayed"] == 14


def test_an_event_knows_when_it_was_made() -> None:
    assert "1970" not in str(Event("started", 0))
    line = Event("lost", 3, {"shard": 1, "reason": "cut"}, time=12.3456).to_json()
    assert line == (
        '{"time": 12.346, "event": "lost", "outer_step": 3, "shard": 1, '
        '"reason": "cut"}'
    )


@pytest.mark.parametrize(
    "calls, dropped", [((8,), [2]), ((3,), [2]), ((8, 9), [2, 0]), ((8, 15), [2, 1])]
)
def test_blocks_that_are_gone_come_back_from_the_durable_checkpoint(
    tmp_path: pathlib.Path,
    told: Recorder,
    whole: str,
    calls: tuple[int, ...],
    dropped: list[int],
) -> None:
    outcome, records = drive(losing(*calls), tmp_path, on_event=told)
    assert outcome.status == "finished" and sha256(outcome.theta) == whole
    assert [record.outer_step for record in records] == list(range(1, 13))
    assert outcome.inner_steps == records[-1].inner_steps == 12 * 5 * 8
    assert [event.fields["dropped"] for event in told.of("fell_back")] == dropped
    assert GONE.reason in str(told.of("fell_back")[0].fields["reason"])


@pytest.mark.parametrize("method", ["save", "restore"])
def test_a_loss_while_saving_or_starting_falls_back_too(
    tmp_path: pathlib.Path, told: Recorder, whole: str, method: str
) -> None:
    drive(local(), tmp_path, outer_steps=5)
    outcome, _ = drive(losing(1, method=method), tmp_path, on_event=told)
    assert sha256(outcome.theta) == whole and len(told.of("fell_back")) == 1


def test_a_start_that_had_to_be_repeated_takes_over_all_the_same(
    tmp_path: pathlib.Path, told: Recorder
) -> None:
    back = Event("recovered", 2, {"shard": 1, "replayed": 7})
    drive(telling(events=[[back]]), tmp_path, outer_steps=5)
    engine = losing(1, method="restore")
    _, records = drive(engine, tmp_path, outer_steps=6, on_event=told)
    assert told.kinds()[:2] == ["fell_back", "resumed"]
    assert told.events[0].fields["dropped"] == 0
    assert records[-1].extra["replayed"] == 7


def test_it_does_not_fall_back_for_ever(tmp_path: pathlib.Path, told: Recorder) -> None:
    outcome, _ = drive(losing(*range(8, 99)), tmp_path, on_event=told)
    assert (outcome.status, outcome.resumable) == ("failed", True)
    assert len(told.of("fell_back")) == MAX_FALLS
    assert outcome.error is not None and "`pes resume`" in outcome.error


def test_a_newer_checkpoint_refills_the_falls(
    tmp_path: pathlib.Path, told: Recorder, whole: str
) -> None:
    """Three falls at step 3, and three more after the checkpoint at 5."""
    losses = (3, 4, 5, 11, 12, 13)
    outcome, _ = drive(losing(*losses), tmp_path, on_event=told)
    assert sha256(outcome.theta) == whole and len(told.of("fell_back")) == 6


KINDS = ("driver", "manifest")  # Any other file of a checkpoint holds blocks.


class Disk:
    """A disk that refuses writes for a while."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        write = storage.write

        def refusing(folder: str, name: str, data: bytes) -> None:
            kind = name.partition("_")[0].removesuffix(".json")
            if self.full and (kind if kind in KINDS else "blocks") in self.refuses:
                raise CheckpointError(f"{folder}/{name}: cannot be written (full)")
            write(folder, name, data)

        self.refuses: tuple[str, ...] = ("blocks", *KINDS)
        monkeypatch.setattr(storage, "write", refusing)


@pytest.mark.parametrize("refused", ["blocks", *KINDS])
def test_a_checkpoint_that_fails_is_told_and_the_run_goes_on(
    tmp_path: pathlib.Path,
    told: Recorder,
    whole: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refused: str,
) -> None:
    disk = Disk(monkeypatch)
    disk.refuses = (refused,)

    def fill(record: Any) -> None:
        disk.full = 4 < record.outer_step < 9

    outcome, _ = drive(local(), tmp_path, on_event=told, on_record=fill)
    assert outcome.status == "finished" and sha256(outcome.theta) == whole
    assert [event.outer_step for event in told.of("checkpoint_failed")] == [5]
    assert [event.outer_step for event in told.of("checkpoint")] == [10, 12]
    assert len(caplog.messages) == 1 and "cannot be written" in caplog.messages[0]
    # What was half written is gone: the disk is full enough.
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step_00000010",
        "step_00000012",
    ]


@pytest.mark.parametrize("stop_after", [None, 7])
def test_a_run_does_not_end_well_without_its_last_checkpoint(
    tmp_path: pathlib.Path,
    told: Recorder,
    whole: str,
    monkeypatch: pytest.MonkeyPatch,
    stop_after: int | None,
) -> None:
    disk = Disk(monkeypatch)
    records: list[int] = []

    def record(one: Any) -> None:
        records.append(one.outer_step)
        disk.full = one.outer_step > 5

    stop = {"should_stop": lambda: len(records) == stop_after} if stop_after else {}
    outcome, _ = drive(local(), tmp_path, on_event=told, on_record=record, **stop)
    assert (outcome.status, outcome.resumable) == ("failed", True)
    assert outcome.error is not None and "cannot be written" in outcome.error
    assert told.kinds()[-2:] == ["checkpoint_failed", "failed"]
    assert CheckpointStore(str(tmp_path)).steps() == [5]
    disk.full = False
    resumed, _ = drive(local(), tmp_path)
    assert resumed.status == "finished" and sha256(resumed.theta) == whole


def test_a_store_that_cannot_be_listed_does_not_begin_anew(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(local(), tmp_path)
    before = sorted(tmp_path.rglob("*"))

    def refused(folder: str) -> list[str]:
        raise CheckpointError(f"{folder}: cannot be listed (timed out)")

    monkeypatch.setattr(storage, "names", refused)
    outcome, records = drive(local(), tmp_path)
    assert (outcome.status, outcome.resumable, records) == ("failed", True, [])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_that_may_come_back_is_no_reason_to_give_up(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive(local(), tmp_path)

    def refused(folder: str, name: str) -> bytes:
        raise storage.StoreError(f"{folder}/{name}: cannot be read (timed out)")

    monkeypatch.setattr(storage, "read", refused)
    outcome, records = drive(local(), tmp_path)
    assert (outcome.status, outcome.resumable, records) == ("failed", True, [])


def test_a_path_that_cannot_be_written_is_said_before_the_first_step(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "file").write_text("not a folder")
    outcome, records = drive(local(), tmp_path / "file" / "checkpoints")
    assert (outcome.status, records) == ("failed", [])
    assert outcome.error is not None and "cannot be written" in outcome.error


def test_a_notice_is_answered_by_one_checkpoint(
    tmp_path: pathlib.Path, told: Recorder
) -> None:
    notices = [None, None, *["the node drains"] * 40]
    drive(telling(notice=notices), tmp_path, every=100, on_event=told)
    assert [event.outer_step for event in told.of("checkpoint")] == [3, 12]


OK, FAILED = Attempt(100.0), Attempt(100.0, written=False)


@pytest.mark.parametrize(
    "step, minutes, last, now, notice, due",
    [
        (7, None, OK, 1e9, None, False),
        (10, None, OK, 100.0, None, True),
        (7, 2.0, OK, 219.0, None, False),
        (7, 2.0, OK, 220.0, None, True),
        (7, 2.0, FAILED, 219.0, None, False),
        (7, None, OK, 100.0, "drain", True),
        (7, None, dataclasses.replace(OK, notice="drain"), 1e9, "drain", False),
        (7, None, dataclasses.replace(FAILED, notice="drain"), 109.0, "drain", False),
        (7, None, dataclasses.replace(FAILED, notice="drain"), 110.0, "drain", True),
        (7, None, dataclasses.replace(OK, notice="drain"), 100.0, "another", True),
    ],
)
def test_when_a_checkpoint_is_due(
    step: int,
    minutes: float | None,
    last: Attempt,
    now: float,
    notice: str | None,
    due: bool,
) -> None:
    assert checkpoint_due(step, 5, minutes, last, now, notice) == due


def test_every_so_many_minutes(tmp_path: pathlib.Path, told: Recorder) -> None:
    """So short a time that every step is late."""
    drive(local(), tmp_path, every=100, checkpoint_minutes=1e-9, on_event=told)
    assert [event.outer_step for event in told.of("checkpoint")] == list(range(1, 13))


def test_lines_that_the_disk_refused_are_in_the_checkpoint(
    tmp_path: pathlib.Path,
) -> None:
    rewound: list[Any] = []
    drive(local(), tmp_path, outer_steps=5, settle=lambda: ("one", "two"))
    drive(local(), tmp_path, on_rewind=lambda *asked: rewound.append(asked))
    assert rewound == [(5, ("one", "two"))]


def test_with_checkpoints_in_memory_it_goes_on_too(whole: str) -> None:
    url = "memory://durability/run"
    drive(local(), url, outer_steps=7)
    outcome, records = drive(local(shards=3), url)
    assert records[0].outer_step == 8 and sha256(outcome.theta) == whole
    assert CheckpointStore(url).steps() == [10, 12]


def test_a_refused_checkpoint_goes_once_a_newer_one_stands(
    tmp_path: pathlib.Path,
) -> None:
    """It must not be counted among those that are kept."""
    drive(local(), tmp_path)
    (driver,) = tmp_path.glob("step_00000012/driver*")
    driver.write_bytes(b"")
    drive(local(), tmp_path, outer_steps=11)
    assert CheckpointStore(str(tmp_path)).steps() == [10, 11]


def test_what_a_killed_driver_left_half_written_goes(tmp_path: pathlib.Path) -> None:
    drive(local(), tmp_path, outer_steps=5)
    shutil.copytree(tmp_path / "step_00000005", tmp_path / "step_00000007")
    (tmp_path / "step_00000007" / "manifest.json").unlink()
    drive(local(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "step_00000010",
        "step_00000012",
    ]


def test_a_driver_that_was_replaced_deletes_nothing_newer(
    tmp_path: pathlib.Path,
) -> None:
    """One behind a cut link comes back, long after another has taken over."""
    folder = tmp_path / "shared"

    def overtaken(record: Any) -> None:
        if record.outer_step == 4:
            assert drive(local(), folder)[0].status == "finished"

    late, _ = drive(local(), folder, outer_steps=5, on_record=overtaken)
    assert late.status == "finished"
    found, refused = CheckpointStore(str(folder)).latest()
    assert found is not None and found.manifest.outer_step == 12 and refused == []
