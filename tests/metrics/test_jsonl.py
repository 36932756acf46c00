"""Lines of JSON: appended, torn, cut back, refused by the disk."""

import contextlib
import json
import logging
import math
import pathlib
import resource
from collections.abc import Iterator

import pytest

from pes_cluster import whole_file
from pes_cluster.metrics import jsonl
from pes_cluster.metrics.record import StepRecord, from_line


def _record(step: int, loss: float = 1.0, eval_loss: float | None = None) -> StepRecord:
    return StepRecord(step, 10 * step, 0.1 * step, loss, eval_loss, 0.5, 4, {"x": 1})


def _lines(first: int, last: int) -> list[str]:
    return [_record(step).to_json() for step in range(first, last + 1)]


def _written(path: pathlib.Path, steps: int) -> None:
    with jsonl.LinesFile(path) as metrics:
        for line in _lines(1, steps):
            metrics.append(line)


def _steps(path: pathlib.Path) -> list[int]:
    return [line["outer_step"] for line in jsonl.read(path)]


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """Files end at so many bytes: what then fails is a real, half-done write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_each_line_is_there_at_once(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with jsonl.LinesFile(path) as metrics:
        metrics.append(_record(1, eval_loss=2.0).to_json())
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


@pytest.mark.parametrize("torn", [b'{"outer_st', b"{", b'{"outer_step": 4}', b"\xff"])
def test_a_torn_line_is_left_out_and_then_cut_off(
    tmp_path: pathlib.Path, torn: bytes
) -> None:
    path = tmp_path / "metrics.jsonl"
    _written(path, 3)
    path.write_bytes(path.read_bytes() + torn)
    assert _steps(path)[:3] == [1, 2, 3]
    with jsonl.LinesFile(path) as metrics:
        metrics.append(*_lines(4, 4))
    assert path.read_text().splitlines() == _lines(1, 4)


@pytest.mark.parametrize("odd", ["[" * 100_000, '"outer_step"', "3", ""])
def test_what_is_no_record_is_left_out(tmp_path: pathlib.Path, odd: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join([*_lines(1, 2), odd, *_lines(3, 3)]) + "\n")
    assert _steps(path) == [1, 2, 3]


def test_drops_what_will_be_made_again(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    _written(path, 5)
    with jsonl.LinesFile(path) as metrics:
        metrics.rewind(3)
        assert path.read_text().splitlines() == _lines(1, 3)
        metrics.append(*_lines(4, 4))
        assert path.read_text().splitlines() == _lines(1, 4)
        metrics.rewind(0)
    assert path.read_text() == ""
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_what_the_disk_refuses_is_written_later_in_order(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = _lines(1, 9)
    size = len(lines[0]) + 1
    with caplog.at_level(logging.WARNING), jsonl.LinesFile(path) as metrics:
        with room_for(3 * size + size // 2):
            for line in lines[:8]:
                metrics.append(line)
        # Nothing torn is left, although half of the fourth line had room.
        assert path.read_text().splitlines() == lines[:3]
        metrics.append(lines[8])
        assert path.read_text().splitlines() == lines
    (message,) = caplog.messages
    assert str(path) in message and "wait in memory" in message


def test_waiting_lines_of_later_steps_are_dropped_too(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with jsonl.LinesFile(path) as metrics:
        with room_for(0):
            for line in _lines(1, 6):
                metrics.append(line)
        metrics.rewind(4)
    assert _steps(path) == [1, 2, 3, 4]


def test_lines_that_a_checkpoint_kept_are_written_once(tmp_path: pathlib.Path) -> None:
    """Steps 3 to 5 were refused when step 5 was saved; the process then died."""
    path, lines = tmp_path / "metrics.jsonl", _lines(1, 9)
    _written(path, 2)
    for _ in range(2):
        with jsonl.LinesFile(path) as metrics:
            metrics.rewind(5, lines[2:5])
        assert path.read_text().splitlines() == lines[:5]
    # The disk took them after the checkpoint, and more.
    with jsonl.LinesFile(path) as metrics:
        metrics.append(lines[5])
    with jsonl.LinesFile(path) as metrics:
        metrics.rewind(5, lines[2:5])
    assert path.read_text().splitlines() == lines[:5]
    # They still wait in the process that falls back.
    path.unlink()
    with jsonl.LinesFile(path) as metrics:
        with room_for(0):
            for line in lines[:8]:
                metrics.append(line)
        metrics.rewind(5, lines[2:5])
        metrics.append(lines[5])
    assert path.read_text().splitlines() == lines[:6]


def test_what_waits_is_told(tmp_path: pathlib.Path) -> None:
    lines = _lines(1, 3)
    with jsonl.LinesFile(tmp_path / "metrics.jsonl") as metrics:
        metrics.append(lines[0])
        with room_for(0):
            metrics.append(lines[1])
            metrics.append(lines[2])
            assert metrics.settle() == (lines[1], lines[2])
        assert metrics.settle() == ()


@pytest.mark.parametrize("odd", [b"\0\0\0\n", b"\n", b"[]\n", b'{"outer_step": "x"}\n'])
def test_lines_after_a_broken_one_are_dropped_too(
    tmp_path: pathlib.Path, odd: bytes
) -> None:
    """A host that crashed may leave holes; what is beyond the step still goes."""
    path = tmp_path / "metrics.jsonl"
    _written(path, 4)
    path.write_bytes(path.read_bytes() + odd)
    with jsonl.LinesFile(path) as metrics:
        metrics.rewind(3)
    assert path.read_text().splitlines() == _lines(1, 3)


def test_what_is_still_refused_at_the_end_is_an_error(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics = jsonl.LinesFile(path)
    with room_for(0), pytest.raises(OSError):
        metrics.append(*_lines(1, 1))
        metrics.close()


def test_a_file_that_is_refused_leaves_no_scratch(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("before")
    with room_for(10), pytest.raises(OSError):
        whole_file.write(path, "x" * 1000)
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_the_tail_holds_the_last_whole_lines(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "metrics.jsonl"
    _written(path, 9)
    size = len(_lines(9, 9)[0]) + 1
    assert [line["outer_step"] for line in jsonl.tail(path, 3 * size + 1)] == [7, 8, 9]
    assert len(jsonl.tail(path)) == 9
    with path.open("a") as file:
        file.write('{"outer_step": 10, "los')  # The writer is at it.
    assert jsonl.tail(path)[-1]["outer_step"] == 9


def test_the_last_line_with_a_field_is_found_however_far_back(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "metrics.jsonl"
    evaluated = [_record(step, eval_loss=step).to_json() for step in (2, 3)]
    many = 2 * jsonl.TAILS[0] // len(_lines(9, 9)[0])
    path.write_text("\n".join([*_lines(1, 1), *evaluated, *_lines(4, many), ""]))
    assert jsonl.last_with(path, "eval_loss")["outer_step"] == 3
    assert jsonl.last_with(path, "absent") == {}
    assert jsonl.last_with(path, "loss")["outer_step"] == many


@pytest.mark.parametrize("eval_loss", [None, 2.0])
def test_a_record_is_read_back_from_its_line(eval_loss: float | None) -> None:
    before = _record(1, eval_loss=eval_loss)
    assert from_line(json.loads(before.to_json())) == before


def test_what_was_no_number_is_none_when_it_is_read_back() -> None:
    line = json.loads(_record(3, loss=math.inf, eval_loss=math.nan).to_json())
    read = from_line(line)
    assert math.isnan(read.loss) and math.isnan(read.eval_loss or 0.0)


@pytest.mark.parametrize("line", [{}, {"outer_step": 3}, {"outer_step": 3, "x": []}])
def test_a_line_that_holds_no_record_is_refused(line: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not a record"):
        from_line(line)
