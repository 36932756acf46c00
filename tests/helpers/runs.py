"""One run on one shard, on three, and stopped and resumed: one result."""

import pathlib
from typing import Any

import pes_cluster as pes


def thetas(task: Any, estimator: Any, folder: pathlib.Path) -> dict[str, str]:
    """The hash of theta after four steps, by how it came about."""
    replaces = getattr(estimator, "replaces_theta", False)
    optimizer = pes.SGD(1.0) if replaces else pes.Adam(0.01)

    def run(name: str, shards: int, steps: int) -> str:
        config = pes.RunConfig(
            task=task,
            estimator=estimator,
            outer=pes.OuterSettings(optimizer),
            run=pes.RunSettings(outer_steps=steps, eval_every=0),
            cluster=pes.ClusterSettings(pool="local", shards=shards),
        )
        result = pes.run(config, folder / name)
        assert result.status == "finished", result.error
        return result.theta_sha256

    begun = run("cut", 2, 2)
    hashes = {
        "one shard": run("one", 1, 4),
        "three shards": run("three", 3, 4),
        "resumed": run("cut", 3, 4),
    }
    assert begun not in hashes.values() or replaces, "nothing moved"
    return hashes
