"""metrics.jsonl: appended, torn, cut back."""

import json
import pathlib

import pytest

from pes_cluster.metrics import jsonl
from pes_cluster.metrics.record import StepRecord


def _record(step: int, loss: float = 1.0, eval_loss: float | None = None) -> StepRecord:
    return StepRecord(step, 10 * step, 0.1 * step, loss, eval_loss, 0.5, 4, {"x": 1})


def _written(path: pathlib.Path, steps: int) -> None:
    with jsonl.MetricsFile(path) as metrics:
        for step in range(1, steps + 1):
            metrics.append(_record(step))


def test_each_line_is_there_at_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with jsonl.MetricsFile(path) as metrics:
        metrics.append(_record(1, eval_loss=2.0))
        (line,) = path.read_text().splitlines()
    assert json.loads(line) == {
        "outer_step": 1,
        "inner_steps": 10,
        "wall_seconds": 0.1,
        "loss": 1.0,
        "eval_loss": 2.0,
        "gradient_norm": 0.5,
        "particles": 4,
        "x": 1,
    }


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_what_json_cannot_hold_is_null(loss: float) -> None:
    line = json.loads(_record(1, loss).to_json(), parse_constant=pytest.fail)
    assert line["loss"] is None


def test_a_torn_line_is_left_out(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    _written(path, 3)
    path.write_text(path.read_text()[:-20])
    assert [line["outer_step"] for line in jsonl.read(path)] == [1, 2]


def test_drops_what_will_be_made_again(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    _written(path, 5)
    before = path.read_text().splitlines()
    jsonl.drop_after(path, 3)
    assert path.read_text().splitlines() == before[:3]
    jsonl.drop_after(path, 0)
    assert path.read_text() == ""
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_nothing_to_drop(tmp_path: pathlib.Path) -> None:
    jsonl.drop_after(tmp_path / "metrics.jsonl", 3)
    assert not (tmp_path / "metrics.jsonl").exists()
