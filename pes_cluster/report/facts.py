"""What a run is, in a few words, from its configuration."""

from typing import Any

from pes_cluster.config import document
from pes_cluster.config.decode import ConfigError
from pes_cluster.estimators.registry import REFERENCES
from pes_cluster.learners.registry import REFERENCES as LEARNERS
from pes_cluster.metrics.history import History

_KEYS = {
    "Task": "task.type",
    "Data": "task.dataset",
    "N, particles at start": "estimator.num_particles",
    "K, truncation length": "estimator.truncation_length",
    "T, episode length": "task.episode_length",
    "Noise period": "estimator.noise_period",
    "sigma": "estimator.sigma",
    "Optimiser": "outer.optimizer.type",
    "Learning rate": "outer.optimizer.learning_rate",
    "Updates asked for": "run.outer_steps",
    "Seed": "run.seed",
}

HIDDEN = "(not shown)"


def settings(history: History) -> dict[str, Any]:
    """The values of a run's configuration, by dotted path."""
    try:
        return document.flat(document.parse(shared(history), history.name))
    except ConfigError:
        return {}  # A run whose directory has lost it.


def shared(history: History) -> str:
    """A run's configuration as YAML, but for the values of its environment."""
    try:
        sections = document.parse(history.config, history.name)
    except ConfigError:
        return ""
    section: Any = sections
    for name in ("cluster", "per_shard", "env"):
        section = section.get(name) if isinstance(section, dict) else None
    if isinstance(section, dict):
        section |= dict.fromkeys(section, HIDDEN)
    return document.write(sections)


def facts(history: History) -> dict[str, str]:
    """What was run: names, the paper, and the sizes that a reader asks for."""
    known = settings(history)
    estimator, learner = known.get("estimator.type"), known.get("learner.type")
    reference = REFERENCES.get(str(estimator)) or LEARNERS.get(str(learner))
    found = {"Learner" if learner else "Estimator": estimator or learner}
    found["Proposed by"] = reference
    found |= {name: known.get(key) for name, key in _KEYS.items()}
    if found["sigma"] is None:
        parts = [f"{k.rpartition('.')[2]} {v}" for k, v in known.items() if _of(k)]
        found["sigma"] = ", ".join(parts) or None
    return {name: str(value) for name, value in found.items() if value is not None}


def differing(histories: list[History]) -> dict[str, list[str]]:
    """The settings in which runs differ, by dotted path: a value for each run."""
    known = [settings(history) for history in histories]
    paths = dict.fromkeys(path for one in known for path in one)
    values = {path: [_shown(one.get(path)) for one in known] for path in paths}
    return {path: row for path, row in values.items() if len(set(row)) > 1}


def _of(path: str) -> bool:
    return path.startswith("estimator.sigma.")


def _shown(value: Any) -> str:
    return "–" if value is None else str(value)
