"""What a run is: the sections of a YAML file as one frozen value."""

import dataclasses
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pes_cluster.cluster.settings import (
    CheckpointSettings,
    ClusterSettings,
    RunSettings,
)
from pes_cluster.config import document
from pes_cluster.config.decode import (
    ConfigError,
    check_keys,
    decode_record,
    encode,
    shown,
)
from pes_cluster.config.recipes import (
    ESTIMATOR,
    LEARNER,
    OPTIMIZER,
    TASK,
    Kind,
    decode_recipe,
    encode_recipe,
)

if TYPE_CHECKING:  # JAX is loaded by the recipes that a configuration names.
    from pes_cluster.core.estimator import Estimator, Learner
    from pes_cluster.core.task import Task
    from pes_cluster.outer import Optimizer

_RECIPES: dict[str, Kind] = {"task": TASK, "estimator": ESTIMATOR, "learner": LEARNER}
_SETTINGS: dict[str, type[Any]] = {
    "run": RunSettings,
    "cluster": ClusterSettings,
    "checkpoint": CheckpointSettings,
}

# Keys that came later, at the value that changes no run made before they came.
_AS_BEFORE: dict[str, Any] = {
    "divergence": "cap",
    "loss_cap": None,
    "grown_from": None,
    "rank": None,
    "l2": 0.0,
    "image_size": None,
}


@dataclasses.dataclass(frozen=True)
class OuterSettings:
    """The `outer` section.

    Attributes:
        optimizer: What makes an update of theta from the estimate.
        staleness: 0: every window is at the latest theta. 1: at the one before it, so
            that shards need not wait for the update; a fixed delay, the same on any
            cluster.
    """

    optimizer: "Optimizer"
    staleness: int = 0

    def __post_init__(self) -> None:
        if self.staleness not in (0, 1):
            raise ValueError(f"staleness: {self.staleness} must be 0 or 1")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A run: a task, an estimator and an outer optimiser; or a learner.

    Attributes:
        task: The inner problem; None where a learner brings its own stream.
        estimator: How the gradient in theta is estimated.
        learner: A whole online learner in each block, in the estimator's place.
        outer: How theta is updated; None with a learner, which updates itself.
        run: How long, from which seed, how often evaluated.
        cluster: Where it runs; never changes the result (but see `fuse`).
        checkpoint: How often it is saved.

    Raises:
        ConfigError: The sections do not make a run.
    """

    task: "Task[Any] | None" = None
    estimator: "Estimator | None" = None
    learner: "Learner | None" = None
    outer: OuterSettings | None = None
    run: RunSettings = dataclasses.field(default_factory=RunSettings)
    cluster: ClusterSettings = dataclasses.field(default_factory=ClusterSettings)
    checkpoint: CheckpointSettings = dataclasses.field(
        default_factory=CheckpointSettings
    )

    def __post_init__(self) -> None:
        if (self.estimator is None) == (self.learner is None):
            raise ConfigError("a run has one of the sections estimator and learner")
        if self.estimator is not None:
            for name in ("task", "outer"):
                if getattr(self, name) is None:
                    raise ConfigError(f"{name}: missing; an estimator needs it")
            _check_outer(self.estimator, self.outer)
        elif self.outer is not None:
            raise ConfigError("outer: not allowed; a learner updates itself")

    @property
    def method(self) -> "Estimator | Learner":
        """The estimator or the learner."""
        method = self.estimator if self.estimator is not None else self.learner
        assert method is not None  # `__post_init__` saw to it.
        return method

    @property
    def name(self) -> str:
        """A short name, of the task and the method."""
        sections = to_dict(self)
        types = [sections[name]["type"] for name in _RECIPES if name in sections]
        return "-".join(str(kind).rpartition(":")[2] for kind in types)


def load(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a YAML file.

    Args:
        path: Of the file.
        overrides: ``key.path=value`` each.

    Raises:
        ConfigError: One line that names the dotted path, what was found and what is
            allowed.
    """
    sections = document.read(pathlib.Path(path))
    return from_dict(document.override(sections, list(overrides)))


def parse(text: str, source: str) -> RunConfig:
    """Decodes YAML that came from somewhere else than a file; raises as `load`."""
    return from_dict(document.parse(text, source))


def from_dict(sections: dict[str, Any]) -> RunConfig:
    """Decodes the sections of a run; raises as `load`."""
    names = [field.name for field in dataclasses.fields(RunConfig)]
    check_keys(sections, names, "")
    # A section that is left empty reads as null.
    given = {name: value for name, value in sections.items() if value is not None}
    decoded: dict[str, Any] = {}
    for name, kind in _RECIPES.items():
        if name in given:
            decoded[name] = decode_recipe(kind, given[name], name)
    for name, settings in _SETTINGS.items():
        if name in given:
            decoded[name] = decode_record(settings, given[name], name)
    if "outer" in given:
        decoded["outer"] = _decode_outer(given["outer"])
    return RunConfig(**decoded)


def to_dict(config: RunConfig) -> dict[str, Any]:
    """Returns every section in full, as `from_dict` takes it back."""
    sections: dict[str, Any] = {}
    for name, kind in _RECIPES.items():
        recipe = getattr(config, name)
        if recipe is not None:
            sections[name] = encode_recipe(kind, recipe)
    if config.outer is not None:
        optimizer = encode_recipe(OPTIMIZER, config.outer.optimizer)
        sections["outer"] = {
            "optimizer": optimizer,
            "staleness": config.outer.staleness,
        }
    for name in _SETTINGS:
        sections[name] = encode(getattr(config, name))
    return sections


def to_yaml(config: RunConfig) -> str:
    """Returns the YAML file that `load` reads as this configuration."""
    return document.write(to_dict(config))


def digest(config: RunConfig) -> str:
    """Returns a hash of what determines the result: equal digests, equal runs."""
    canonical = json.dumps(_determining(config), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def differences(saved: RunConfig, asked: RunConfig) -> list[str]:
    """Returns one phrase for each determining key whose values differ."""
    before = document.flat(_determining(saved))
    now = document.flat(_determining(asked))
    absent = object()
    return [
        f"{path} was {_or_absent(before, path)}, is {_or_absent(now, path)}"
        for path in dict.fromkeys([*before, *now])
        if before.get(path, absent) != now.get(path, absent)
    ]


def _decode_outer(value: Any) -> OuterSettings:
    if not isinstance(value, dict):
        raise ConfigError(f"outer: found {shown(value)}; expected the key optimizer")
    check_keys(value, ["optimizer", "staleness"], "outer")
    if "optimizer" not in value:
        raise ConfigError("outer.optimizer: missing; such as {type: adam, ...}")
    recipe = decode_recipe(OPTIMIZER, value["optimizer"], "outer.optimizer")
    staleness = value.get("staleness", 0)
    if staleness not in (0, 1) or isinstance(staleness, bool):
        found = shown(staleness)
        raise ConfigError(f"outer.staleness: found {found}; expected 0 or 1")
    return OuterSettings(recipe, staleness)


def _check_outer(estimator: Any, settings: OuterSettings | None) -> None:
    """Refuses an optimiser that would not leave theta where an estimator puts it."""
    if not getattr(estimator, "replaces_theta", False):
        return
    from pes_cluster.outer import SGD

    if settings != OuterSettings(SGD(1)):
        raise ConfigError(
            f"outer: {type(estimator).__name__} sets theta itself; it needs optimizer "
            "{type: sgd, learning_rate: 1} and staleness 0"
        )


def _determining(config: RunConfig) -> dict[str, Any]:
    sections = to_dict(config)
    for name in _SETTINGS:
        del sections[name]
    sections["run"] = {"seed": config.run.seed}
    if config.cluster.fuse > 1:
        # One compiled loop may differ from single steps in the last place of a float.
        sections["cluster"] = {"fused": True}
    if "outer" in sections and not sections["outer"]["staleness"]:
        del sections["outer"]["staleness"]  # As before there was such a key.
    task, method = sections.get("task", {}), sections.get("estimator", {})
    # Where the files lie does not change what is in them.
    for one in (task, *task.get("tasks", ())):
        one.pop("data_dir", None)
    optimizer = sections.get("outer", {}).get("optimizer", {})
    for section, (name, before) in itertools.product(
        (task, method, optimizer), _AS_BEFORE.items()
    ):
        if section.get(name, before) == before:
            section.pop(name, None)
    if method.get("pairs_per_block", 0) is None and "num_particles" in method:
        from pes_cluster.core.blocks import pairs_per_block

        # Written out, so that a run notices when the default is no longer what it was.
        began_with = method.get("grown_from") or method["num_particles"]
        method["pairs_per_block"] = pairs_per_block(began_with // 2)
    return sections


def _or_absent(flat: dict[str, Any], path: str) -> str:
    return shown(flat[path]) if path in flat else "absent"
