"""Histories to make pages of."""

import math
from typing import Any

from pes_cluster.metrics.history import History, made

CONFIG = """
task: {{type: toy_regression, episode_length: 100}}
estimator: {{type: {estimator}, num_particles: 100, truncation_length: 10, sigma: 0.3}}
outer:
  optimizer: {{type: adam, learning_rate: 0.01}}
run: {{seed: 3, outer_steps: 200}}
cluster:
  per_shard:
    env: {{TOKEN: hush}}
"""
NODE = "f7d48a4d7733cfbfdf26e778efbd2033eaeca41569326813114da942"
EVENTS: list[dict[str, Any]] = [
    {"event": "started", "outer_step": 0, "time": 100.0, "shards": 2},
    {
        "event": "checkpoint",
        "outer_step": 50,
        "time": 110.0,
        "seconds": 0.1,
        "bytes": 2048,
    },
    {
        "event": "lost",
        "outer_step": 60,
        "time": 112.0,
        "shard": 1,
        "node": NODE,
        "reason": "its process died",
    },
    {
        "event": "lost",
        "outer_step": 60,
        "time": 112.5,
        "shard": 0,
        "node": NODE,
        "reason": "silent",
    },
    {
        "event": "recovered",
        "outer_step": 60,
        "time": 118.0,
        "shard": 1,
        "node": "aa",
        "replayed": 3,
        "seconds": 5.5,
    },
    {"event": "resumed", "outer_step": 50, "time": 1118.0, "shards": 2},
    {"event": "scaled", "outer_step": 90, "time": 1128.0, "particles": 400},
    {"event": "stopped", "outer_step": 120, "time": 1130.0},
    {"event": "resumed", "outer_step": 120, "time": 5000.0, "shards": 2},
    {"event": "finished", "outer_step": 200, "time": 5010.0},
]


def records(steps: int, every: int = 5, scale: float = 100.0) -> list[dict[str, Any]]:
    """Losses that fall, with a wave."""
    found = []
    for step in range(1, steps + 1):
        loss = scale / step + 2.0 + math.sin(step)
        record = {
            "outer_step": step,
            "inner_steps": 1000 * step,
            "wall_seconds": 0.1 * step,
            "loss": loss,
            "gradient_norm": 1 / step,
            "accumulator_norm": 3.0 + math.cos(step),
            "particles": 100,
            "shards": 2,
        }
        found.append(record | ({"eval_loss": 10 * loss} if step % every == 0 else {}))
    return found


def history(name: str = "a", steps: int = 200, **changed: Any) -> History:
    """A run with failures."""
    estimator = changed.pop("estimator", "pes")
    given: dict[str, Any] = {
        "config": CONFIG.format(estimator=estimator),
        "records": records(steps),
        "events": EVENTS,
        "result": {
            "status": "finished",
            "theta": {"theta": [2.5, -1.25]},
            "theta_sha256": "0123456789abcdef",
        },
    }
    return made(name, **(given | changed))
