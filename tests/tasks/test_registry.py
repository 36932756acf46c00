"""The registered tasks: all keep the contract, and one does not load another.

What a wrong name says is tested with the other wrong uses, in tests/cli.
"""

import sys

import pytest

from pes_cluster.config.decode import ConfigError
from pes_cluster.config.recipes import TASK, decode_recipe
from pes_cluster.core.several import check
from pes_cluster.tasks.registry import TASKS


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_registered_task_meets_the_contract(name):
    fields = {"tasks": [{"type": "toy_regression"}]} if name == "multi_task" else {}
    check(decode_recipe(TASK, {"type": name} | fields, "task"))


@pytest.mark.parametrize("name", [":Task", "a-b:Task", "a..b:Task"])
def test_what_cannot_name_a_module_is_one_line(name):
    with pytest.raises(ConfigError, match="is not the name of a module") as caught:
        decode_recipe(TASK, {"type": name}, "task")
    assert "\n" not in str(caught.value)


def test_naming_a_task_imports_no_other(monkeypatch):
    for module in [m for m in sys.modules if m.startswith("pes_cluster.tasks.")]:
        if module != "pes_cluster.tasks.registry":
            monkeypatch.delitem(sys.modules, module)
    decode_recipe(TASK, {"type": "influence_balancing"}, "task")
    assert "pes_cluster.tasks.influence_balancing" in sys.modules
    assert "pes_cluster.tasks.mlp_learning_rate_schedule" not in sys.modules
