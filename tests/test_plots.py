"""Charts are drawn whatever the records hold."""

import pathlib
from typing import Any

import numpy as np
import pytest

from pes_cluster import plots
from pes_cluster.metrics.thinning import thinned

PNG = b"\x89PNG"


def _records(steps: int, every: int = 0) -> list[dict[str, Any]]:
    records = []
    for step in range(1, steps + 1):
        record: dict[str, Any] = {"outer_step": step, "inner_steps": 100 * step}
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
    runs = {label: thinned(records) for label, records in runs.items()}
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


def test_a_record_that_stands_for_many_weighs_as_many() -> None:
    """A wave of ten steps vanishes in the mean, whatever is kept of it."""
    wave = np.sin(2 * np.pi * np.arange(10_000) / 10)
    records = [
        {"outer_step": step, "loss": loss} | ({"eval_loss": 1.0} if step % 10 else {})
        for step, loss in enumerate(wave)
    ]
    _, smooth = plots.averaged(thinned(records), "outer_step", "mean_loss")
    assert len(smooth) > 100 and np.abs(smooth).max() < 0.05
