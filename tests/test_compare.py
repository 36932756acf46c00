"""Runs side by side: rows, labels, one chart."""

import pathlib

import pytest

from pes_cluster import compare
from pes_cluster.metrics.history import History, made
from pes_cluster.run_directory import RunDirectoryError
from tests.report.samples import history, records


def _ended(name: str, loss: float | None) -> History:
    last = {"outer_step": 9, "inner_steps": 90, "wall_seconds": 3.0, "loss": 1.0}
    evaluated = {} if loss is None else {"eval_loss": loss}
    return made(name, "", [last | evaluated, last | {"outer_step": 12}], [], {})


def test_the_least_loss_is_first_and_who_has_none_is_last() -> None:
    found = [("none", None), ("two", 2.0), ("zero", 0.0)]
    rows = compare.rows([History("new"), *(_ended(*one) for one in found)])
    assert [row.run for row in rows] == ["zero", "two", "new", "none"]
    assert rows[0] == compare.Row(
        "zero", "unfinished", 0.0, 1.0, 12, 90, None, None, 3.0, 4.0
    )


def test_directories_are_told_apart_and_read_once(tmp_path: pathlib.Path) -> None:
    for place in ("x/run", "y/run"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "metrics.jsonl").write_text('{"outer_step": 1}\n')
    paths = [tmp_path / place for place in ("x/run", "y/run", "x/../x/run")]
    assert [one.name for one in compare.read(paths)] == ["x/run", "y/run"]
    assert compare.holder(paths[:2]) == tmp_path
    assert [one.name for one in compare.read(paths[:1])] == ["run"]


def test_a_chart_of_runs_of_which_some_have_nothing_to_show(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "chart.png"
    with pytest.raises(RunDirectoryError, match="no records"):
        compare.chart([History("new")], path)
    assert list(tmp_path.iterdir()) == []
    compare.chart(
        [History("new"), history("a"), history("_b$"), _ended("c", 1.0)], path
    )
    assert [one.name for one in tmp_path.iterdir()] == ["chart.png"]
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_chart_that_cannot_be_written_leaves_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "chart.png").mkdir()
    with pytest.raises(OSError):
        compare.chart([history("a")], tmp_path / "chart.png")
    assert [one.name for one in tmp_path.iterdir()] == ["chart.png"]


def test_a_run_that_is_never_evaluated_is_compared_by_its_windows() -> None:
    one = made("a", "", records(200, every=1000), [], {})
    assert compare.rows([one])[0].eval_loss is None
