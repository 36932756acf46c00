"""Scalars for TensorBoard, read back as TensorBoard reads them."""

import dataclasses
import logging
import pathlib
import struct
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tensorboardX.proto import event_pb2

from pes_cluster import runner
from pes_cluster.cli import main
from pes_cluster.config.decode import ConfigError
from pes_cluster.config.run_config import RunConfig, digest, load
from pes_cluster.metrics import jsonl, tensorboard
from pes_cluster.metrics.record import StepRecord
from pes_cluster.metrics.tensorboard import Scalars
from tests.metrics.test_jsonl import room_for

ROOT = pathlib.Path(__file__).parents[2]
TOY = ROOT / "configs" / "toy_regression" / "pes.yaml"
messages: Any = event_pb2


def config(outer_steps: int = 8, on: bool = True) -> RunConfig:
    short = [f"run.outer_steps={outer_steps}", "run.eval_every=4", "cluster.fuse=1"]
    small = ["estimator.num_particles=4", "checkpoint.every=3"]
    return load(TOY, [*short, *small, f"run.tensorboard={str(on).lower()}"])


def record(step: int, eval_loss: float | None = None) -> StepRecord:
    return StepRecord(step, 40, 2.0, 3.0, eval_loss, 1.5, 8, {"shards": 2, "x": 0.5})


def events(folder: pathlib.Path) -> Iterator[Any]:
    """The events of all files, in the order in which TensorBoard takes them."""
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:  # Length and its checksum, the event and its checksum.
            (length,) = struct.unpack("<Q", data[:8])
            yield messages.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def curve(folder: pathlib.Path, tag: str) -> list[tuple[int, float]]:
    """The points of a curve; a sitting's beginning hides what it makes again."""
    points: list[tuple[int, float]] = []
    for event in events(folder):
        if event.session_log.status == messages.SessionLog.START:
            points = [point for point in points if point[0] < event.step]
        for value in event.summary.value:
            if value.tag == tag:
                points.append((event.step, value.simple_value))
    return points


def test_a_record_becomes_curves(tmp_path: pathlib.Path) -> None:
    scalars = Scalars(tmp_path / "t", outer_steps=2)
    scalars.begin(0)
    scalars.write(record(1))
    scalars.write(record(2, eval_loss=7.0))
    scalars.close()
    shown = {
        value.tag: (event.step, value.simple_value)
        for event in events(tmp_path / "t")
        for value in event.summary.value
    }
    assert shown == {
        "loss/window": (2, 3.0),
        "loss/evaluated": (2, 7.0),
        "estimate/gradient_norm": (2, 1.5),
        "estimate/particles": (2, 8.0),
        "estimate/x": (2, 0.5),
        "cluster/shards": (2, 2.0),
        "cost/inner_steps": (2, 40.0),
        "cost/wall_seconds": (2, 2.0),
    }


def test_a_run_that_was_killed_and_goes_on_shows_each_step_once(
    tmp_path: pathlib.Path,
) -> None:
    class KilledError(Exception):
        pass

    def kill(record: StepRecord) -> None:
        if record.outer_step == 6:
            raise KilledError

    with pytest.raises(KilledError):
        runner.run(config(), tmp_path / "a", on_record=kill)
    folder = tmp_path / "a" / "tensorboard"
    before = [step for step, _ in curve(folder, "loss/window")]
    assert before[-1] > 3  # Beyond the checkpoint that it goes on from.
    assert runner.resume(tmp_path / "a").status == "finished"
    lines = jsonl.read(tmp_path / "a" / "metrics.jsonl")
    seen = curve(folder, "loss/window")
    assert [step for step, _ in seen] == list(range(1, 9))
    assert [loss for _, loss in seen] == pytest.approx([line["loss"] for line in lines])
    evaluated = [step for step, _ in curve(folder, "loss/evaluated")]
    assert evaluated == [4, 8]
    # What is hidden is there: without the sitting's beginning steps would be doubled.
    raw = [event.step for event in events(folder) if event.summary.value]
    assert len(raw) > len(seen)


def test_going_back_within_a_second_keeps_every_file(tmp_path: pathlib.Path) -> None:
    scalars = Scalars(tmp_path, outer_steps=9)
    for goes_on_after in (0, 2, 1):
        scalars.begin(goes_on_after)
        for step in range(goes_on_after + 1, 5):
            scalars.write(record(step))
    scalars.close()
    assert len(list(tmp_path.iterdir())) == 3
    assert [step for step, _ in curve(tmp_path, "loss/window")] == [1, 2, 3, 4]


def test_of_a_long_run_not_every_step_is_written(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tensorboard, "POINTS", 10)
    scalars = Scalars(tmp_path, outer_steps=25)
    scalars.begin(0)
    for step in range(1, 26):
        scalars.write(record(step, eval_loss=7.0 if step == 8 else None))
    scalars.close()
    steps = [step for step, _ in curve(tmp_path, "loss/window")]
    assert steps == [1, 3, 6, 8, 9, 12, 15, 18, 21, 24, 25]


def test_a_disk_that_refuses_ends_the_scalars_and_nothing_else(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    scalars = Scalars(tmp_path, outer_steps=1000)
    scalars.begin(0)
    with room_for(2000), caplog.at_level(logging.WARNING):
        for step in range(1, 1001):
            scalars.write(record(step))
        scalars.close()
    (said,) = caplog.messages
    assert "cannot be written (File too large)" in said


def test_a_folder_that_cannot_be_made_ends_the_scalars_and_nothing_else(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "t").write_text("")
    scalars = Scalars(tmp_path / "t", outer_steps=1000)
    scalars.begin(0)
    scalars.write(record(1))
    scalars.close()
    assert "no more scalars" in caplog.messages[0] and len(caplog.messages) == 1


def test_the_key_is_no_part_of_what_a_run_is(tmp_path: pathlib.Path) -> None:
    off, on = config(on=False), config(outer_steps=9)
    assert digest(off) == digest(on)
    assert runner.run(off, tmp_path / "a").status == "finished"
    assert not (tmp_path / "a" / "tensorboard").exists()
    assert runner.run(on, tmp_path / "a").outer_steps == 9
    steps = [step for step, _ in curve(tmp_path / "a" / "tensorboard", "loss/window")]
    assert steps == [9]
    assert dataclasses.replace(on.run, tensorboard=False) == config(9, on=False).run


def test_without_the_package_nothing_is_written_and_one_line_says_what_to_do(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="run.tensorboard"):
        runner.run(config(), tmp_path / "a")
    assert main(["run", str(TOY), "run.tensorboard=true"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("pes: run.tensorboard: needs the package tensorboardX")
    assert "pip install 'pes-cluster[tensorboard]'" in said
    assert list(tmp_path.iterdir()) == []
