"""Names of tasks, and one clear line for each way in which a name can be wrong."""

import sys

import pytest

from pes_cluster.core.task import TaskError, check_task
from pes_cluster.tasks.registry import TASKS, resolve


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_registered_task_meets_the_contract(name):
    check_task(resolve(name)())


def test_a_class_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "users_tasks_a.py").write_text("class Mine: pass\nvalue = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("users_tasks_a:Mine").__name__ == "Mine"
    with pytest.raises(TaskError, match="module users_tasks_a has no class 'Absent'"):
        resolve("users_tasks_a:Absent")
    with pytest.raises(TaskError, match="has no class 'value'"):
        resolve("users_tasks_a:value")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toy", "unknown task 'toy'; known are .*toy_regression"),
        (
            "no_such_module_x:Task",
            "'no_such_module_x' does not import .*No module named",
        ),
        (":Task", "'' is not the name of a module"),
        ("a-b:Task", "'a-b' is not the name of a module"),
    ],
)
def test_a_wrong_name_is_one_line(name, message):
    with pytest.raises(TaskError, match=message) as caught:
        resolve(name)
    assert "\n" not in str(caught.value)


def test_a_module_with_a_syntax_error_says_so(tmp_path, monkeypatch):
    (tmp_path / "users_tasks_b.py").write_text("class Mine(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TaskError, match=r"does not import \(SyntaxError: ") as caught:
        resolve("users_tasks_b:Mine")
    assert "\n" not in str(caught.value)


def test_naming_a_task_imports_no_other(monkeypatch):
    for module in [m for m in sys.modules if m.startswith("pes_cluster.tasks.")]:
        if module != "pes_cluster.tasks.registry":
            monkeypatch.delitem(sys.modules, module)
    resolve("influence_balancing")
    assert "pes_cluster.tasks.influence_balancing" in sys.modules
    assert "pes_cluster.tasks.mlp_learning_rate_schedule" not in sys.modules
