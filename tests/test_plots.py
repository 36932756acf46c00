"""Charts are drawn whatever the records hold."""

import pathlib

import numpy as np
import pytest

from pes_cluster import plots

PNG = b"\x89PNG"


def _records(steps: int, every: int = 0) -> list[plots.Line]:
    records = []
    for step in range(1, steps + 1):
        record: plots.Line = {"outer_step": step, "inner_steps": 100 * step}
        record["loss"] = 1000.0 / step
        if every and step % every == 0:
            record["eval_loss"] = 10.0 / step
        records.append(record)
    return records


@pytest.mark.parametrize("records", [_records(200, 10), _records(200), _records(1, 1)])
def test_curves(records: list[plots.Line], tmp_path: pathlib.Path) -> None:
    path = tmp_path / "plots" / "loss.png"
    plots.curves(records, "title", path)
    assert path.read_bytes().startswith(PNG)
    assert path.stat().st_size > 5000


def test_losses_that_are_not_finite(tmp_path: pathlib.Path) -> None:
    records = _records(50, 5)
    records[-1]["loss"] = records[-1]["eval_loss"] = None
    plots.curves(records, "title", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000


@pytest.mark.parametrize("every", [0, 5, 100])
def test_comparison(every: int, tmp_path: pathlib.Path) -> None:
    runs = {"long": _records(100, every), "short": _records(3, every)}
    plots.comparison(runs, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)


def test_series_takes_the_records_that_have_both() -> None:
    x, y = plots.series(_records(20, 10), "outer_step", "eval_loss")
    np.testing.assert_array_equal(x, [10, 20])
    np.testing.assert_array_equal(y, [1.0, 0.5])


def test_smoothing_keeps_a_line_a_line() -> None:
    x = np.arange(500.0)
    smooth_x, smooth_y = plots.smoothed((x, 2 * x))
    np.testing.assert_allclose(smooth_y, 2 * smooth_x)
    assert len(smooth_x) == 500 - 10 + 1
