"""The tasks by name; a class is imported when its name is used."""

import importlib
from typing import Any

from pes_cluster.core.task import TaskError

TASKS: dict[str, str] = {
    "toy_regression": "pes_cluster.tasks.toy_regression:ToyRegression",
    "influence_balancing": "pes_cluster.tasks.influence_balancing:InfluenceBalancing",
    "mlp_learning_rate_schedule": (
        "pes_cluster.tasks.mlp_learning_rate_schedule:MLPLearningRateSchedule"
    ),
}


def resolve(name: str) -> type[Any]:
    """Returns the class of a task.

    Args:
        name: A name in `TASKS`, or "module:Class" for a class of the user's own.

    Raises:
        TaskError: The name is unknown, the module does not import, or lacks the class.
    """
    if ":" not in name and name not in TASKS:
        raise TaskError(
            f"unknown task {name!r}; known are {', '.join(sorted(TASKS))}, or "
            '"your_module:YourTask" for a class of your own'
        )
    module_name, _, class_name = TASKS.get(name, name).partition(":")
    found = getattr(_module(name, module_name), class_name, None)
    if not isinstance(found, type):
        raise TaskError(
            f"task {name!r}: module {module_name} has no class {class_name!r}"
        )
    return found


def _module(name: str, module_name: str) -> Any:
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise TaskError(f"task {name!r}: {module_name!r} is not the name of a module")
    try:
        return importlib.import_module(module_name)
    # Other errors come from running the user's own code; they keep their traceback.
    except (ImportError, SyntaxError) as error:
        raise TaskError(
            f"task {name!r}: module {module_name!r} does not import "
            f"({type(error).__name__}: {' '.join(str(error).split())})"
        ) from error
