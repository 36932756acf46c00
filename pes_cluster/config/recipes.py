"""Recipes by name: ``{type: pes, num_particles: 100, ...}`` to an instance and back."""

import dataclasses
import functools
from typing import Any

from pes_cluster.config import origins
from pes_cluster.config.decode import (
    ConfigError,
    decode_record,
    encode,
    joined,
    one_line,
    shown,
    suggestion,
)
from pes_cluster.config.origins import OriginError
from pes_cluster.estimators.registry import ESTIMATORS
from pes_cluster.learners.registry import LEARNERS
from pes_cluster.tasks.registry import TASKS


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of recipe: its noun, its classes by name, and the method all of them have.

    Attributes:
        noun: For messages.
        registry: Name to "module:Class".
        method: Without it a class is no recipe of this kind.
    """

    noun: str
    registry: dict[str, str]
    method: str


OPTIMIZERS: dict[str, str] = {
    "sgd": "pes_cluster.outer:SGD",
    "adam": "pes_cluster.outer:Adam",
    "rmsprop": "pes_cluster.outer:RMSProp",
}

TASK = Kind("task", TASKS, "initial_theta")
ESTIMATOR = Kind("estimator", ESTIMATORS, "build")
LEARNER = Kind("learner", LEARNERS, "build")
OPTIMIZER = Kind("optimizer", OPTIMIZERS, "transformation")


def decode_recipe(kind: Kind, value: Any, path: str) -> Any:
    """Returns the recipe that a section describes.

    Args:
        kind: What it must be.
        value: A mapping with the key ``type``: a registered name, or "module:Class" for
            a frozen dataclass of the user's own.
        path: Dotted, for the error.

    Raises:
        ConfigError: The type is unknown or does not import, or a field does not fit.
    """
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path}: found {shown(value)}; expected {{type: ..., ...}} with type one "
            f"of {', '.join(sorted(kind.registry))}"
        )
    if "type" not in value:
        raise ConfigError(
            f"{joined(path, 'type')}: missing; one of "
            f"{', '.join(sorted(kind.registry))}"
        )
    fields = {name: item for name, item in value.items() if name != "type"}
    cls = _resolve(kind, value["type"], joined(path, "type"))
    return decode_record(cls, fields, path, functools.partial(decode_recipe, kind))


def encode_recipe(kind: Kind, recipe: Any) -> dict[str, Any]:
    """Returns the section that `decode_recipe` takes back."""
    place = f"{type(recipe).__module__}:{type(recipe).__qualname__}"
    names = {target: name for name, target in kind.registry.items()}
    within = functools.partial(encode_recipe, kind)
    return {"type": names.get(place, place), **encode(recipe, within)}


def _resolve(kind: Kind, name: Any, path: str) -> type[Any]:
    if not isinstance(name, str) or (":" not in name and name not in kind.registry):
        raise ConfigError(
            f"{path}: unknown {kind.noun} {shown(name)}; "
            f"{suggestion(str(name), kind.registry)}"
            f"(allowed: {', '.join(sorted(kind.registry))}, or "
            f'"your_module:YourClass")'
        )
    module_name, _, class_name = kind.registry.get(name, name).partition(":")
    found = getattr(_module(module_name, path), class_name, None)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise ConfigError(
            f"{path}: module {module_name} has no frozen dataclass {class_name!r}"
        )
    if not callable(getattr(found, kind.method, None)):
        raise ConfigError(
            f"{path}: {class_name} is no {kind.noun}; it has no method {kind.method}"
        )
    return found


def _module(name: str, path: str) -> Any:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{path}: {name!r} is not the name of a module")
    try:
        return origins.load(name)
    except OriginError as error:
        raise ConfigError(f"{path}: module {name!r} {error}") from error
    # Other errors come from running the user's own code; they keep their traceback.
    except (ImportError, SyntaxError) as error:
        raise ConfigError(
            f"{path}: module {name!r} does not import "
            f"({type(error).__name__}: {one_line(error)})"
        ) from error
