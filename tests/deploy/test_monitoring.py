"""The dashboard and the alert rules speak of gauges that a run exports."""

import json
import pathlib
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from pes_cluster.cluster.telemetry import GAUGES, PREFIX

FOLDER = pathlib.Path(__file__).parents[2] / "deploy" / "monitoring"
EXPORTED = {f"ray_{PREFIX}{gauge.name}" for gauge in GAUGES}

DASHBOARD: Any = json.loads((FOLDER / "dashboard.json").read_text())
(GROUP,) = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]


def gauges(expression: str) -> set[str]:
    """What an expression names besides functions and words of the language."""
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^]]*\]', " ", expression)
    words = re.findall(r"\b[a-zA-Z_]\w*\b(?!\s*\()", bare)
    return set(words) - {"max", "by", "and", "or", "unless", "run"}


def queries() -> list[str]:
    variables = [one["definition"] for one in DASHBOARD["templating"]["list"][1:]]
    shown = [one["expr"] for panel in DASHBOARD["panels"] for one in panel["targets"]]
    return [*shown, *(one.removeprefix("label_values") for one in variables)]


def test_the_names_in_an_expression_are_found() -> None:
    expression = 'max by (run) (ray_a{run=~"b"}) / deriv(other_c[1m]) > 1e3 or d'
    assert gauges(expression) == {"ray_a", "other_c", "d"}


def test_every_expression_names_gauges_that_are_exported() -> None:
    for expression in [*(rule["expr"] for rule in GROUP["rules"]), *queries()]:
        named = gauges(expression)
        assert named and named <= EXPORTED, expression


def test_every_gauge_is_on_the_dashboard() -> None:
    assert set().union(*map(gauges, queries())) >= EXPORTED


def test_panels_are_told_apart_and_lie_beside_each_other() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        columns = range(at["x"], at["x"] + at["w"])
        rows = range(at["y"], at["y"] + at["h"])
        cells = {(column, row) for column in columns for row in rows}
        assert at["x"] + at["w"] <= 24 and not cells & taken
        taken |= cells
        assert panel["title"] and panel["description"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


def test_every_alert_says_what_happened_and_what_to_do_and_is_in_the_readme() -> None:
    readme = (FOLDER / "README.md").read_text()
    for rule in GROUP["rules"]:
        assert f"| `{rule['alert']}` |" in readme
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert "$labels.run" in rule["annotations"]["summary"]
        assert rule["annotations"]["action"].endswith(".")


def promtool(*arguments: str, folder: pathlib.Path = FOLDER) -> tuple[int, str]:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("no promtool (Debian package prometheus)")
    done = subprocess.run(
        [tool, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout


def test_the_rules_are_understood_by_prometheus() -> None:
    code, said = promtool("check", "rules", "alerts.yaml")
    assert code == 0 and f"{len(GROUP['rules'])} rules found" in said


def test_each_alert_fires_for_what_it_is_meant_for_and_for_nothing_else() -> None:
    code, said = promtool("test", "rules", "alerts_test.yaml")
    assert code == 0, said


@pytest.mark.parametrize("wrong", ["> 0", "== 0", "> 1800", "unless", "<"])
def test_an_alert_with_another_condition_is_noticed(
    wrong: str, tmp_path: pathlib.Path
) -> None:
    shutil.copy(FOLDER / "alerts_test.yaml", tmp_path)
    text = (FOLDER / "alerts.yaml").read_text()
    other = {"unless": "and", "<": ">"}.get(wrong, "> 1e9")
    assert wrong in text
    (tmp_path / "alerts.yaml").write_text(text.replace(wrong, other))
    code, said = promtool("test", "rules", "alerts_test.yaml", folder=tmp_path)
    assert code != 0 and "FAILED" in said
